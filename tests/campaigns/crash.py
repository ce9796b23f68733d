"""Kills and power cuts of writing processes: nothing acknowledged is lost, nothing stands twice, nothing is made up.

python -m tests.campaigns.crash [--kills 1000] [--cuts 500] [--seed N]
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.campaigns import Result
from tests.faults.crashing import cut_power, kill_writers

CHUNK = 50
SEED = 20_260_901
BAD = ("lost", "duplicated", "phantom", "not accepted")
Run = Callable[[Path, int, random.Random], Counter[str]]


def campaign(name: str, run: Run, wanted: int, seed: int) -> Result:
    """Go on to ``wanted`` runs, each chunk on a log of its own, from wherever the result file says."""
    result = Result(name, seed)
    while result.done < wanted:
        count, began = min(CHUNK, wanted - result.done), time.monotonic()
        with tempfile.TemporaryDirectory(prefix="agent-party-crash-") as folder:
            counts = run(Path(folder), count, random.Random(f"{name}:{seed}:{result.done}"))
        counts["seconds"] = round(time.monotonic() - began)
        result.add(result.done + count, counts)
        print(f"{name}: {result.done} of {wanted}, {dict(sorted(result.counts.items()))}", flush=True)
    return result


def main() -> int:
    """The command line: 0 if nothing was lost, doubled or made up."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.crash", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=1_000)
    parser.add_argument("--cuts", type=int, default=500)
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()
    print(f"seed {options.seed}")
    results = [
        campaign("crash-kills", kill_writers, options.kills, options.seed),
        campaign("crash-power-cuts", cut_power, options.cuts, options.seed),
    ]
    return int(any(result.counts[bad] for result in results for bad in BAD))


if __name__ == "__main__":
    sys.exit(main())
