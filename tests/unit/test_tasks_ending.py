"""How tasks end, with their children; code that has changed; limits; and clocks."""

import asyncio
import contextlib
from typing import Any

import pytest

from agent_party import Agent, Task, TaskCancelledError, TaskFailedError
from agent_party.actors import supervisor
from agent_party.actors.cell import TaskCell
from agent_party.actors.delegation import child_id
from agent_party.actors.errors import ReplayError
from agent_party.eventstore.errors import IdReusedError
from tests.unit.handlers_kit import does, failure, no_pauses, result, run, world
from tests.unit.world import Clock, World, until

__all__ = ["no_pauses", "world"]


# Children


async def test_children(world: World) -> None:
    async def double(task: Task, n: int) -> int:
        return 2 * n

    async def fails(task: Task) -> None:
        raise ValueError("no")

    async def parent(task: Task) -> Any:
        doubled = await asyncio.gather(*(task.ask("double", n=n) for n in range(5)))
        try:
            await task.ask(fails)
        except TaskFailedError as error:
            return [*doubled, str(error)]

    process, state = await run(world, parent, double, fails)
    assert result(state) == [0, 2, 4, 6, 8, "no"]
    rows = await process.registry.tasks()
    assert sorted(row.parent for row in rows) == ["", "t", "t", "t", "t", "t", "t"]
    child = next(row.id for row in rows if row.capability == "fails")
    (requested, *_) = await process.commits(f"task/{child}")
    assert requested.cause is not None
    (opener,) = [c for c in await process.commits("task/t") if c.hash == requested.cause.commit]
    assert opener.revision == requested.cause.revision
    assert "fails" in [opened.name for opened in opener.events[requested.cause.event].opened]


async def test_a_child_that_is_cancelled(world: World) -> None:
    async def child(task: Task) -> None:
        await task.approval("never")

    async def parent(task: Task) -> str:
        try:
            await task.ask("child")
        except TaskCancelledError as error:
            return str(error)
        return ""

    process = await world.process(does(parent, child))
    await process.ask("t", "parent")
    await process.opened("t", "child")
    name = child_id("t", 0)
    await process.opened(name, "never")
    await process.host.cancel_here(name, "ada", "enough")
    assert "was cancelled by ada" in result(await process.finished("t"))


async def test_cancel_reaches_the_children_and_theirs(world: World) -> None:
    async def leaf(task: Task) -> None:
        await task.approval("never")

    async def middle(task: Task) -> None:
        await task.ask("leaf")

    async def top(task: Task) -> None:
        await asyncio.gather(task.ask("middle"), task.ask("middle"))

    process = await world.process(does(top, middle, leaf))
    await process.ask("t", "top")

    async def all_open() -> bool:
        rows = await process.registry.tasks()
        return sum("approval" in " ".join(row.open) for row in rows) == 2

    await until(all_open)
    await process.host.cancel_here("t", "ada", "enough")

    async def all_cancelled() -> bool:
        return [row.status for row in await process.registry.tasks()] == ["cancelled"] * 5

    await until(all_cancelled)
    await until(lambda: not process.host.cells)


@pytest.mark.parametrize("how", ["returns", "raises"])
async def test_children_do_not_outlive_their_parent(world: World, how: str) -> None:
    async def child(task: Task) -> None:
        await task.approval("never")

    async def parent(task: Task) -> None:
        background = asyncio.ensure_future(task.ask("child"))
        await task.approval("end")
        background.cancel()
        if how == "raises":
            raise ValueError

    process = await world.process(does(parent, child))
    await process.ask("t", "parent")
    await process.opened("t", "child")
    await process.decide("t", "end")
    assert (await process.finished("t")).status == ("completed" if how == "returns" else "failed")

    async def gone() -> bool:
        return {row.status for row in await process.registry.tasks() if row.parent} == {"cancelled"}

    await until(gone)


# Ending


async def test_cancelling_stops_the_handler(world: World) -> None:
    ended = []

    async def handler(task: Task) -> None:
        try:
            await task.approval("never")
        finally:
            try:
                await task.step(len, "x")
            except BaseException as error:
                ended.append(type(error).__name__)

    process = await world.process(does(handler))
    await process.ask("t", "handler")
    await process.opened("t", "never")
    await process.host.cancel_here("t", "ada", "enough")
    state = await process.finished("t")
    assert state.cancelled is not None
    assert (state.status, state.cancelled.by, state.cancelled.reason) == ("cancelled", "ada", "enough")
    await until(lambda: ended)
    assert ended == ["SettledError"]
    await process.host.cancel_here("t", "ada", "again")
    assert not process.host.cells


async def test_a_handler_that_does_not_let_itself_be_cancelled(world: World) -> None:
    release = asyncio.Event()

    async def handler(task: Task) -> None:
        for _ in range(3):
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    process = await world.process(does(handler))
    await process.ask("t", "handler")
    await until(lambda: process.host.cells["t"]._run is not None)
    await process.host.cancel_here("t", "ada", "")
    assert (await process.finished("t")).status == "cancelled"
    commits = len(await process.commits("task/t"))
    release.set()
    await asyncio.sleep(0.01)
    assert len(await process.commits("task/t")) == commits


