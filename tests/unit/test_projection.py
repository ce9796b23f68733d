"""The projection of agents and tasks, and the worker that carries commits into it."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import msgspec
import pytest

from agent_party import Agent, Task
from agent_party.eventstore.errors import BlobError, StoreBusyError
from agent_party.eventstore.reading import Commit
from agent_party.projections import worker as workers
from agent_party.projections.agents_and_tasks import AgentsAndTasks
from agent_party.projections.backends.views_memory import MemoryViews
from agent_party.projections.projection import Add, Projection, Put, Read, Sizes, Write
from agent_party.projections.worker import DEAD_LETTERS, Worker
from tests.unit.world import Process, World, a_world, until


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world() as world:
        yield world


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "BATCH", 7)


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


async def test_the_registry_shows_what_happened(world: World) -> None:
    process = await lived(world)
    rows = {row.id: row for row in await process.registry.tasks()}
    child = next(row for row in rows.values() if row.parent == "parent")
    assert {name: row.status for name, row in rows.items() if name != child.id} == {
        "done": "completed",
        "fail": "failed",
        "wait": "waiting",
        "parent": "completed",
        "nobody": "requested",
        "gone": "cancelled",
    }
    assert (rows["wait"].open, rows["wait"].agent, rows["wait"].capability) == (("approval 1",), "worker", "work") or (
        rows["wait"].open == ("approval 2",)
    )
    assert (rows["done"].steps, rows["done"].done, rows["done"].total) == (1, 1, 2)
    assert child.status == "completed"
    assert {row.id for row in await process.registry.tasks(unfinished=True)} == {"wait", "nobody"}
    (agent,) = await process.registry.agents()
    assert (agent.name, agent.phase, agent.hosts) == ("worker", "running", 1)
    assert agent.capabilities == ("declared.only", "work")
    assert [row.name for row in await process.registry.agents_with("work")] == ["worker"]
    assert await process.registry.agents_with("wor") == []
    assert [row.id for row in await process.registry.tasks(limit=2)] == ["gone", "nobody"]


async def test_no_payload_is_in_it(world: World) -> None:
    process = await lived(world)
    await process.worker.catch_up()
    views = process.worker.views
    assert isinstance(views, MemoryViews)
    assert "DONE" not in repr(views._documents)
    assert "poisoned" not in repr(views._documents)


async def test_deleted_and_rebuilt_it_is_equal_by_hash(world: World) -> None:
    process = await lived(world)
    await process.worker.catch_up()
    live = await process.worker.views.digest(process.worker.projection)
    assert await process.worker.rebuild() == live
    await process.host.leave()
    await process.log.refresh()
    other = await world.process()
    assert await other.worker.rebuild() == await process.worker.rebuild()
    assert len({live, hashlib.sha256().hexdigest()}) == 2


async def test_a_batch_size_changes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    process = await lived(world)
    await process.host.leave()
    hashes = set()
    for size in (1, 3, 1_000):
        monkeypatch.setattr(workers, "BATCH", size)
        hashes.add(await process.worker.rebuild())
    assert len(hashes) == 1


class Slow(MemoryViews):
    """Lets others go first."""

    async def apply(self, projection: Projection, before: Sizes, after: Sizes, writes: Iterable[Write]) -> bool:
        await asyncio.sleep(0)
        return await super().apply(projection, before, after, writes)


async def test_each_commit_counts_once_however_many_workers_race(world: World) -> None:
    process, views = await lived(world), Slow()
    await process.host.leave()
    one, two = (Worker(process.log, Counting(), views) for _ in range(2))
    await asyncio.gather(*(worker.catch_up() for worker in (one, two, one, two)))
    assert await counted(views) == await streams(process)


class Crashing(MemoryViews):
    """Fails before or after it has applied, as a process does that dies there."""

    def __init__(self, crashes: Sequence[str]) -> None:
        super().__init__()
        self.crashes = list(crashes)

    async def apply(self, projection: Projection, before: Sizes, after: Sizes, writes: Iterable[Write]) -> bool:
        when = self.crashes.pop(0) if self.crashes else ""
        if when == "before":
            raise StoreBusyError("crash")
        done = await super().apply(projection, before, after, writes)
        if when == "after":
            raise StoreBusyError("crash")
        return done


async def test_each_commit_counts_once_whenever_a_worker_crashes(world: World) -> None:
    process = await lived(world)
    await process.host.leave()
    for crashes in (["before", "after"] * 4, ["", "after", "", "before"], ["after"] * 6):
        views = Crashing(crashes)
        while True:
            try:
                await Worker(process.log, Counting(), views).catch_up()
                break
            except StoreBusyError:
                continue
        assert await counted(views) == await streams(process)


async def test_a_checkpoint_that_is_not_kept_with_its_writes_is_caught(world: World) -> None:
    """The planted bug: a store that applies whatever the checkpoint is."""

    class Careless(MemoryViews):
        async def apply(self, projection: Projection, before: Sizes, after: Sizes, writes: Iterable[Write]) -> bool:
            await asyncio.sleep(0)
            return await super().apply(projection, await self.checkpoint(projection), after, writes)

    process = await lived(world)
    await process.host.leave()
    views = Careless()
    await asyncio.gather(*(Worker(process.log, Counting(), views).catch_up() for _ in range(2)))
    assert await counted(views) != await streams(process)


@pytest.mark.parametrize("kind", [Counting, Poisoning])
async def test_a_poisoned_commit_is_a_dead_letter_and_the_rest_goes_on(world: World, kind: type[Counting]) -> None:
    process, views = await lived(world), MemoryViews()
    await process.host.leave()
    worker = Worker(process.log, kind("task/fail"), views)
    await worker.catch_up()
    expected = await streams(process)
    poisoned = expected.pop("task/fail")
    assert set(await counted(views)) == set(expected)
    letters = await views.scan(DEAD_LETTERS)
    assert len(letters) == poisoned
    reason = {"projection": "counting", "stream": "task/fail", "reason": letters[0][1]["reason"]}
    assert all({**fields, **reason} == fields for _, fields in letters)
    before = await views.digest(worker.projection)
    assert await worker.rebuild() == before


async def test_a_blob_that_is_missing_stops_only_its_commit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Agent("worker")

    @agent.on("work")
    async def work(task: Task, what: str) -> str:
        return what * 100_000

    process = await world.process(agent)
    await process.ask("big", "work", what="x")
    await process.finished("big")
    await process.ask("small", "work", what="")
    await process.finished("small")

    async def missing(name: bytes) -> bytes:
        raise BlobError("gone")

    monkeypatch.setattr(world.blobs, "get", missing)
    views = MemoryViews()
    await Worker(process.log, AgentsAndTasks(), views).catch_up()
    small = await views.get("task", "small")
    assert small is not None
    assert small["status"] == "completed"
    assert [fields["stream"] for _, fields in await views.scan(DEAD_LETTERS)] == ["task/big"]


async def test_an_unknown_event_stops_nothing(world: World) -> None:
    process = await lived(world)
    await process.host.leave()
    from agent_party.actors.agent_events import Registered
    from agent_party.actors.events import CORE

    other = await world.process(events=[cls for cls in CORE if cls is not Registered])
    rows = await other.registry.tasks()
    assert {row.status for row in rows if row.id == "done"} == {"completed"}
    assert not await other.worker.views.scan(DEAD_LETTERS)


async def test_a_newer_version_projects_everything_anew(world: World) -> None:
    process, views = await lived(world), MemoryViews()
    await process.host.leave()
    await Worker(process.log, Counting(), views).catch_up()
    await Worker(process.log, Counting(version=2), views).catch_up()
    assert await counted(views) == {name: 2 * n for name, n in (await streams(process)).items()}


async def test_a_log_that_is_shorter_than_the_checkpoint_is_projected_anew(world: World) -> None:
    process, views = await lived(world), MemoryViews()
    await process.host.leave()
    projection = Counting()
    assert await views.apply(projection, {}, {0: 100_000, 1: 5}, [Add("commits", "task/phantom", "n", 1)])
    await Worker(process.log, projection, views).catch_up()
    assert await counted(views) == await streams(process)


async def test_the_worker_keeps_up_by_itself(world: World) -> None:
    process = await world.process()
    running = asyncio.ensure_future(process.worker.run())
    await process.ask("t", "work", x=1)

    async def seen() -> Any:
        return await process.worker.views.get("task", "t")

    assert (await until(seen))["status"] == "requested"
    running.cancel()
    await asyncio.wait([running])


async def test_the_load_of_agents_decides_who_is_asked(world: World) -> None:
    from agent_party.actors.dj import DJ

    agents = []
    for name in ("a", "b"):
        agent = Agent(name)

        @agent.on("work")
        async def work(task: Task) -> None:
            await task.approval("go on")

        agents.append(agent)
    process = await world.process(*agents)
    dj = DJ(process.registry)
    assert await dj.resolve("work") == "a"
    await process.ask("t", "work", agent="a")
    assert await dj.resolve("work") == "b"
    assert await dj.resolve("unknown") == ""
    await process.host.leave()
    assert await dj.resolve("work") == ""
    assert msgspec.msgpack.decode((await process.state("t")).input) == {}


async def test_rows_say_paused_held_and_when_time_moves_them_on(world: World) -> None:
    agent = Agent("worker")

    @agent.on("sleeps")
    async def sleeps(task: Task) -> None:
        await task.sleep(3_600)

    @agent.on("asks")
    async def asks(task: Task) -> None:
        await task.approval("go on")

    process = await world.process(agent)
    await process.ask("sleeps", "sleeps")
    await process.ask("asks", "asks", within=60)
    await process.opened("sleeps", "sleep")
    await process.opened("asks", "go on")
    await process.host.cells["asks"].pause("ada")
    rows = {row.id: row for row in await process.registry.tasks()}
    sleeps_state, asks_state = await process.state("sleeps"), await process.state("asks")
    assert (rows["sleeps"].status, rows["sleeps"].due) == ("waiting", sleeps_state.due)
    assert (rows["asks"].status, rows["asks"].due) == ("paused", asks_state.requested_at + 60_000_000)
    late, following = await process.registry.due(["sleeps", "asks"], asks_state.requested_at + 60_000_000)
    assert ([one.task for one in late], following) == (["asks"], sleeps_state.due)
    assert await process.registry.runnable(["sleeps", "asks"]) == []


def test_the_projection_agrees_with_the_fold_about_what_may_take_days() -> None:
    from agent_party.actors.events import DURABLE
    from agent_party.actors.task_state import TERMINAL
    from agent_party.projections import task_rows

    assert task_rows.DURABLE == DURABLE
    assert task_rows.ENDED == TERMINAL


async def test_an_orphan_is_known_whoever_ends_first(world: World) -> None:
    """The end of a parent and the beginning of its child lie in two streams: either may be projected first."""
    agent = Agent("worker")

    @agent.on("parent")
    async def parent(task: Task, detached: bool) -> None:
        await task.using(detached=detached).ask("child")

    @agent.on("child")
    async def child(task: Task) -> None:
        await task.signal("never")

    process = await world.process(agent)
    process.host.cancel = lambda *args: asyncio.sleep(0)  # type: ignore[method-assign]
    process.host.reconcile = lambda: asyncio.sleep(0)  # type: ignore[method-assign]
    for task, detached in (("stays", True), ("ends", False)):
        await process.ask(task, "parent", detached=detached)

        async def began(task: str = task) -> bool:
            return any(row.parent == task and row.open for row in await process.registry.tasks())

        await until(began)
        await process.host.cells[task].cancel("ada")
    orphans = await process.registry.orphans()
    assert [parent for _, parent in orphans] == ["ends"]
    await process.host.cancel_here(orphans[0][0], "ends", "")
    assert await process.registry.orphans() == []
