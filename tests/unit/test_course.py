"""The course of a handler: beginning anew, patches, supervision, and steps that a crash left open."""

import asyncio
from typing import Any

import pytest

from agent_party import Agent, Task, TaskFailedError, step, testing
from agent_party.actors.errors import CycleError
from agent_party.eventstore.ambient import System
from tests.unit.handlers_kit import asked, result, world
from tests.unit.test_messages import crashed, message
from tests.unit.world import World, until

__all__ = ["world"]


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


def paying(unfinished: int) -> tuple[Agent, list[int]]:
    """An agent whose step asks a person after a crash, and does not end the first times; and its calls."""
    agent, calls = Agent("a"), list[int]()

    @step(on_crash="ask")
    async def pay() -> str:
        calls.append(1)
        if len(calls) <= unfinished:
            await asyncio.Event().wait()
        return "paid"

    @agent.on("work")
    async def work(task: Task) -> str:
        return await task.step(pay)

    return agent, calls


@pytest.mark.parametrize(("decision", "times"), [("approve", 2), ("reject", 1)])
async def test_a_person_decides_about_a_step_that_a_crash_left_open(world: World, decision: Any, times: int) -> None:
    agent, calls = paying(1)
    process = await world.process(agent)
    await process.ask("t", "work")
    await until(lambda: calls)
    process = await crashed(world, process, agent)
    await process.decide("t", await asked(process), decision)
    state = await process.finished("t")
    assert len(calls) == times
    assert state.status == ("completed" if decision == "approve" else "failed")


async def test_a_person_is_asked_after_each_crash(world: World) -> None:
    """Who let it go on once has not said that it may be done a third time."""
    agent, calls = paying(2)
    process = await world.process(agent)
    await process.ask("t", "work")
    for times in (1, 2):
        await until(lambda: len(calls) == times)  # noqa: B023 - awaited within the turn
        process = await crashed(world, process, agent)
        await asked(process)
        await process.leave("t", await process.statement("t", 0, time=times))
    assert result(await process.finished("t")) == "paid"
    assert len(calls) == 3


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


def racing() -> tuple[Agent, list[int]]:
    """An agent that says which of two signals came first, each time its handler comes to know."""
    agent, winners = Agent("a"), list[int]()

    @agent.on("race")
    async def race(task: Task) -> int:
        winner, _ = await task.first(task.signal("left"), task.signal("right"))
        winners.append(winner)
        await task.signal("end")
        return winner

    return agent, winners


@pytest.mark.parametrize("between", range(8))
async def test_who_was_first_stays_first_however_close_it_was(world: World, between: int) -> None:
    agent, winners = racing()
    process = await world.process(agent)
    await process.ask("t", "race")
    await process.opened("t", "right")
    sent = [asyncio.ensure_future(process.host.deliver("t", message("signal", "left", 1)))]
    for _ in range(between):
        await asyncio.sleep(0)
    sent.append(asyncio.ensure_future(process.host.deliver("t", message("signal", "right", 2))))
    await asyncio.gather(*sent)
    await process.opened("t", "end")
    process = await crashed(world, process, agent)
    await process.host.deliver("t", message("signal", "end", 3))
    state = await process.finished("t")
    assert len(winners) > 1
    assert set(winners) == {result(state)}


def test_a_deadline_counts_from_the_request_also_over_a_crash() -> None:
    agent = Agent("a")

    @agent.on("work")
    async def work(task: Task) -> None:
        await task.signal("never")

    async def main() -> float:
        async with testing.world() as place:
            loop = asyncio.get_running_loop()
            began = loop.time()
            async with place.party([agent]) as party:
                task = await party.using(within=100).ask(work)
                await asyncio.sleep(60)
            await asyncio.sleep(30)
            async with place.party([agent]) as party:
                with pytest.raises(TaskFailedError, match="within 100 seconds"):
                    await party.task(task.id).result()
            return loop.time() - began

    assert 100 <= testing.run(main, seed=2) < 110


class Stopped(System):
    """A clock that stands still."""

    def now(self) -> int:
        return 1_750_000_000_000_000


async def test_a_timer_in_the_past_is_an_error_of_the_task_alone(world: World) -> None:
    agent = Agent("a")

    @agent.on("work")
    async def work(task: Task, seconds: float) -> str:
        await task.sleep_until(task.now() + int(seconds * 1_000_000))
        return "woken"

    process = await world.process(agent, ambient=Stopped())
    await process.ask("t", "work", seconds=-5)
    await process.ask("u", "work", seconds=0)
    late = await process.finished("t")
    assert late.failure is not None
    assert "that was 5 seconds ago" in late.failure.message
    assert result(await process.finished("u")) == "woken"
    other = await world.process(agent)  # where time passes
    await other.ask("v", "work", seconds=0.05)
    assert result(await other.finished("v")) == "woken"
