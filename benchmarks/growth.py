"""What a step costs late in a long task, in bytes and in time, beside what it costs early in one.

Old tasks are grown first. Then each old one and a new one take turns, twenty steps at a time, the old one around step
10,000 and the new one around step 100, so that drift falls on both alike. Beside them, the same by a design that
writes its whole state with each step: a stand-in, and LangGraph's checkpointer where it is installed.

Bytes are those that were handed to the stores: the task's records on the tape (header, signature, body), and its
sealed snapshots. A snapshot is no step's own: its bytes and its time are spread evenly over the steps since the one
before it, which is why a task runs on until a snapshot covers the steps that were measured of it.
"""

import asyncio
import contextlib
import importlib.util
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple
from unittest import mock

from agent_party import Agent, Party, Task
from agent_party.actors.activation import Activation
from agent_party.actors.events import Advanced
from agent_party.eventstore.snapshots import NOWHERE, Place, Snapshots
from agent_party.eventstore.verify import DATA

from .measure import Clock, Figure, Report, ratios
from .site import PAYLOAD, judged, raws
from .world import PathOfWorlds, Worlds, sqlite_worlds

SLICE = 20
_FOREVER = 2**62
agent = Agent("bench", version="1", concurrency=64)


class Sizes(NamedTuple):
    """``early`` and ``late``: the steps in the middle of a window of ``window`` steps; ``pairs``: how many tasks."""

    early: int
    late: int
    window: int
    pairs: int
    world: int


FULL = Sizes(100, 10_000, 200, 3, 2)
QUICK = Sizes(20, 100, 40, 1, 1)


class Pace:
    """Lets a task run up to a step, and says how long it took."""

    def __init__(self) -> None:
        self.over, self._stop = False, 0
        self._there, self._go = asyncio.Event(), asyncio.Event()

    async def keep(self, number: int) -> None:
        """Wait here until this step may go on."""
        while number >= self._stop:
            self._there.set()
            await self._go.wait()

    async def to(self, number: int) -> float:
        """Let the task run until it stands before a step, everything before it recorded. Seconds that it took."""
        self._there.clear()
        go, self._go, self._stop = self._go, asyncio.Event(), number
        with Clock() as clock:
            go.set()
            await self._there.wait()
        return clock.wall

    def finish(self) -> None:
        """Let the task end."""
        self.over, self._stop = True, _FOREVER
        self._go.set()


_paces: dict[str, Pace] = {}


async def paced(name: str, number: int, given: str) -> str:
    """The step: some bytes in, as many out; nothing when it is over."""
    pace = _paces[name]
    await pace.keep(number)
    return "" if pace.over else f"{name}:{number}:".ljust(PAYLOAD, "x") if given else ""


@agent.on("bench.pace")
async def steps(task: Task, name: str) -> int:
    """Step after step until it is over; how many they were."""
    number, given = 0, "-" * PAYLOAD
    while given := await task.step(paced, name, number, given):
        number += 1
    return number


class Lump(NamedTuple):
    """A snapshot at a revision: bytes and seconds."""

    revision: int
    bytes: float
    seconds: float


@contextlib.contextmanager
def watching() -> Iterator[dict[str, list[Lump]]]:
    """Every snapshot that is kept while the block runs, by stream."""
    found: dict[str, list[Lump]] = {}
    save, snapshot = Snapshots.save, Activation.snapshot

    def saved(store: Snapshots, stream: str, place: Place, program: str, state: bytes, after: Place = NOWHERE) -> bool:
        found.setdefault(stream, []).append(Lump(place.revision, len(state), 0))
        return save(store, stream, place, program, state, after)

    def taken(activation: "Activation[Any]", worth: int = 1) -> None:
        before = len(found.get(activation.stream, ()))
        with Clock() as clock:
            snapshot(activation, worth)
        if len(lumps := found.get(activation.stream, [])) > before:
            lumps[-1] = lumps[-1]._replace(seconds=clock.wall)

    with mock.patch.object(Snapshots, "save", saved), mock.patch.object(Activation, "snapshot", taken):
        yield found


