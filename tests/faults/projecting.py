"""Workers that crash at every boundary of a sink, and what must stand afterwards: a sum, which counts twice or not at
all where a merge would hide it.

A `Subject` is a sink by name: how it is opened again and again on the same store, a projection that sums, and how the
sums are read. A new sink adds its subject to `SUBJECTS`, and every test and the campaign take it.
"""

import asyncio
import contextlib
import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from agent_party.eventstore.errors import StoreError
from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.log import Log, Writer
from agent_party.projections.sink import Checkpoint, Projection, Sink
from agent_party.projections.worker import Limits, Worker
from tests.eventstore_kit import Site, notes

STREAMS = [f"note/s{n}" for n in range(6)]
AnySink = Sink[Any, Any]


class Died(StoreError):
    """The process died here."""


class Subject(Protocol):
    """A sink under test. Everything it keeps lies in the folder, or under a name that the folder gives."""

    name: str

    def open(self, folder: Path) -> AnySink:
        """The sink, as a new process finds it."""
        ...

    def projection(self) -> Projection[Any, Any]:
        """One that adds one for each commit of a stream, and says what is amiss with what it reads."""
        ...

    async def sums(self, sink: AnySink) -> dict[str, int]:
        """What was added, by stream; under the empty name, in all."""
        ...

    def dying_inside(self, sink: AnySink) -> "contextlib.AbstractContextManager[None]":
        """While it lasts, the sink dies within `apply`: after its writes, before they are committed."""
        ...

    def dying_inside_swap(self, sink: AnySink) -> "contextlib.AbstractContextManager[None]":
        """The same within `swap`."""
        ...

    async def edit(self, sink: AnySink) -> None:
        """Change a sum by hand, past the sink's contract."""
        ...

    async def forget(self, folder: Path) -> None:
        """Delete what lies outside the folder."""
        ...


@contextlib.contextmanager
def dying_at(owner: Any, name: str, *, after: bool = False) -> Iterator[None]:
    """While it lasts, a method dies before it is done, or after."""
    real = getattr(owner, name)

    async def asynchronous(*args: Any, **options: Any) -> Any:
        if after:
            await real(*args, **options)
        raise Died(name)

    def at_once(*args: Any, **options: Any) -> Any:
        if after:
            real(*args, **options)
        raise Died(name)

    setattr(owner, name, asynchronous if asyncio.iscoroutinefunction(real) else at_once)
    try:
        yield
    finally:
        setattr(owner, name, real)


# A log to project


async def write(log: Log, writers: dict[str, Writer], count: int, order: random.Random) -> None:
    """Append commits to streams in a random order."""
    for _ in range(count):
        stream = order.choice(STREAMS)
        if stream not in writers:
            writers[stream] = await Issuer(log).writer(stream)
        revision = (await log.state(stream)).revision
        await log.append(writers[stream], notes(f"{revision}"), expected=revision)


@contextlib.asynccontextmanager
async def a_log(folder: Path, commits: int, seed: int, kind: str = "memory") -> AsyncIterator[Log]:
    """A log of so many commits."""
    site = Site(folder, kind)
    log = await site.open()
    await write(log, {}, commits, random.Random(seed))
    try:
        yield log
    finally:
        await site.close()


def truth(log: Log) -> dict[str, int]:
    """What the sums must be, counted in the log's index."""
    counts = {name: len(log.index.all_rows(name.encode())) for name in log.streams()}
    return {"": sum(log.index.sizes().values()), **counts}


# Crashes at a chosen boundary

BOUNDARIES = ("", "before", "inside", "after")


class Frail:
    """A sink whose next changes die where the plan says. Everything else is the sink's own."""

    def __init__(self, subject: Subject, sink: AnySink, plan: Callable[[], str]) -> None:
        self._subject, self._sink, self._plan = subject, sink, plan

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sink, name)

    def beside(self) -> "Frail":
        return Frail(self._subject, self._sink.beside(), self._plan)

    async def apply(self, *args: Any) -> Checkpoint | None:
        done: Checkpoint | None = await self._die(self._sink.apply, self._subject.dying_inside, *args)
        return done

    async def swap(self, *args: Any) -> bool:
        return bool(await self._die(self._sink.swap, self._subject.dying_inside_swap, *args))

    async def _die(self, change: Any, inside: Any, *args: Any) -> Any:
        where = self._plan()
        if where == "before":
            raise Died(where)
        if where == "inside":
            with inside(self._sink):
                await change(*args)
            raise AssertionError("it did not die")
        done = await change(*args)
        if where == "after":
            raise Died(where)
        return done


