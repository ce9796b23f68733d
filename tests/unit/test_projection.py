"""The projection of agents and tasks."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from agent_party import Agent, Task
from agent_party.projections import worker as workers
from agent_party.projections.worker import DEAD_LETTERS
from tests.unit.projections_kit import lived
from tests.unit.world import World, a_world, until


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world() as world:
        yield world


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "BATCH", 7)


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
    held = repr(await process.views.items(process.worker.projection, limit=100_000))
    assert "DONE" not in held
    assert "poisoned" not in held
    assert "completed" in held


async def test_deleted_and_rebuilt_it_is_equal_by_hash(world: World) -> None:
    process = await lived(world)
    await process.worker.catch_up()
    live = await process.views.digest(process.worker.projection)
    assert await process.worker.rebuild() == live
    await process.host.leave()
    await process.log.refresh()
    other = await world.process()
    assert await other.worker.rebuild() == await process.worker.rebuild()
    assert len({live, hashlib.sha256().hexdigest()}) == 2


async def test_what_is_about_to_be_written_is_seen_by_what_follows() -> None:
    from agent_party.projections.agents_and_tasks import AgentsAndTasks
    from agent_party.projections.ahead import DocumentsAhead
    from agent_party.projections.projection import Add, Delete, Put

    ahead = DocumentsAhead(AgentsAndTasks(), None)
    for n in range(2):  # first it is not known yet, then it is
        ahead.add([Add("v", "k", "count", 1), Put("v", "k", {"name": "x"})])
        assert await ahead.read("v", "k") == {"count": n + 1, "name": "x"}
    ahead.add([Delete("v", "k")])
    assert await ahead.read("v", "k") == {}


async def test_under_a_steady_load_there_is_an_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    process = await lived(world)
    project, asked = process.worker._project, list[str]()

    async def beside_others(*given: Any) -> Any:
        asked.append(await process.ask(f"more{len(asked)}", "work"))
        return await project(*given)

    monkeypatch.setattr(process.worker, "_project", beside_others)
    read = dict(process.log.index.sizes())
    async with asyncio.timeout(60):
        come = await process.worker.catch_up()
    assert asked
    assert all(come[part] >= size for part, size in read.items())
    assert come != process.log.index.sizes()


async def test_an_unknown_event_stops_nothing(world: World) -> None:
    process = await lived(world)
    await process.host.leave()
    from agent_party.actors.agent_events import Registered
    from agent_party.actors.events import CORE

    other = await world.process(events=[cls for cls in CORE if cls is not Registered])
    rows = await other.registry.tasks()
    assert {row.status for row in rows if row.id == "done"} == {"completed"}
    assert not await other.views.scan(DEAD_LETTERS)


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
    await process.ask("asks", "asks", within=600)
    await process.opened("sleeps", "sleep")
    await process.opened("asks", "go on")
    await process.host.cells["asks"].pause("ada")
    rows = {row.id: row for row in await process.registry.tasks()}
    sleeps_state, asks_state = await process.state("sleeps"), await process.state("asks")
    assert (rows["sleeps"].status, rows["sleeps"].due) == ("waiting", sleeps_state.due)
    assert (rows["asks"].status, rows["asks"].due) == ("paused", asks_state.requested_at + 600_000_000)
    late, following = await process.registry.due(["sleeps", "asks"], asks_state.requested_at + 600_000_000)
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