async def test_the_end_is_the_end_whoever_is_first(world: World) -> None:
    async def handler(task: Task) -> str:
        return "done"

    process = await world.process(does(handler))
    for n in range(30):
        await process.ask(f"t{n}", "handler")
        await asyncio.gather(*(process.host.cancel_here(f"t{n}", "ada", "") for _ in range(2)))
        await process.finished(f"t{n}")
        kinds = [type(event).__name__ for c in await process.commits(f"task/t{n}") for event in c.events]
        assert len([kind for kind in kinds if kind in ("Completed", "Cancelled", "Failed")]) == 1, kinds
        assert kinds[-1] in ("Completed", "Cancelled")


async def test_the_same_task_is_asked_for_once(world: World) -> None:
    calls = []

    async def handler(task: Task, n: int) -> int:
        calls.append(n)
        return n

    process = await world.process(does(handler))
    await asyncio.gather(*(process.ask("t", "handler", n=1) for _ in range(5)))
    await process.finished("t")
    await process.ask("t", "handler", n=1)
    with pytest.raises(IdReusedError):
        await process.ask("t", "handler", n=2)
    assert calls == [1]


# Code that has changed


async def test_a_handler_that_has_changed_stops_and_says_both(world: World) -> None:
    async def old(task: Task) -> None:
        await task.step(len, "one")
        await task.approval("go on")

    async def new(task: Task) -> str:
        with contextlib.suppress(ReplayError):  # who swallows it gets no further
            await task.step(str.upper, "one")
        await task.approval("go on")
        return "new"

    agent = Agent("worker")
    agent.on("work")(old)
    process = await world.process(agent)
    await process.ask("t", "work")
    await process.opened("t", "go on")
    await world.kill(process)

    agent = Agent("worker", version="2")
    agent.on("work")(new)
    process = await world.process(agent)
    cell = await process.host.activate("t")  # it only waits: nobody would have it run now
    assert cell is not None
    await process.host.go(cell)

    async def stopped() -> bool:
        return (await process.state("t")).status == "stopped"

    await until(stopped)
    state = await process.state("t")
    assert state.failure is not None
    assert "recorded as step 'len'" in state.failure.message
    assert "now asks for step 'str.upper'" in state.failure.message
    before = len(process.world.tape.records)
    for _ in range(5):
        await process.host.reconcile()
    assert len(process.world.tape.records) == before, "what cannot go on leaves no trace"
    await world.kill(process)

    agent = Agent("worker", version="3")
    agent.on("work")(old)
    process = await world.process(agent)
    await process.decide("t", "go on")
    assert result(await process.finished("t")) is None


# Limits


async def test_a_task_in_a_durable_wait_holds_no_slot(world: World) -> None:
    async def waits(task: Task) -> None:
        await asyncio.gather(task.approval("one"), task.approval("two"))

    running, most = [0], [0]

    async def works(task: Task) -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        await task.step(len, "x")
        running[0] -= 1

    process = await world.process(does(waits, works, concurrency=2))
    for n in range(3):
        await process.ask(f"w{n}", "waits")
        await process.opened(f"w{n}", "two")
    for n in range(10):
        await process.ask(f"t{n}", "works")
    for n in range(10):
        await process.finished(f"t{n}")
    assert most[0] <= 2
    for n in range(3):
        await process.decide(f"w{n}", "one")
        await process.decide(f"w{n}", "two")
        await process.finished(f"w{n}")
    await until(lambda: process.host._limits["worker"].free == 2)


async def test_cancelling_does_not_wait_for_a_slot(world: World) -> None:
    async def waits(task: Task) -> None:
        await task.approval("one")

    async def works(task: Task) -> None:
        await asyncio.Event().wait()

    process = await world.process(does(waits, works, concurrency=1))
    await process.ask("a", "waits")
    await process.opened("a", "one")
    await process.ask("b", "works")
    async with asyncio.timeout(30):
        await process.host.cancel_here("a", "ada", "")
    await process.host.cancel_here("b", "ada", "")
    await until(lambda: process.host._limits["worker"].free == 1)


# Sleeping, and clocks


async def test_a_sleep_counts_on_while_nothing_runs(world: World) -> None:
    async def handler(task: Task) -> None:
        await task.sleep(3600)

    process = await world.process(does(handler))
    await process.ask("t", "handler")
    await process.opened("t", "sleep")
    assert (await process.state("t")).status == "waiting"
    await world.kill(process)
    process = await world.process(does(handler), ambient=Clock(3601))
    assert (await process.finished("t")).status == "completed"


@pytest.mark.parametrize("rests", [False, True])
async def test_a_clock_that_jumps_back_makes_nothing_longer(
    world: World, monkeypatch: pytest.MonkeyPatch, rests: bool
) -> None:
    """Nor does it make a task rest again and again that is due already."""

    async def handler(task: Task) -> None:
        await task.sleep(0.05)
        await task.approval("never")

    async def sleeps() -> bool:
        return bool((await process.state("t")).waits)

    with monkeypatch.context() as first:
        first.setattr(TaskCell, "_left", lambda self: None)  # its deadline is the next process's affair
        process = await world.process(does(handler))
        await process.ask("t", "handler", within=0.3)
        await until(sleeps)
        await world.kill(process)
    if rests:
        monkeypatch.setattr(supervisor, "ROUND", 0.01)
    process = await world.process(ambient=Clock(-10_000))
    process.host.passivation.idle = 0.02 if rests else process.host.passivation.idle
    await process.host.join([does(handler)])
    assert failure(await process.finished("t"))[0] == "TimeoutError"


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
async def test_no_such_sleep(world: World, seconds: float) -> None:
    async def handler(task: Task) -> None:
        await task.sleep(seconds)

    assert failure((await run(world, handler))[1])[0] == "ValueError"
