"""Who runs what: several processes, code that is not here, tasks that cannot be read, and things that must not grow."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from agent_party import Agent, Task, event
from agent_party.actors import calls, passivation, supervisor
from agent_party.actors.cell import TaskCell
from agent_party.actors.errors import DeadlineError, MailboxFullError
from agent_party.actors.events import CORE, Progressed, Requested
from agent_party.actors.packing import pack
from agent_party.eventstore.errors import IdReusedError, LogRolledBack, UnknownEventError
from tests.unit.world import DEADLINE, Process, World, a_world, until


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world() as world:
        yield world


def worker(name: str = "worker", log: list[str] | None = None) -> Agent:
    agent = Agent(name)

    @agent.on("work")
    async def work(task: Task, what: str = "") -> str:
        if what == "wait":
            await task.approval("go on")
        if log is not None:
            log.append(name)
        return f"{name} did {await task.step(str.upper, what)}"

    return agent


async def result(process: Process, task: str) -> Any:
    state = await process.finished(task)
    assert state.status == "completed", state.failure
    return msgspec.msgpack.decode(state.result or b"")


# Two processes


async def test_a_task_is_not_taken_from_a_process_that_lives(world: World) -> None:
    one, two = await world.process(worker()), await world.process(worker())
    await one.ask("t", "work", what="wait")
    await two.opened("t", "go on")
    before = len(world.tape.records)
    for _ in range(3):
        await two.host.reconcile()
    assert len(world.tape.records) == before
    assert not two.host.cells
    await two.ask("t", "work", what="wait")
    with pytest.raises(IdReusedError):
        await two.ask("t", "work", what="else")
    await two.decide("t", "go on")
    assert await result(two, "t") == "worker did WAIT"
    assert (await two.state("t")).runs == 1


async def test_a_task_whose_process_dies_is_finished_by_the_next(world: World) -> None:
    one, two = await world.process(worker()), await world.process(worker())
    await one.ask("t", "work", what="wait")
    await two.opened("t", "go on")
    await world.kill(one)
    await two.host.reconcile()
    assert not two.host.cells, "it waits: there is nothing to run"
    await two.decide("t", "go on")
    assert await result(two, "t") == "worker did WAIT"


async def test_a_process_that_lost_a_task_leaves_it_alone(world: World) -> None:
    """A zombie: taken for dead, its task taken over, and then it wakes."""
    one, two = await world.process(worker()), await world.process(worker())
    await one.ask("t", "work", what="wait")
    await two.opened("t", "go on")
    two.host.lives = lambda holder: False  # type: ignore[method-assign]
    await two.host.reconcile()
    await two.decide("t", "go on")
    assert await result(two, "t") == "worker did WAIT"
    await until(lambda: not one.host.cells)
    kinds = [type(event).__name__ for c in await two.commits("task/t") for event in c.events]
    assert kinds.count("Completed") == 1


async def test_the_same_request_from_two_processes_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "PATIENCE", 60.0)  # however long the first takes to record it
    log: list[str] = []
    one, two = await world.process(worker(log=log)), await world.process(worker(log=log))
    for n in range(10):
        await asyncio.gather(*(process.ask(f"t{n}", "work", what="x") for process in (one, two, one)))
        assert await result(one, f"t{n}") == "worker did X"
    assert len(log) == 10, "whoever comes second does not take it from the first"
    for n in range(10):
        kinds = [type(event).__name__ for c in await two.commits(f"task/t{n}") for event in c.events]
        assert (kinds.count("Requested"), kinds.count("Completed")) == (1, 1)


async def test_who_has_not_read_far_enough_takes_nothing_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between looking who has a task and taking it, another process may take it and begin."""
    one, two = await world.process(worker()), await world.process(worker())
    start = TaskCell.start

    async def slow(self: TaskCell, grants: Any, kept: Any = None) -> None:
        if self.host is two.host:
            await one.ask("t", "work", what="wait")
            await one.opened("t", "go on")
        await start(self, grants, kept)

    monkeypatch.setattr(TaskCell, "start", slow)
    await two.ask("t", "work", what="wait")
    assert "t" in one.host.cells
    assert "t" not in two.host.cells
    await two.decide("t", "go on")
    assert await result(two, "t") == "worker did WAIT"
    assert (await two.state("t")).runs == 1