async def survive(subject: Subject, log: Log, folder: Path, order: random.Random) -> Counter[str]:
    """Crash a worker at random boundaries until it has caught up, then a rebuild until it is done; check everything."""
    found: Counter[str] = Counter()
    left = order.randrange(1, 12)

    def plan() -> str:
        nonlocal left
        where = order.choice(BOUNDARIES) if left else ""
        left -= bool(where)
        found[where or "whole"] += 1
        return where

    limits = Limits(rows=order.randrange(1, 9))
    live = ""
    for work in ("catch up", "rebuild"):
        left = max(left, order.randrange(1, 4))
        while True:
            sink = subject.open(folder)
            try:
                worker = Worker(log, subject.projection(), Frail(subject, sink, plan), limits)
                if work == "rebuild":
                    assert await worker.rebuild() == live, "rebuilt is not what was live"
                else:
                    await worker.catch_up()
                break
            except Died:
                found["crashes"] += 1
                if work == "rebuild":
                    assert await sink.digest(subject.projection()) == live, "a rebuild that crashed changed it"
            finally:
                await sink.close()
        sink = subject.open(folder)
        live = live or await sink.digest(subject.projection())
        assert await sink.digest(subject.projection()) == live
        assert await subject.sums(sink) == truth(log), "a commit counted twice, or not at all"
        await sink.close()
    return found


# Kills


WORKS = ("caught up", "rebuilt")


def carry(subject: Subject, folder: Path, work: str, pipe: Connection) -> None:
    """What a process does until it is killed: it catches up from nothing, or it rebuilds; again and again."""

    async def again(log: Log, sink: AnySink) -> None:
        worker = Worker(log, subject.projection(), sink, Limits(rows=4))
        if work == "rebuilt":
            await Worker(log, subject.projection(), sink).catch_up()
        pipe.send("it begins")
        while True:
            await (worker.rebuild() if work == "rebuilt" else worker.catch_up())
            assert await subject.sums(sink) == truth(log), "a commit counted twice, or not at all"
            if work == "caught up":
                await sink.drop(subject.projection())

    async def begin() -> None:
        log = await Site(folder, "sqlite").open(f"index-{os.getpid()}.db")
        await log.refresh()
        await again(log, subject.open(folder))

    asyncio.run(begin())


def kill_workers(subject: Subject, folder: Path, kills: int, order: random.Random) -> Counter[str]:
    """Start a worker, kill it at a random moment of its work; again and again on the same sink, by turns of each work.

    What it was at is known because it does nothing else once it has begun.
    """
    context, found = multiprocessing.get_context("forkserver"), Counter[str]()
    context.set_forkserver_preload([__name__])
    while found["kills"] < kills:
        work = WORKS[found["kills"] % len(WORKS)]
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=carry, args=(subject, folder, work, there))
        process.start()
        there.close()
        assert here.poll(600), "the worker does not begin"
        assert here.recv() == "it begins"
        time.sleep(order.random() * order.choice([0.02, 0.2, 1.0]))
        assert process.pid
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL, "the worker ended by itself: see what it printed"
        found["kills"] += 1
        found[f"while it {work}"] += 1
        here.close()
    return found


async def reckon(subject: Subject, log: Log, folder: Path) -> None:
    """After the kills: catch up, and everything counts once; rebuilt it is the same."""
    sink = subject.open(folder)
    worker = Worker(log, subject.projection(), sink)
    await worker.catch_up()
    assert await subject.sums(sink) == truth(log), "a commit counted twice, or not at all"
    live = await sink.digest(subject.projection())
    assert await worker.rebuild() == live
    assert await subject.sums(sink) == truth(log)
    await sink.close()


# A rebuild under load


WRITTEN = 60
"""How many commits are written during a rebuild, at the most."""


async def rebuild_under_load(
    subject: Subject, log: Log, folder: Path, order: random.Random, rebuilds: int
) -> Counter[str]:
    """Write, project and rebuild at once, while a reader looks: what it sees is of one moment, and never goes back.

    Who looks needs a moment in which nothing is projected: writing waits for it each time, and so does each rebuild.
    """
    found, writers, done, looked = Counter[str](), dict[str, Writer](), asyncio.Event(), asyncio.Event()
    sinks = [subject.open(folder) for _ in range(3)]
    live, rebuilding = (Worker(log, subject.projection(), sink, Limits(rows=3)) for sink in sinks[:2])
    await live.catch_up()

    async def a_look() -> None:
        if not done.is_set():
            looked.clear()
            await looked.wait()

    async def keep_writing() -> None:
        while not done.is_set():
            if found["written"] < WRITTEN * (found["rebuilt"] + 1):  # else rebuilding might never catch up
                await write(log, writers, 5, order)
                found["written"] += 5
            await live.catch_up()
            await a_look()

    async def keep_reading() -> None:
        last = 0
        while not done.is_set():
            seen = await subject.sums(sinks[2])
            total = seen.pop("", 0)
            assert sum(seen.values()) == total, "a reader saw a mix"
            assert total >= last, "a reader was taken back"
            last = total
            found["read"] += 1
            looked.set()
            await asyncio.sleep(0.001)
        looked.set()

    async def keep_rebuilding() -> None:
        try:
            for _ in range(rebuilds):
                await rebuilding.rebuild()
                found["rebuilt"] += 1
                await a_look()
        finally:
            done.set()

    async with asyncio.TaskGroup() as group:
        for work in (keep_writing(), keep_reading(), keep_rebuilding()):
            group.create_task(work)
    await live.catch_up()
    assert await subject.sums(sinks[2]) == truth(log)
    for sink in sinks:
        await sink.close()
    return found
