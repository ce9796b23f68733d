"""Retry policies, time-outs, heartbeats with detail, processes of their own; what a crash leaves of them."""

import asyncio
import os
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_party import Agent, Task, current_step, step, testing
from agent_party.actors.errors import ConfigurationError, StepCancelledError, StepError
from agent_party.actors.steps import StepOptions, step_options
from tests.unit.handlers_kit import result, world
from tests.unit.world import World, until

__all__ = ["world"]


@given(st.integers(1, 60), st.floats(0, 10), st.floats(1, 5), st.floats(0, 100), st.floats(0, 1), st.floats(0, 1))
def test_pauses_grow_to_the_longest_and_no_further(
    attempt: int, backoff: float, factor: float, longest: float, jitter: float, chance: float
) -> None:
    options = StepOptions(backoff=backoff, factor=factor, longest=longest, jitter=jitter)
    pause = options.pause(attempt, chance)
    assert 0 <= pause <= longest
    assert options.pause(attempt + 1, chance) >= pause


def test_pauses_are_those_of_the_policy() -> None:
    options = StepOptions(backoff=0.5, factor=3, longest=10, jitter=0)
    assert [options.pause(attempt, 0.9) for attempt in range(1, 5)] == [0.5, 1.5, 4.5, 10]


@pytest.mark.parametrize(
    "options",
    [
        {"retries": -1},
        {"timeout": 0},
        {"heartbeat": 0},
        {"backoff": -1},
        {"factor": 0.5},
        {"on_crash": "compensate"},
    ],
)
def test_options_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        step(**options)


def test_an_async_function_cannot_run_elsewhere() -> None:
    with pytest.raises(ConfigurationError, match="runs where the task is"):

        @step(where="process")
        async def work() -> None:
            """Nothing."""


def test_a_failed_attempt_is_recorded_and_retries_go_on_after_a_crash_where_they_were() -> None:
    agent, attempts = Agent("a"), list[int]()

    @step(retries=4, backoff=3600, longest=20_000, jitter=0)
    def call() -> int:
        attempts.append(current_step().attempt)
        if len(attempts) < 4:
            raise OSError("not yet")
        return len(attempts)

    @agent.on("work")
    async def work(task: Task) -> int:
        return await task.step(call)

    async def main() -> None:
        async with testing.world() as place:
            loop = asyncio.get_running_loop()
            async with place.party([agent]) as party:
                task = await party.ask(work)
                async for state in task.watch():
                    if state.waits and state.waits[0].attempts == 2:
                        break
            async with place.party([agent]) as party:
                again = await party.task(task.id).state()
                assert again.waits[0].failure is not None
                assert again.waits[0].failure.message == "not yet"
                assert await party.task(task.id).result() == 4
            assert loop.time() >= 3600 + 7200 + 14_400

    testing.run(main, seed=3)
    assert attempts == [1, 2, 3, 4]


async def test_only_errors_that_may_pass_are_tried_again(world: World) -> None:
    agent, calls = Agent("a"), list[int]()

    @step(retries=3, only=OSError)
    def call() -> None:
        calls.append(1)
        raise ValueError("never")

    @agent.on("work")
    async def work(task: Task) -> None:
        await task.step(call)

    process = await world.process(agent)
    await process.ask("t", "work")
    assert (await process.finished("t")).status == "failed"
    assert len(calls) == 1


async def test_a_long_step_goes_on_after_a_crash_from_what_its_heartbeat_said(world: World) -> None:
    agent, began = Agent("a"), list[Any]()

    @step()
    async def long() -> int:
        began.append(current_step().detail(int))
        for row in range(current_step().detail(int) or 0, 10):
            current_step().heartbeat(row)
            if row == 7 and len(began) == 1:
                await asyncio.Event().wait()
        return 10

    @agent.on("work")
    async def work(task: Task) -> int:
        return await task.step(long)

    process = await world.process(agent)
    await process.ask("t", "work")

    async def said() -> bool:
        state = await process.state("t")
        return bool(state.waits and state.waits[0].detail)

    await until(said)
    await world.kill(process)
    process = await world.process(agent)
    assert result(await process.finished("t")) == 10
    assert began[0] is None
    assert began[1] is not None


async def test_a_step_that_says_nothing_is_ended_and_its_thread_is_told(world: World) -> None:
    agent, ended, told = Agent("a"), threading.Event(), threading.Event()

    @step(heartbeat=0.05)
    def silent() -> None:
        try:
            current_step().heartbeat("began")
            ended.wait(60)
            current_step().heartbeat("late")
        except StepCancelledError:
            told.set()

    @agent.on("work")
    async def work(task: Task) -> str:
        try:
            await task.step(silent)
        except StepError as error:
            ended.set()
            return error.message
        return ""

    process = await world.process(agent)
    await process.ask("t", "work")
    assert result(await process.finished("t")) == "no sign of life for 0.05 seconds"
    assert await asyncio.to_thread(told.wait, 60)


def number_of_this_process(add: int) -> int:
    """Where it runs."""
    return os.getpid() + add


async def test_a_step_in_a_process_of_its_own(world: World) -> None:
    agent = Agent("a")
    elsewhere = step(where="process")(number_of_this_process)
    assert step_options(elsewhere).where == "process"

    @agent.on("work")
    async def work(task: Task) -> int:
        return await task.step(elsewhere, 0)

    process = await world.process(agent)
    await process.ask("t", "work")
    assert result(await process.finished("t", 300)) != os.getpid()
