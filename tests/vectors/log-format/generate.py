"""Writes the vectors of this folder: run from the repository's root, it makes the same bytes every time.

    python tests/vectors/log-format/generate.py [FOLDER]

good/NAME.party with NAME.json: ``root`` (the key to verify with) and ``log`` (the log id), hex.
bad/NAME.party with NAME.json: ``root``, ``finding`` (the name of what is wrong) and ``at`` (where).
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from tests.logs.bad import bad_logs  # noqa: E402
from tests.logs.good import good_logs  # noqa: E402


def files() -> Iterator[tuple[str, bytes]]:
    """Path below the folder and content of every vector."""
    for name, making in good_logs():
        yield f"good/{name}.party", making.export()
        yield f"good/{name}.json", _json({"root": making.root.public.hex(), "log": making.log.log_id.hex()})
    for bad in bad_logs():
        yield f"bad/{bad.name}.party", bad.data
        yield f"bad/{bad.name}.json", _json({"root": bad.root.hex(), "finding": bad.finding, "at": bad.at()})


def _json(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"


def main(folder: Path) -> None:
    """Write all vectors; those of an earlier version that are no more are removed."""
    made = dict(files())
    for old in [*folder.glob("good/*"), *folder.glob("bad/*")]:
        if str(old.relative_to(folder)) not in made:
            old.unlink()
    for name, content in made.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    total = sum(len(content) for content in made.values())
    print(f"{len(made) // 2} vectors, {total:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
