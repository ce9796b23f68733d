"""Signals, updates and queries; doing several things at once; sagas; pauses; beginning anew; patches."""

import asyncio
from typing import Any

import pytest

from agent_party import Agent, Task, step
from agent_party.actors.errors import (
    CompensationError,
    CycleError,
    RefusedError,
    SettledError,
    TaskCancelledError,
)
from agent_party.actors.events import Received
from agent_party.actors.packing import pack_input
from tests.unit.handlers_kit import result, world
from tests.unit.world import Process, World, until

__all__ = ["world"]


def message(kind: Any, name: str, number: int = 0, /, **given: Any) -> Received:
    value = given if kind == "update" else given.get("value")
    return Received(kind, name, pack_input(value, "it"), bytes([number]) * 16, "ada")


async def crashed(world: World, process: Process, agent: Agent) -> Process:
    """Another process, after the first one was killed."""
    await world.kill(process)
    return await world.process(agent)


async def test_signals_are_given_in_order_those_before_they_are_asked_for_too(world: World) -> None:
    agent = Agent("a")

    @agent.on("hear")
    async def hear(task: Task) -> list[Any]:
        await task.sleep(0)
        return [await task.signal("word") for _ in range(3)]

    process = await world.process(agent)
    await process.ask("t", "hear")
    for number, word in enumerate(["one", "two"]):
        await process.host.deliver("t", message("signal", "word", number, value=word))
    await process.host.deliver("t", message("signal", "word", 1, value="two"))
    process = await crashed(world, process, agent)
    await process.host.deliver("t", message("signal", "word", 1, value="two"))
    third = message("signal", "word", 2, value="three")
    await asyncio.gather(process.host.deliver("t", third), process.host.deliver("t", third))
    state = await process.finished("t")
    assert (result(state), state.mail) == (["one", "two", "three"], {})
    with pytest.raises(SettledError, match="has finished"):
        await process.host.deliver("t", message("signal", "word", 3))


async def test_a_signal_for_a_task_that_lives_elsewhere_goes_by_its_inbox(world: World) -> None:
    agent = Agent("a")

    @agent.on("hear")
    async def hear(task: Task) -> Any:
        return await task.signal("word")

    process, other = await world.process(agent), await world.process()
    await process.ask("t", "hear")
    await other.log.refresh()
    await other.host.deliver("t", message("signal", "word", 1, value="far"))
    assert result(await process.finished("t")) == "far"


def counting() -> Agent:
    agent = Agent("a")

    @agent.on("count")
    async def count(task: Task, most: int) -> int:
        total = 0

        def check(by: int) -> None:
            if by < 0:
                raise ValueError("not backwards")

        async def add(by: int) -> int:
            nonlocal total
            total += by
            await task.sleep(0)
            return total

        task.on_update("add", add, validate=check)
        task.on_query("total", lambda: total)
        while total < most:
            await task.signal("look")
        return total

    return agent


async def test_updates_are_validated_done_once_and_answered_again_after_a_crash(world: World) -> None:
    agent = counting()
    process = await world.process(agent)
    await process.ask("t", "count", most=9)
    answered = await process.host.deliver("t", message("update", "add", 1, by=4))
    assert answered is not None
    assert answered.value == b"\x04"
    before = len(await process.commits("task/t"))
    with pytest.raises(RefusedError, match="not backwards"):
        await process.host.deliver("t", message("update", "add", 2, by=-1))
    with pytest.raises(RefusedError, match="takes no update 'sub'; it takes add"):
        await process.host.deliver("t", message("update", "sub", 3))
    assert len(await process.commits("task/t")) == before
    process = await crashed(world, process, agent)
    again = await process.host.deliver("t", message("update", "add", 1, by=4))
    assert again == answered
    assert await process.host.query("t", "total", b"\x80") == b"\x04"
    await process.host.deliver("t", message("update", "add", 4, by=5))
    await process.host.deliver("t", message("signal", "look", 5))
    assert result(await process.finished("t")) == 9


async def test_an_update_from_another_process_is_answered_on_the_log(world: World) -> None:
    process, other = await world.process(counting()), await world.process()
    await process.ask("t", "count", most=9)
    await other.log.refresh()
    answered = await other.host.deliver("t", message("update", "add", 1, by=4))
    refused = await other.host.deliver("t", message("update", "add", 2, by=-4))
    assert answered is not None
    assert answered.value == b"\x04"
    assert refused is not None
    assert refused.failure is not None
    assert "not backwards" in refused.failure.message


