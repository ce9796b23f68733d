"""A large file goes into the blobs and out again: how long it takes, and how much memory the process needs for it.

    python -m tests.campaigns.large_artifact [--mib 1024] [--blobs s3://… | file:///…] [--seed 1]

The file is random, by its seed. Memory is the process's own peak (VmHWM), less what it had before; what comes out is
compared by its hash. The upload is broken off half-way once and begun again, and what was there already is counted.
"""

import argparse
import asyncio
import contextlib
import hashlib
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

from agent_party.cluster.settings import load
from agent_party.cluster.stores import open_blobs
from agent_party.eventstore.artifacts import fetch_pieces, keep_pieces
from agent_party.eventstore.blobs import Blobs
from agent_party.eventstore.log import Log
from agent_party.eventstore.parts import file_pieces
from tests.campaigns import Result
from tests.eventstore_kit import Site

MIB = 1 << 20


def peak() -> int:
    """The most memory that this process has had so far, in MiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) // 1024


def written(path: Path, mib: int, seed: int) -> str:
    """Fill a file; the SHA-256 of what is in it."""
    rng, digest = random.Random(seed), hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(mib):
            piece = rng.randbytes(MIB)
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


async def half(path: Path, mib: int) -> AsyncIterator[bytes]:
    """The file, until the connection breaks."""
    read = 0
    async for piece in file_pieces(path):
        if read >= mib * MIB // 2:
            raise ConnectionError("broken off")
        read += len(piece)
        yield piece


async def through(log: Log, path: Path, mib: int) -> tuple[Counter[str], str]:
    """In, broken off and begun again, and out: figures, and the hash of what came out."""
    with contextlib.suppress(ConnectionError):
        await keep_pieces(log, "task/large", "weights", half(path, mib))
    there = sum([1 async for _ in log.blobs.names()])
    before, started = peak(), time.monotonic()
    artifact = await keep_pieces(log, "task/large", "weights", file_pieces(path))
    put = time.monotonic() - started
    digest, started = hashlib.sha256(), time.monotonic()
    async for piece in fetch_pieces(log, artifact):
        digest.update(piece)
    got = time.monotonic() - started
    figures = {"mib": mib, "parts": artifact.parts, "parts there from the upload that broke off": there}
    figures |= {"put, MiB/s": round(mib / put), "get, MiB/s": round(mib / got), "peak before, MiB": before}
    return Counter({**figures, "peak after, MiB": peak()}), digest.hexdigest()


async def run(blobs: Blobs, path: Path, mib: int, folder: Path) -> tuple[Counter[str], str]:
    """The same over blobs of one's own."""
    site = Site(folder, "memory")
    site.blobs = blobs
    try:
        return await through(await site.open(), path, mib)
    finally:
        await site.close()


def main(arguments: list[str]) -> int:
    """0 if what came out is what went in."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--blobs", default="")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    print(f"seed {given.seed}")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        expected = written(home / "weights", given.mib, given.seed)
        blobs = open_blobs(load({"blobs": given.blobs or f"file:///{home}/blobs"}, folder=home))
        figures, got = asyncio.run(run(blobs, home / "weights", given.mib, home / "site"))
    print(dict(figures))
    if got != expected:
        print("what came out is not what went in")
        return 1
    kind = "s3" if given.blobs.startswith("s3:") else "folder"
    result = Result(f"large_artifact_{kind}", given.seed)
    result.counts.clear()
    result.add(1, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