def owed(lumps: Sequence[Lump], revision: int) -> Lump:
    """A step's share of the snapshot that covers it, as large as every other's since the snapshot before."""
    before = 0
    for lump in sorted(lumps):
        if lump.revision >= revision:
            steps = lump.revision - before
            return Lump(revision, lump.bytes / steps, lump.seconds / steps)
        before = lump.revision
    return Lump(revision, 0, 0)


def _seconds(lumps: dict[str, list[Lump]]) -> float:
    return sum(lump.seconds for found in lumps.values() for lump in found)


class Old:
    """A running task with its pace."""

    def __init__(self, handle: Any, name: str, pace: Pace) -> None:
        self.handle, self.name, self.pace = handle, name, pace
        self.stream = f"task/{handle.id}"

    async def end(self) -> int:
        """Finish it; how many steps it had."""
        self.pace.finish()
        return int(await self.handle.result())


async def _begun(party: Party, name: str) -> Old:
    pace = _paces[name] = Pace()
    task = Old(await party.ask(steps, name=name), name, pace)
    await pace.to(0)
    return task


async def growth(quick: bool) -> Report:
    """Bytes and time of a step, late and early in a task."""
    sizes = QUICK if quick else FULL
    figures, verified = await _ours(sizes)
    makers: dict[str, Callable[[Path], contextlib.AbstractContextManager[Worlds]]] = {"whole state": sqlite_worlds}
    if importlib.util.find_spec("langgraph"):
        makers["LangGraph"] = importlib.import_module("benchmarks.peers.growing").langgraph_worlds
    for name, maker in makers.items():
        figures += _theirs(name, maker, sizes)
    return Report(figures, verified)


