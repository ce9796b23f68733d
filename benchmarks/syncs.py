"""Counting fsyncs, where `strace` can be run: so that "the same durability" is seen and not only said."""

import asyncio
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .measure import Figure

_COUNTS = (100, 300)


def counted(part: str) -> list[Figure]:
    """fsyncs a commit, ours and raw; nothing where they cannot be counted."""
    if not shutil.which("strace"):
        return []
    found = []
    for what, name in (("ours", "append, fsyncs"), ("raw", "raw one-row commit, fsyncs")):
        few, many = (_traced(what, count) for count in _COUNTS)
        if few is not None and many is not None:
            found.append(Figure(part, name, "a commit", [(many - few) / (_COUNTS[1] - _COUNTS[0])]))
    return found


def _traced(what: str, count: int) -> int | None:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        report = Path(folder) / "syncs"
        command = ["strace", "-f", "-e", "trace=fsync,fdatasync", "-o", str(report)]
        done = subprocess.run(
            [*command, sys.executable, "-m", "benchmarks.syncs", what, str(count)], capture_output=True, check=False
        )
        if done.returncode or not report.exists():
            return None
        return sum("sync(" in line for line in report.read_text().splitlines())


async def _ours(commits: int) -> None:
    from .site import site, written

    async with site(1) as place:
        await place.append(0, commits, [written()])


def _raw(commits: int) -> None:
    from .appending import Raw

    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        raw = Raw(Path(folder))
        raw.commit([bytes(850)] * commits, 1)
        raw.verify()


if __name__ == "__main__":
    if sys.argv[1] == "ours":
        asyncio.run(_ours(int(sys.argv[2])))
    else:
        _raw(int(sys.argv[2]))