async def test_a_task_that_another_process_only_began_is_taken_over(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "PATIENCE", 0.05)
    one, two = await world.process(worker()), await world.process(worker())
    await one.doorman.writer("task/t")
    await two.ask("t", "work", what="x")
    assert await result(two, "t") == "worker did X"


async def test_a_request_that_gets_nowhere_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "DEADLINE", 0.1)
    monkeypatch.setattr(calls, "PATIENCE", 60.0)
    one, two = await world.process(worker()), await world.process(worker())
    monkeypatch.setattr(two.host.watch, "beyond", lambda *given: asyncio.sleep(0.2))
    await one.doorman.writer("task/t")
    with pytest.raises(DeadlineError, match="same id"):
        await two.ask("t", "work", what="x")


async def test_an_agent_in_two_processes_has_one_memory(world: World) -> None:
    agent = Agent("worker")

    @agent.on("remember")
    async def remember(task: Task, key: str) -> Any:
        seen = await task.memory.get("keys", default=[])
        await task.memory.set("keys", [*seen, key])
        return seen

    one, two = await world.process(agent), await world.process(agent)
    seen = []
    for n, process in enumerate([one, two, one, one, two]):
        await process.ask(f"t{n}", "remember", key=str(n))
        seen.append(await result(process, f"t{n}"))
    assert seen == [[str(k) for k in range(n)] for n in range(5)]
    row = (await one.registry.agents())[0]
    assert (row.phase, row.hosts) == ("running", 2)
    await world.kill(one)
    assert (await two.registry.agents())[0].hosts == 1
    await two.close()
    reader = await world.process()
    assert (await reader.registry.agents())[0].hosts == 0


# Code that is not here


async def test_a_task_waits_for_an_agent_to_join(world: World) -> None:
    process = await world.process()
    await process.ask("t", "work", what="x")
    assert process.host.waiting_for == {"t": "an agent with capability work to join"}
    await process.ask("u", "work", agent="worker", what="x")
    assert process.host.waiting_for["u"] == "agent worker with capability work to join"
    assert not process.host.cells
    assert (await process.state("t")).status == "requested"
    await process.host.join([worker()])
    assert await result(process, "t") == "worker did X"
    assert await result(process, "u") == "worker did X"
    await process.host.reconcile()
    assert process.host.waiting_for == {}


async def test_who_asks_does_not_keep_a_task_that_others_can_do(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "ROUND", 0.2)
    asker = await world.process()
    await asker.ask("t", "work", what="x")
    doer = await world.process(worker())
    assert await result(asker, "t") == "worker did X"
    await asker.ask("u", "work", what="y")
    await doer.host.reconcile()
    assert await result(asker, "u") == "worker did Y"


async def test_a_task_that_waits_for_code_can_be_cancelled(world: World) -> None:
    process = await world.process()
    await process.ask("t", "work", what="x")
    await process.leave("t", await process.statement("t", -1, "cancel"))
    assert (await process.finished("t")).status == "cancelled"


async def test_a_task_stays_with_the_agent_it_was_given_to(world: World) -> None:
    process = await world.process(worker("one"))
    await process.ask("t", "work", agent="two", what="x")
    await process.host.reconcile()
    assert (await process.state("t")).status == "requested"
    await process.host.join([worker("two")])
    assert await result(process, "t") == "two did X"


# What cannot be read


@event("test.unknown")
class Unknown(msgspec.Struct, frozen=True):
    pass


async def unreadable(world: World) -> None:
    """A task with an event that only its writer's program knew."""
    process = await world.process(events=(*CORE, Unknown))
    writer = await process.doorman.writer("task/bad")
    requested = Requested("work", pack({"what": "x"}, "x"))
    await process.log.append(writer, [requested, Unknown()], expected=0)
    await world.kill(process)


