"""However a child ends, what it did not use comes back: not awaited any more, cancelled with its parent, restarted."""

import asyncio
from typing import Any

import pytest

from agent_party import StepError, Task
from agent_party.actors.budgets import Accounted, Budget, Spent
from agent_party.actors.events import Cancelled
from tests.unit.budgets_kit import ask, check, children, events, part, world
from tests.unit.handlers_kit import does, no_pauses, result
from tests.unit.test_messages import message
from tests.unit.world import World, until

__all__ = ["no_pauses", "world"]


async def test_a_child_that_is_not_awaited_any_more_gives_back_what_it_did_not_use(world: World) -> None:
    async def whole(task: Task) -> list[Any]:
        winner = await task.first(task.using(budget=Budget.of(tokens=900)).ask("slow"), task.ask("part"))
        await task.budget.spend(tokens=950)
        return list(winner)

    async def slow(task: Task) -> None:
        await task.budget.spend(tokens=50)
        await task.signal("never")

    process = await world.process(does(whole, part, slow))
    await ask(process, "whole", Budget.of(tokens=1_000))
    state = await process.finished("t")
    assert result(state) == [1, "done"]
    accounted = await events(process, Accounted)
    assert [(event.wait, event.spent.tokens) for event in accounted] in ([(0, 50)], [(0, 0)])
    assert state.spent.tokens == 950 + accounted[0].spent.tokens
    await check(process)


async def test_a_cancelled_parent_ends_when_its_children_are_accounted_for(world: World) -> None:
    async def whole(task: Task) -> None:
        await asyncio.gather(*(task.ask("slow") for _ in range(2)))

    async def slow(task: Task) -> None:
        await task.budget.spend(tokens=50)
        await task.ask("deep")

    async def deep(task: Task) -> None:
        await task.budget.spend(tokens=7)
        await task.signal("never")

    process = await world.process(does(whole, slow, deep))
    await ask(process, "whole", Budget.of(tokens=1_000))

    async def all_wait() -> bool:
        found = [await children(process, child) for child in await children(process)]
        deep = [await process.state(one[0]) for one in found if one]
        return sum(state.waits[wait].kind == "signal" for state in deep for wait in state.open) == 2

    await until(all_wait)
    await process.host.cancel("t", "ada", "enough")
    state = await process.finished("t")
    assert (state.status, state.spent.tokens, state.reserved) == ("cancelled", 114, Spent())
    assert state.cancelled is not None
    assert (state.cancelled.by, state.cancelled.reason) == ("ada", "enough")
    await check(process)


async def test_a_failed_step_and_one_that_is_stopped_count_as_all_that_they_reserved(world: World) -> None:
    hanging = asyncio.Event()

    async def fails() -> None:
        raise ValueError

    async def hangs() -> None:
        hanging.set()
        await asyncio.Event().wait()

    async def whole(task: Task) -> None:
        async with task.budget.reserve(Spent(tokens=40)):
            with pytest.raises(StepError):
                await task.step(fails)

        async def reserved() -> None:
            async with task.budget.reserve(Spent(tokens=300)):
                await task.step(hangs)

        await task.first(reserved(), task.signal("enough"))

    process = await world.process(does(whole))
    await ask(process, "whole", Budget.of(tokens=1_000))
    await hanging.wait()
    await process.host.deliver("t", message("signal", "enough", 1))
    state = await process.finished("t")
    assert state.spent == Spent(tokens=340, calls=2)
    await check(process)


async def test_restarts_have_their_share_anew_and_beginning_anew_keeps_the_account(world: World) -> None:
    async def whole(task: Task, n: int = 0) -> int:
        await task.using(restarts=2, on_failure="ignore", budget=Budget.of(tokens=100)).ask("bad")
        if n == 1:
            return n
        return task.continue_as_new(n=n + 1)

    async def bad(task: Task) -> None:
        await task.budget.spend(tokens=60)
        raise ValueError

    process = await world.process(does(whole, bad))
    await ask(process, "whole", Budget.of(tokens=1_000))
    state = await process.finished("t")
    assert (result(state), state.begun, state.spent.tokens) == (1, 1, 360)
    assert not state.reserved


async def test_nothing_begins_while_the_end_of_its_task_is_on_its_way(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task is cancelled while a step of it is being opened: what ran then would not be counted."""
    begun: list[int] = []

    async def use() -> None:
        begun.append(1)

    async def whole(task: Task) -> None:
        await task.signal("go")
        async with task.budget.reserve(Spent(tokens=5)):
            await task.step(use)

    process = await world.process(does(whole))
    await ask(process, "whole", Budget.of(tokens=10))
    await process.opened("t", "go")
    cell, opening, asked = process.host.cells["t"], asyncio.Event(), asyncio.Event()
    record = cell.activation.record

    async def gated(recorded: Any, *more: Any) -> Any:
        if any(one.kind == "step" for event in recorded for one in getattr(event, "opened", [])):
            opening.set()
            await asked.wait()
        if any(isinstance(event, Cancelled) for event in recorded):
            for _ in range(20):
                await asyncio.sleep(0)
        return await record(recorded, *more)

    monkeypatch.setattr(cell.activation, "record", gated)
    signalling = asyncio.create_task(process.host.deliver("t", message("signal", "go", 1)))
    await opening.wait()  # the signal may be in the same commit
    cancelling = asyncio.create_task(process.host.cancel("t", "ada", ""))
    for _ in range(50):
        await asyncio.sleep(0)
    asked.set()
    await asyncio.gather(signalling, cancelling)
    state = await process.finished("t")
    assert (state.status, state.spent, begun) == ("cancelled", Spent(), [])
    await check(process)
