"""Signals, updates and queries; doing several things at once; pauses."""

import asyncio
from typing import Any

import pytest

from agent_party import Agent, Task, step
from agent_party.actors.errors import (
    RefusedError,
    SettledError,
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
    with pytest.raises(SettledError, match="takes no"):
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
    again = await process.host.activate("t")
    assert again is not None
    await process.host.go(again)
    await until(lambda: not again.replaying)
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