async def test_one_task_that_cannot_be_read_does_not_stop_the_others(world: World) -> None:
    await unreadable(world)
    one = await world.process(worker())
    await one.ask("t", "work", what="wait")
    await one.opened("t", "go on")
    await world.kill(one)
    process = await world.process(worker())
    await process.decide("t", "go on")
    assert await result(process, "t") == "worker did WAIT"
    before = len(world.tape.records)
    for _ in range(3):
        await process.host.reconcile()
    assert len(world.tape.records) == before, "what cannot be read is not tried again and again"
    with pytest.raises(UnknownEventError, match=r"test\.unknown"):
        await process.state("bad")


async def test_what_nobody_understands_in_an_inbox_is_passed_over(world: World) -> None:
    process = await world.process(worker())
    await process.ask("t", "work", what="wait")
    await process.opened("t", "go on")
    other = await world.process(events=(*CORE, Unknown))
    await other.leave("t", Unknown())
    await process.decide("t", "go on")
    assert await result(process, "t") == "worker did WAIT"


# Parents


async def test_children_left_behind_by_a_crash_are_cancelled(world: World) -> None:
    """The parent's end is on the log, and its process died before it could tell the child."""
    agent = worker()

    @agent.on("parent")
    async def parent(task: Task) -> None:
        await task.ask("work", what="wait")

    one = await world.process(agent)
    await one.ask("t", "parent")

    async def child() -> str:
        rows = [row for row in await one.registry.tasks() if row.parent == "t" and row.open]
        return rows[0].id if rows else ""

    name: str = await until(child)
    one.host.cancel = lambda *args: asyncio.Event().wait()  # type: ignore[method-assign, assignment]
    cancelling = asyncio.ensure_future(one.host.cancel_here("t", "ada", ""))
    await one.finished("t")
    await world.kill(one)
    cancelling.cancel()
    two = await world.process(agent)
    assert (await two.finished(name)).status == "cancelled"


# Limits


async def test_a_host_that_is_full_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passivation, "LIVE", 3)
    agent, go_on = worker(), asyncio.Event()

    @agent.on("busy")
    async def busy(task: Task) -> None:
        await task.step(go_on.wait)

    process = await world.process(agent)
    for n in range(3):
        await process.ask(f"t{n}", "busy")
    with pytest.raises(MailboxFullError, match="3 tasks"):
        await process.ask("t3", "work", what="x")
    await process.host.reconcile()
    go_on.set()
    await process.finished("t0")
    await until(lambda: len(process.host.cells) < 3)
    await process.ask("t3", "work", what="x")
    assert await result(process, "t3") == "worker did X"


async def test_nothing_grows_with_the_number_of_tasks(world: World) -> None:
    process = await world.process(worker())
    for n in range(60):
        await process.ask(f"t{n}", "work", what="x")
        await process.host.outcome(f"t{n}", 0)
    host = process.host
    left = host.cells, host.watch._waiting, host._locks, host._supervisor._background, host.waiting_for
    await until(lambda: not any(left))
    assert not host._entities._waiting
    assert len(host._limits) == 1


async def test_waiting_hears_that_the_log_cannot_be_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from agent_party.actors import watch

    monkeypatch.setattr(watch, "_LOOK", 0.01)
    process = await world.process(worker())
    await process.ask("t", "work", what="wait")
    await process.opened("t", "go on")

    async def gone(*args: Any) -> Any:
        raise LogRolledBack("gone")

    monkeypatch.setattr(process.tape, "read", gone)
    with pytest.raises(LogRolledBack):
        await process.host.watch.beyond("task/t", 10_000, DEADLINE)


async def test_progress_is_no_reason_to_wake_a_finished_task(world: World) -> None:
    process = await world.process(worker())
    await process.ask("t", "work", what="x")
    await process.finished("t")
    before = len(world.tape.records)
    await process.leave("t", Progressed(1))
    await until(lambda: not process.host._supervisor._background)
    assert len(world.tape.records) == before + 3, "the grant, the message and the fence of the inbox"
