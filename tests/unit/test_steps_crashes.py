"""Steps whose own process ends under them: a crash in between, and not an error of theirs."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent_party import Agent, StepError, Task, step
from agent_party.actors import supervisor
from agent_party.actors.errors import StepCrashedError
from agent_party.actors.events import Attempted, Refused, Stated
from agent_party.actors.work import CRASHES
from tests.unit.handlers_kit import asked, does, no_pauses, result, world
from tests.unit.world import Process, World, until

__all__ = ["no_pauses", "world"]


def crashing(process: Process, times: int) -> list[str]:
    """Have the place where steps run elsewhere end so often under them, and then no more; what happened there."""
    happened: list[str] = []

    async def elsewhere(call: Callable[[], Any]) -> Any:
        if happened.count("crash") < times:
            happened.append("crash")
            raise StepCrashedError("the process ended")
        value = call()
        happened.append(str(value))
        return value

    process.host.effects.elsewhere = elsewhere
    return happened


def stepping(**options: Any) -> Agent:
    """An agent whose handler is one step elsewhere."""

    @step(where="ray", **options)
    def pay() -> str:
        return "paid"

    async def handler(task: Task) -> str:
        try:
            return await task.step(pay)
        except StepError as error:
            return error.kind

    return does(handler)


async def attempts(process: Process) -> list[tuple[int, str]]:
    """The attempts that the log says were not the last."""
    events = [event for commit in await process.commits("task/t") for event in commit.events]
    return [(one.attempt, one.failure.kind) for one in events if isinstance(one, Attempted) and one.failure]


async def refused(process: Process) -> list[str]:
    """Why statements did not count."""
    events = [event for commit in await process.commits("task/t") for event in commit.events]
    return [event.reason for event in events if isinstance(event, Refused)]


@pytest.mark.parametrize("options", [{}, {"retries": 1}, {"only": (ConnectionError,)}], ids=["none", "one", "others"])
async def test_a_crash_is_tried_again_whatever_the_retries(world: World, options: Any) -> None:
    process = await world.process(stepping(**options))
    happened = crashing(process, CRASHES)
    await process.ask("t", "handler")
    assert result(await process.finished("t")) == "paid"
    assert happened == ["crash"] * CRASHES + ["paid"]
    assert await attempts(process) == [(number, "StepCrashedError") for number in range(1, CRASHES + 1)]


async def test_a_step_that_always_ends_its_process_fails(world: World) -> None:
    process = await world.process(stepping())
    happened = crashing(process, 1_000)
    await process.ask("t", "handler")
    state = await process.finished("t")
    assert result(state) == "StepCrashedError"
    assert len(happened) == CRASHES + 1 == state.waits[0].settled.attempts  # type: ignore[union-attr]


async def test_retries_of_its_own_that_are_more_hold_for_crashes_too(world: World) -> None:
    process = await world.process(stepping(retries=CRASHES + 2))
    happened = crashing(process, 1_000)
    await process.ask("t", "handler")
    assert result(await process.finished("t")) == "StepCrashedError"
    assert len(happened) == CRASHES + 3


async def test_an_error_after_a_crash_is_an_error(world: World) -> None:
    """A crash does not make an error one that is tried again."""

    @step(where="ray")
    def fail() -> None:
        raise OSError("no")

    async def handler(task: Task) -> str:
        with pytest.raises(StepError, match="OSError: no"):
            await task.step(fail)
        return "failed"

    process = await world.process(does(handler))
    happened = crashing(process, 1)
    await process.ask("t", "handler")
    assert result(await process.finished("t")) == "failed"
    assert happened == ["crash"]


async def test_a_person_is_asked_each_time(world: World) -> None:
    process = await world.process(stepping(on_crash="ask", retries=5))
    happened = crashing(process, 2)
    await process.ask("t", "handler")
    statements: list[Stated] = []
    for times in (1, 2):
        await until(lambda: len(happened) == times)  # noqa: B023 - awaited within the turn
        await asked(process)
        assert happened == ["crash"] * times, "it was tried before anybody was asked"
        for earlier in statements:
            await process.leave("t", earlier)
            await until(lambda: refused(process))
            assert happened == ["crash"] * times, "what was signed about the first crash counted for the second"
        statements.append(await process.statement("t", 0, time=times))
        await process.leave("t", statements[-1])
    assert result(await process.finished("t")) == "paid"
    assert happened == ["crash", "crash", "paid"]


async def test_a_person_who_refuses_makes_it_fail(world: World) -> None:
    process = await world.process(stepping(on_crash="ask"))
    happened = crashing(process, 1)
    await process.ask("t", "handler")
    await process.decide("t", await asked(process), "reject")
    assert result(await process.finished("t")) == "StatementError"
    assert happened == ["crash"]


async def test_it_is_taken_back(world: World) -> None:
    undone: list[int] = []
    process = await world.process(stepping(on_crash="compensate", undo=lambda: undone.append(1), retries=5))
    happened = crashing(process, 1)
    await process.ask("t", "handler")
    assert result(await process.finished("t")) == "CrashedError"
    assert (happened, undone) == (["crash"], [1])


async def test_a_taking_back_that_crashes_is_tried_again(world: World) -> None:
    @step(where="ray")
    def undo() -> str:
        return "undone"

    process = await world.process(stepping(on_crash="compensate", undo=undo))
    happened = crashing(process, 3)
    await process.ask("t", "handler")
    assert result(await process.finished("t")) == "CrashedError"
    assert happened == ["crash", "crash", "crash", "undone"]


@pytest.mark.parametrize("on_crash", ["retry", "ask"])
async def test_where_everything_ends_who_goes_on_decides(
    world: World, on_crash: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that is shut down ends the steps' processes too: that is no failure of the step."""
    monkeypatch.setattr(supervisor, "ROUND", 3_600.0)  # the one that is about to end does not take it up again
    agent = stepping(on_crash=on_crash)
    first = await world.process(agent)
    happened = crashing(first, 1_000)
    first.host.ending = True  # as if the step had begun before
    first.host.holds_back = lambda agent: False  # type: ignore[method-assign]
    await first.ask("t", "handler")
    await until(lambda: happened and "t" not in first.host.cells)
    state = await first.state("t")
    assert (happened, state.finished, state.open) == (["crash"], False, {0})
    assert not state.waits[0].held
    await first.close()
    second = await world.process()
    crashing(second, 0)
    await second.host.join([agent])
    if on_crash == "ask":
        await second.decide("t", await asked(second), "approve")
    assert result(await second.finished("t")) == "paid"


def ends_once(file: str) -> str:
    """Takes its process with it, the first time."""
    if not Path(file).exists():
        Path(file).touch()
        os._exit(1)
    return "paid"


async def test_a_process_of_its_own_that_is_killed(world: World, tmp_path: Path) -> None:
    pay = step(where="process")(ends_once)

    async def handler(task: Task) -> str:
        return await task.step(pay, str(tmp_path / "once"))

    process = await world.process(does(handler))
    await process.ask("t", "handler")
    assert result(await process.finished("t", 300)) == "paid"
    assert await attempts(process) == [(1, "StepCrashedError")]


async def test_others_in_the_same_pool_do_not_fail_for_it(world: World, tmp_path: Path) -> None:
    """A pool that is broken breaks for all who have a step in it."""
    pay = step(where="process")(ends_once)

    async def handler(task: Task, number: int) -> str:
        return await task.step(pay, str(tmp_path / f"once-{number % 2}"))

    process = await world.process(does(handler))
    await asyncio.gather(*(process.ask(f"t{number}", "handler", number=number) for number in range(6)))
    ends = await asyncio.gather(*(process.finished(f"t{number}", 300) for number in range(6)))
    assert [result(end) for end in ends] == ["paid"] * 6