async def test_the_first_of_several_wins_also_on_replay_and_the_others_are_abandoned(world: World) -> None:
    agent, calls = Agent("a"), []

    @step()
    async def slow() -> str:
        calls.append("slow")
        await asyncio.Event().wait()
        return "slow"

    @step()
    async def fast() -> str:
        calls.append("fast")
        return "fast"

    @agent.on("race")
    async def race(task: Task) -> list[Any]:
        winner = await task.first(task.step(slow), task.step(fast))
        with pytest.raises(TimeoutError):
            await task.within(0.01, task.signal("never"))
        return [*winner, await task.signal("word")]

    process = await world.process(agent)
    await process.ask("t", "race")
    await process.opened("t", "word")
    process = await crashed(world, process, agent)
    await process.host.deliver("t", message("signal", "word", 1, value="end"))
    state = await process.finished("t")
    assert result(state) == [1, "fast", "end"]
    assert sorted(calls) == ["fast", "slow"]
    kinds = {wait.name: wait.settled.failure.kind for wait in state.waits if wait.settled and wait.settled.failure}
    assert set(kinds.values()) == {"Abandoned"}
    assert len(kinds) == 2


def sagas(done: list[str], fail: bool = True) -> Agent:
    agent = Agent("a")

    def cancel_room(name: str) -> None:
        done.append(f"-{name}")

    @step(undo=cancel_room)
    def room(name: str) -> None:
        done.append(name)

    @step()
    def pay() -> None:
        if fail:
            raise ValueError("no money")

    @agent.on("travel")
    async def travel(task: Task) -> str:
        async with task.saga() as saga:
            await saga.step(room, "oslo")
            await saga.step(room, "rome")
            await task.signal("go")
            await task.step(pay)
        return "gone"

    return agent


async def test_a_saga_takes_back_in_reverse_order_what_it_did(world: World) -> None:
    done: list[str] = []
    process = await world.process(sagas(done))
    await process.ask("t", "travel")
    await process.host.deliver("t", message("signal", "go", 1))
    state = await process.finished("t")
    assert state.status == "failed"
    assert state.failure is not None
    assert "no money" in state.failure.message
    assert done == ["oslo", "rome", "-rome", "-oslo"]


async def test_a_cancelled_saga_is_taken_back_also_over_a_crash(world: World) -> None:
    done: list[str] = []
    agent = sagas(done, fail=False)
    process = await world.process(agent)
    await process.ask("t", "travel")
    await process.opened("t", "go")
    await process.host.cancel("t", "ada", "changed my mind")
    process = await crashed(world, process, agent)
    state = await process.finished("t")
    assert state.status == "cancelled"
    assert done == ["oslo", "rome", "-rome", "-oslo"]
    assert state.cancelled is not None
    assert state.cancelled.by == "ada"


async def test_a_running_step_of_a_cancelled_saga_is_stopped(world: World) -> None:
    agent, seen = Agent("a"), []

    @step()
    async def long() -> None:
        seen.append("began")
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("stopped")

    @agent.on("work")
    async def work(task: Task) -> None:
        async with task.saga() as saga:
            saga.undo(lambda: seen.append("undone"))
            try:
                await task.step(long)
            except TaskCancelledError:
                seen.append("told")
                raise

    process = await world.process(agent)
    await process.ask("t", "work")
    await until(lambda: seen)
    await process.host.cancel("t", "ada", "")
    assert (await process.finished("t")).status == "cancelled"
    assert seen == ["began", "stopped", "told", "undone"]


async def test_what_cannot_be_taken_back_is_said(world: World) -> None:
    agent = Agent("a")

    def stuck() -> None:
        raise OSError("the door is locked")

    @agent.on("work")
    async def work(task: Task) -> None:
        async with task.saga() as saga:
            saga.undo(stuck)
            raise ValueError("first")

    process = await world.process(agent)
    await process.ask("t", "work")
    state = await process.finished("t")
    assert state.failure is not None
    assert state.failure.kind == CompensationError.__name__
    assert "the door is locked" in state.failure.message


async def test_a_paused_task_begins_nothing_until_it_is_resumed(world: World) -> None:
    agent, calls = Agent("a"), []

    @agent.on("work")
    async def work(task: Task) -> None:
        await task.signal("go")
        await task.step(lambda: calls.append("step"))

    process = await world.process(agent)
    await process.ask("t", "work")
    await process.opened("t", "go")
    cell = process.host.cells["t"]
    await cell.pause("ada")
    await process.host.deliver("t", message("signal", "go", 1))
    process = await crashed(world, process, agent)
    await until(lambda: "t" in process.host.cells and not process.host.cells["t"].replaying)
    await cell_idle(process)
    assert calls == []
    assert (await process.state("t")).status == "paused"
    await process.host.cells["t"].resume("ada")
    assert (await process.finished("t")).status == "completed"
    assert calls == ["step"]


