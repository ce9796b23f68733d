"""The exhaustive explorer, further out than a test has time for.

python -m tests.campaigns.explorer [--states 1500000]
"""

import argparse
import json
import sys
import time

from tests.campaigns import RESULTS
from tests.faults.explorer import Bounds, Broken, Explorer

IN_CI = (
    Bounds(),
    Bounds(activations=1, commands=2, fences=2, lapses=1),
    Bounds(activations=1, commands=2, inbox=True),
    Bounds(activations=2, fences=0, inbox=True),
)
FURTHER = (
    *IN_CI,
    Bounds(activations=2, lapses=1),
    Bounds(activations=2, commands=2),
    Bounds(activations=2, fences=2),
    Bounds(activations=2, inbox=True),
    Bounds(activations=1, commands=2, lapses=1, inbox=True),
    Bounds(activations=3),
    Bounds(activations=2, commands=2, fences=1, inbox=True),
)


def main() -> int:
    """The command line: 0 if no history breaks a promise."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.explorer", description=__doc__.splitlines()[0])
    parser.add_argument("--states", type=int, default=1_500_000, help="give up on bounds beyond so many states")
    options = parser.parse_args()
    told, failed = [], False
    for bounds in FURTHER:
        explorer, began = Explorer(bounds), time.monotonic()
        try:
            states = explorer.run(options.states)
            broken = ""
        except Broken as found:
            states, broken, failed = len(explorer.seen), str(found), True
        told.append(
            {
                "bounds": bounds._asdict(),
                "states": states,
                "steps": explorer.steps,
                "exhausted": states < options.states and not broken,
                "seconds": round(time.monotonic() - began, 1),
                "broken": broken,
            }
        )
        print(json.dumps(told[-1]), flush=True)
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "explorer.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
