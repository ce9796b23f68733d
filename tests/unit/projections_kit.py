"""What tests of projections share: a life that was lived, and projections that count it."""

import asyncio
from collections.abc import Iterable, Sequence

from agent_party import Agent, Task
from agent_party.eventstore.errors import StoreBusyError
from agent_party.eventstore.reading import Commit
from agent_party.projections.backends.views_memory import MemoryViews
from agent_party.projections.projection import Add, Put, Read, Write
from agent_party.projections.sink import NO_LETTERS, Checkpoint, Letters, Named, Sizes
from tests.unit.world import Process, World


async def lived(world: World) -> Process:
    """A process that has seen tasks of every kind."""
    agent = Agent("worker", capabilities=["declared.only"])

    @agent.on("work")
    async def work(task: Task, what: str) -> str:
        task.progress(1, 2)
        task.now()
        await task.step(str.upper, what)
        if what == "fail":
            raise ValueError
        if what == "wait":
            await task.approval("go on")
        if what == "parent":
            await task.ask("work", what="child")
        return what

    process = await world.process(agent)
    for what in ("done", "fail", "wait", "parent"):
        await process.ask(what, "work", what=what)
        if what != "wait":
            await process.finished(what)
    await process.ask("nobody", "elsewhere", x=1)
    await process.opened("wait", "go on")
    await process.ask("gone", "work", what="wait")
    await process.opened("gone", "go on")
    await process.host.cancel_here("gone", "ada", "")
    return process


class Counting:
    """Counts every commit; poisoned by those of one stream."""

    name = "counting"

    def __init__(self, poison: str = "", version: int = 1) -> None:
        self.poison, self.version = poison, version

    async def writes(self, commit: Commit, read: Read) -> Iterable[Write]:
        if commit.stream == self.poison:
            raise ValueError("poisoned")
        return [Add("commits", commit.stream, "n", self.version)]


class Poisoning(Counting):
    """Poisoned by what it writes, not by raising."""

    async def writes(self, commit: Commit, read: Read) -> Iterable[Write]:
        poison = [Put("commits", commit.stream, {"n": "text"})] if commit.stream == self.poison else []
        return [*poison, Add("commits", commit.stream, "n", 1)]


async def streams(process: Process) -> dict[str, int]:
    """How many commits each stream has, control commits too."""
    counts: dict[str, int] = {}
    await process.log.refresh()
    for name in process.log.streams():
        counts[name] = len(process.log.index.all_rows(name.encode()))
    return counts


async def counted(views: MemoryViews) -> dict[str, int]:
    return {key: fields["n"] for key, fields in await views.scan("commits")}


class Slow(MemoryViews):
    """Lets others go first."""

    async def apply(
        self,
        projection: Named,
        before: Checkpoint,
        after: Sizes,
        writes: Iterable[Write],
        letters: Letters = NO_LETTERS,
    ) -> Checkpoint | None:
        await asyncio.sleep(0)
        return await super().apply(projection, before, after, writes, letters)


class Crashing(MemoryViews):
    """Fails before or after it has applied, as a process does that dies there."""

    def __init__(self, crashes: Sequence[str]) -> None:
        super().__init__()
        self.crashes = list(crashes)

    async def apply(
        self,
        projection: Named,
        before: Checkpoint,
        after: Sizes,
        writes: Iterable[Write],
        letters: Letters = NO_LETTERS,
    ) -> Checkpoint | None:
        when = self.crashes.pop(0) if self.crashes else ""
        if when == "before":
            raise StoreBusyError("crash")
        done = await super().apply(projection, before, after, writes, letters)
        if when == "after":
            raise StoreBusyError("crash")
        return done