async def cell_idle(process: Process) -> None:
    """Let everything that can happen without time passing happen."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_an_endless_task_begins_anew_with_an_empty_record(world: World) -> None:
    agent, keys = Agent("a"), []

    @step()
    def note(n: int) -> None:
        from agent_party import current_step

        keys.append(current_step().idempotency_key)

    @agent.on("tick")
    async def tick(task: Task, n: int) -> int:
        await task.step(note, n)
        if n == 3:
            return n
        return task.continue_as_new(n=n + 1)

    process = await world.process(agent)
    await process.ask("t", "tick", n=0)
    state = await process.finished("t")
    assert result(state) == 3
    assert (state.begun, len(state.waits)) == (3, 1)
    assert len(set(keys)) == 4


async def test_new_code_is_patched_in_for_new_tasks_only(world: World) -> None:
    def version(*, new: bool) -> Agent:
        agent = Agent("a")

        @agent.on("work")
        async def work(task: Task) -> str:
            first = "new" if new and task.patched("cheaper") else "old"
            await task.step(lambda: None)
            await task.signal("go")
            second = "new" if new and task.patched("cheaper") else "old"
            return f"{first} {second}"

        return agent

    process = await world.process(version(new=False))
    await process.ask("t", "work")
    await process.opened("t", "go")
    await world.kill(process)
    process = await world.process(version(new=True))
    await process.host.deliver("t", message("signal", "go", 1))
    assert result(await process.finished("t")) == "old old"
    await process.ask("u", "work")
    await process.host.deliver("u", message("signal", "go", 1))
    assert result(await process.finished("u")) == "new new"


async def test_a_child_that_fails_is_restarted_and_a_cycle_is_refused(world: World) -> None:
    agent, calls = Agent("a"), []

    @step()
    def fragile() -> int:
        calls.append(1)
        if len(calls) < 3:
            raise ValueError("again")
        return len(calls)

    @agent.on("part")
    async def part(task: Task) -> int:
        return await task.step(fragile)

    @agent.on("whole")
    async def whole(task: Task) -> list[Any]:
        done = await task.using(restarts=2).ask("part")
        ignored = await task.using(on_failure="ignore").ask("bad")
        return [done, ignored]

    @agent.on("bad")
    async def bad(task: Task) -> None:
        await task.ask("bad")

    process = await world.process(agent)
    await process.ask("t", "whole")
    assert result(await process.finished("t")) == [3, None]
    await process.ask("u", "bad")
    state = await process.finished("u")
    assert state.failure is not None
    assert state.failure.kind == CycleError.__name__


@pytest.mark.parametrize(("decision", "times"), [("approve", 2), ("reject", 1)])
async def test_a_person_decides_about_a_step_that_a_crash_left_open(world: World, decision: Any, times: int) -> None:
    agent, calls = Agent("a"), []

    @step(on_crash="ask")
    async def pay() -> str:
        calls.append(1)
        if len(calls) == 1:
            await asyncio.Event().wait()
        return "paid"

    @agent.on("work")
    async def work(task: Task) -> str:
        return await task.step(pay)

    process = await world.process(agent)
    await process.ask("t", "work")
    await until(lambda: calls)
    process = await crashed(world, process, agent)

    async def held() -> bool:
        return any(wait.asks_a_person for wait in (await process.state("t")).waits)

    await until(held)
    await process.decide("t", pay.__qualname__, decision)
    state = await process.finished("t")
    assert len(calls) == times
    assert state.status == ("completed" if decision == "approve" else "failed")


async def test_a_step_that_a_crash_left_open_is_taken_back(world: World) -> None:
    agent, calls = Agent("a"), []

    @step(on_crash="compensate", undo=lambda: calls.append("undone"))
    async def pay() -> None:
        calls.append("paid")
        await asyncio.Event().wait()

    @agent.on("work")
    async def work(task: Task) -> None:
        await task.step(pay)

    process = await world.process(agent)
    await process.ask("t", "work")
    await until(lambda: calls)
    process = await crashed(world, process, agent)
    state = await process.finished("t")
    assert calls == ["paid", "undone"]
    assert state.failure is not None
    assert "CrashedError" in state.failure.message
