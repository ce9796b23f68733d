"""The race: every contestant in a process of its own takes its turns, round after round, forth and back.

A round opens each contestant anew on an empty folder, warms it up, times one task alone and then thirty at once, has it
verify what it recorded, and closes it, so that no other's server or compaction runs while one is timed.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from .field import OURS, Entry, versions
from .servers import QUIET, MissingError

ALONE, AT_ONCE = "alone", "30 at once"
PARTS = {ALONE: 1, AT_ONCE: 30}
TRACED = ("fsync", "fdatasync", "sync_file_range", "msync")
_LIMIT = 600.0
SETTLING = 1.0
"""Seconds without a call, after which a contestant is taken to be done with a turn."""
_LINE = 1024 * 1024


class Length(NamedTuple):
    """How long it all is. ``steps``: of a task, by part. ``seconds``: a turn begins no further task after these."""

    rounds: int
    steps: dict[str, int]
    seconds: float
    counting: bool
    within: float = float("inf")


LONG = Length(7, {ALONE: 100, AT_ONCE: 20}, 1.5, counting=True)
QUICK = Length(1, {ALONE: 20, AT_ONCE: 3}, 0.1, counting=False, within=35.0)
COUNTED = ({ALONE: 40, AT_ONCE: 4}, {ALONE: 140, AT_ONCE: 34})
"""Steps of the short tasks and of the long ones that calls are counted over."""


class Syncs(msgspec.Struct):
    """Calls a step: what waits for the disk, and what does not have to."""

    durable: float
    other: float


class Line(msgspec.Struct):
    """What one contestant did: steps a second of each round, calls a step, steps verified."""

    versions: dict[str, str]
    rates: dict[str, list[float]] = msgspec.field(default_factory=lambda: {part: [] for part in PARTS})
    syncs: dict[str, Syncs] = {}
    verified: int = 0
    tasks: int = 0


class Race(msgspec.Struct):
    """The outcome. ``missing``: who did not take part, and why."""

    lines: dict[str, Line]
    missing: dict[str, str]


class Session:
    """A contestant that is open."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def answer(self) -> dict[str, Any]:
        """The next line from it."""
        assert self._process.stdout
        async with asyncio.timeout(_LIMIT):
            line = await self._process.stdout.readline()
        if not line:
            raise MissingError("it ended")
        found: dict[str, Any] = json.loads(line)
        return found

    async def ask(self, **order: Any) -> dict[str, Any]:
        """Have it do something."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        return await self.answer()

    async def run(self, part: str, steps: int, seconds: float = 0) -> float:
        """A turn; steps a second."""
        did = await self.ask(do="run", tasks=PARTS[part], steps=steps, seconds=seconds)
        return float(did["steps"] / did["seconds"])


@contextlib.asynccontextmanager
async def session(entry: Entry, before: Sequence[str] = ()) -> AsyncIterator[Session]:
    """Open a contestant on an empty folder. `MissingError` says what became of one that failed."""
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        (folder := Path(name) / "data").mkdir()
        told = Path(name) / "told"
        with told.open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                *before, sys.executable, "-m", "benchmarks.peers.child", entry.name, str(folder),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=out, limit=_LINE,
                start_new_session=True, env={**os.environ, **QUIET},
            )  # fmt: skip
        opened = Session(process)
        try:
            await opened.answer()
            yield opened
            await _closed(process)
        except (MissingError, TimeoutError, BrokenPipeError, ConnectionResetError) as error:
            last = told.read_text(errors="replace").strip().splitlines()[-1:] or ["no word"]
            raise MissingError(f"{type(error).__name__} {error}: {last[0][:300].replace(name, 'FOLDER')}") from error
        finally:
            with contextlib.suppress(ProcessLookupError):  # its server too, if it could not end it itself
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def _closed(process: asyncio.subprocess.Process) -> None:
    assert process.stdin
    process.stdin.close()
    async with asyncio.timeout(60):
        await process.wait()


async def race(entries: Sequence[Entry], length: Length) -> Race:
    """All rounds. Who is not here, or fails, is left out from then on, with the reason."""
    found, began = Race({}, {}), time.monotonic()
    for entry in entries:
        try:
            found.lines[entry.name] = Line(versions(entry))
        except MissingError as error:
            found.missing[entry.name] = str(error)
    for number in range(length.rounds):
        running = [entry for entry in entries if entry.name in found.lines]
        for entry in running if number % 2 == 0 else reversed(running):
            if time.monotonic() - began > length.within:
                _drop(found, entry, "there was no time left for it")
                continue
            print(f"round {number + 1} of {length.rounds}: {entry.title} ...", file=sys.stderr, flush=True)
            try:
                await _round(entry, found.lines[entry.name], length)
            except MissingError as error:
                _drop(found, entry, f"it failed: {error}")
    if length.counting and shutil.which("strace"):
        for entry in [entry for entry in entries if entry.name in found.lines]:
            print(f"counting fsyncs: {entry.title} ...", file=sys.stderr, flush=True)
            try:
                found.lines[entry.name].syncs = await counted(entry)
            except MissingError as error:
                print(f"they cannot be counted: {error}", file=sys.stderr)
    return found


def _drop(found: Race, entry: Entry, why: str) -> None:
    if entry.name == OURS:
        raise RuntimeError(f"Agent Party itself: {why}")
    print(f"{entry.title} is left out: {why}", file=sys.stderr)
    found.missing[entry.name] = why
    del found.lines[entry.name]


async def _round(entry: Entry, line: Line, length: Length) -> None:
    async with session(entry) as opened:
        for part in PARTS:
            await opened.run(part, max(2, length.steps[part] // 5))
        rates = {part: await opened.run(part, length.steps[part], length.seconds) for part in PARTS}
        verified = await opened.ask(do="verify")
    for part, rate in rates.items():
        line.rates[part].append(rate)
    line.verified += verified["verified"]
    line.tasks += verified["tasks"]


async def counted(entry: Entry) -> dict[str, Syncs]:
    """Calls a step in each part: of long tasks less short ones, so that beginnings and ends do not count."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        report = Path(folder) / "calls"
        before = ["strace", "-f", "--seccomp-bpf", "-qq", "-e", f"trace={','.join(TRACED)}", "-o", str(report)]
        async with session(entry, before) as opened:
            found = {}
            for part, at_once in PARTS.items():
                await opened.run(part, 2)
                few, many = [await _calls(opened, report, part, steps[part]) for steps in COUNTED]
                steps = at_once * (COUNTED[1][part] - COUNTED[0][part])
                found[part] = Syncs(*(round((b - a) / steps, 3) for a, b in zip(few, many, strict=True)))
            await opened.ask(do="verify")
    return found


async def _calls(opened: Session, report: Path, part: str, steps: int) -> tuple[int, int]:
    before = await _settled(report)
    await opened.run(part, steps)
    after = await _settled(report)
    return after[0] - before[0], after[1] - before[1]


async def _settled(report: Path) -> tuple[int, int]:
    """The calls, once no more of them come."""
    async with asyncio.timeout(_LIMIT):
        found = await asyncio.to_thread(tally, report)
        while True:
            await asyncio.sleep(SETTLING)
            before, found = found, await asyncio.to_thread(tally, report)
            if found == before:
                return found


def tally(report: Path) -> tuple[int, int]:
    """Calls in strace's report: fsync and fdatasync; the others."""
    lines = report.read_text().splitlines()
    durable = sum(" fsync(" in line or " fdatasync(" in line for line in lines)
    return durable, sum("sync(" in line or "sync_file_range(" in line for line in lines) - durable
