"""``python -m agent_party.cluster.services.lock``: pin the jars anew, after a version in `artifacts` was changed.

Maven is trusted once, here, for what it brings; from then on it is held to it.
"""

import sys
import tempfile
from pathlib import Path

from .artifacts import KAFKA, NEO4J, Jars, copy_jars, hashes
from .cache import Say


def pin(program: Jars, say: Say) -> int:
    """Write the SHA-256 of each of a program's jars; how many there are."""
    with tempfile.TemporaryDirectory(prefix="party-jars-") as scratch:
        copy_jars(program, Path(scratch), say)
        found = hashes(Path(scratch))
    program.pins.write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(found.items())))
    return len(found)


def main() -> int:
    """Pin all of them."""
    for program in (KAFKA, NEO4J):
        print(f"{program.pins}: {pin(program, lambda line: print(line, file=sys.stderr))} jars")
    return 0


if __name__ == "__main__":
    sys.exit(main())