async def _ours(sizes: Sizes) -> tuple[list[Figure], str]:
    early, late, first = list[float](), list[float](), sizes.late - sizes.window // 2
    async with _party() as (folder, party):
        with watching() as lumps:
            old = [await _begun(party, f"old{number}") for number in range(sizes.pairs)]
            await asyncio.gather(*(task.pace.to(first) for task in old))
            young = []
            for number, task in enumerate(old):
                young.append(await _begun(party, f"new{number}"))
                for turn in range(sizes.window // SLICE):
                    done = (turn + 1) * SLICE
                    both = [(late, task, first + done), (early, young[-1], done)]
                    for values, runner, stop in both if turn % 2 else reversed(both):
                        before = _seconds(lumps)
                        took = await runner.pace.to(stop) - (_seconds(lumps) - before)
                        values.append(took / SLICE * 1e6)
            await _covered(old[0], lumps, sizes)
            await _covered(young[0], lumps, sizes)
            counts = {task: await task.end() for task in (*old, *young)}
        written, verified = await _written(party, counts, sizes)
        early_owed, late_owed = (
            owed(lumps.get(young[0].stream, []), sizes.early),
            owed(lumps.get(old[0].stream, []), sizes.late),
        )
        files = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        assert not [path for path in (folder / "blobs").rglob("*") if path.is_file()], (
            "blobs were written, and not counted"
        )
    return _figures(sizes, (early, late), written, (early_owed, late_owed), files / sum(counts.values())), verified


def _figures(
    sizes: Sizes,
    times: tuple[list[float], list[float]],
    logged: tuple[float, float],
    shares: tuple[Lump, Lump],
    files: float,
) -> list[Figure]:
    part, (early, late), (low, high) = "growth", times, shares
    name, of = f"step {sizes.late:,} / step {sizes.early:,}", (sizes.early, sizes.late)
    whole = [[one + share.seconds * 1e6 for one in values] for values, share in zip(times, shares, strict=True)]
    kept = [Figure(part, f"step {n:,}, its share of snapshots", "bytes", [share.bytes])
            for n, share in zip(of, shares, strict=True) if share.bytes]  # fmt: skip
    return [
        Figure(part, f"{name}, log", "x bytes", [logged[1] / logged[0]], most=1.1),
        Figure(part, f"{name}, log and snapshots", "x bytes",
               [(logged[1] + high.bytes) / (logged[0] + low.bytes)], most=1.1),
        Figure(part, f"{name}, time without snapshots", "x", ratios(late, early), most=1.1),
        Figure(part, f"{name}, time", "x", ratios(whole[1], whole[0]), most=1.1),
        *(Figure(part, f"step {n:,}, log", "bytes", [size]) for n, size in zip(of, logged, strict=True)),
        *kept,
        *(Figure(part, f"step {n:,}, time", "us", values) for n, values in zip(of, whole, strict=True)),
        Figure(part, "all files, a step", "bytes", [files]),
    ]  # fmt: skip


async def _covered(task: Old, lumps: dict[str, list[Lump]], sizes: Sizes) -> None:
    """Let a task run on until a snapshot covers what was measured of it, but no further than it may have to."""
    measured, last = (sizes.late if task.name.startswith("old") else sizes.early) + sizes.window, 2 * sizes.late
    at = measured
    while at < last and not any(lump.revision >= measured for lump in lumps.get(task.stream, [])):
        at += 10 * SLICE
        await task.pace.to(at)


async def _written(party: Party, counts: dict[Old, int], sizes: Sizes) -> tuple[tuple[float, float], str]:
    """Bytes on the tape of an early and of a late step; every record judged, and every outcome there once."""
    log, by_stream = party.stack.log, dict[str, dict[int, int]]()
    accepted = judged(log.identity, [stored.raw for stored in await raws(log)])
    for record in accepted:
        if record.header.kind == DATA:
            stream = record.header.stream.decode()
            by_stream.setdefault(stream, {})[record.header.revision] = len(record.raw)
    for task, count in counts.items():
        settled = [one.wait async for commit in log.read(task.stream) for event in commit.events
                   for one in (event.settled if isinstance(event, Advanced) else ())]  # fmt: skip
        assert settled[:count] == list(range(count)), f"{task.name}: outcomes are missing, or there are more"
    windows = list[float]()
    for middle in (sizes.early, sizes.late):
        revisions = range(max(3, middle - sizes.window // 2), middle + sizes.window // 2)
        windows.append(mean(mean(by_stream[task.stream][revision] for revision in revisions)
                            for task, count in counts.items() if count >= middle + sizes.window // 2))  # fmt: skip
    return (
        windows[0],
        windows[1],
    ), f"{len(accepted):,} records accepted by the rule, {sum(counts.values()):,} outcomes once"


def _theirs(name: str, maker: PathOfWorlds, sizes: Sizes) -> list[Figure]:
    part, times, size = "growth", dict[int, list[float]](), dict[int, list[float]]()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, maker(Path(folder)) as worlds:
        for _ in range(sizes.world):
            for middle in (sizes.early, sizes.late):
                worlds.grow(middle - SLICE // 2)
                with Clock() as clock:
                    written = worlds.run(SLICE)
                worlds.verify(middle + SLICE // 2)
                times.setdefault(middle, []).append(clock.wall / SLICE * 1e6)
                size.setdefault(middle, []).append(written / SLICE)
    early, late = sizes.early, sizes.late
    both = f"{name}: step {late:,} / step {early:,}"
    return [
        Figure(part, f"{both}, log", "x bytes", ratios(size[late], size[early])),
        Figure(part, f"{both}, time", "x", ratios(times[late], times[early])),
        *(Figure(part, f"{name}: step {n:,}", "bytes", size[n]) for n in (early, late)),
        *(Figure(part, f"{name}: step {n:,}, time", "us", times[n]) for n in (early, late)),
    ]


@contextlib.asynccontextmanager
async def _party() -> AsyncIterator[tuple[Path, Party]]:
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        with mock.patch.dict("os.environ", {"PARTY_STATE_DIR": str(folder / "state")}):
            journal = f"sqlite:///{folder}/party/log.db"
            async with Party.open(agents=[agent], journal=journal, runtime="local") as party:
                yield folder / "party", party
