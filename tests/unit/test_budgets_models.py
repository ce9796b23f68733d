"""Calls of models under a budget: the most that they can use is reserved, and what they used is settled."""

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from agent_party import Agent, Task
from agent_party.actors.budgets import Budget, Spent
from agent_party.actors.conversation import converse
from agent_party.actors.errors import BudgetError
from agent_party.actors.events import Attempted
from agent_party.actors.models import (
    ModelBusyError,
    ModelNonsenseError,
    ModelTimeoutError,
    Prices,
    ScriptedModel,
    calling,
)
from agent_party.actors.task_state import TaskState
from tests.unit.budgets_kit import ask, check, events, held, world
from tests.unit.handlers_kit import does, no_pauses, result
from tests.unit.world import Process, World, until

__all__ = ["no_pauses", "world"]
PRICES = Prices.of(1_000, 2_000)


def talks(model: ScriptedModel, **options: Any) -> Agent:
    """An agent that has one conversation."""

    async def talk(task: Task) -> str:
        return (await converse(task, model, "main", "go", max_tokens=50, **options)).text

    return does(talk)


async def told(world: World, model: ScriptedModel, budget: Budget, **options: Any) -> tuple[Process, TaskState]:
    """What a conversation under a budget comes to."""
    process = await world.process(talks(model, **options))
    await ask(process, "talk", budget)
    return process, await process.finished("t")


def add(a: int) -> int:
    return a


async def test_a_call_reserves_the_most_that_it_can_use_and_settles_what_it_used(world: World) -> None:
    model = ScriptedModel([calling("add", a=1), "three"], prices=PRICES)
    process, state = await told(world, model, Budget.of(tokens=10_000, money=20, calls=3), tools=[add])
    assert result(state) == "three"
    first, second = state.waits[0], state.waits[2]
    assert first.reserved is not None
    assert second.reserved is not None
    assert first.settled is not None
    assert first.settled.spent is not None
    assert first.reserved.tokens > first.settled.spent.tokens > 0
    assert first.reserved.money > first.settled.spent.money > 0
    assert second.reserved.tokens > first.reserved.tokens
    assert state.waits[1].reserved == Spent(calls=1)
    assert state.spent.calls == 3
    assert state.spent.money < Decimal(1)
    await check(process)


async def test_a_call_that_does_not_fit_is_held_and_then_goes_on(world: World) -> None:
    process = await world.process(talks(ScriptedModel(["short"], prices=PRICES)))
    await ask(process, "talk", Budget.of(tokens=20))
    wait, why = await held(process)
    assert why.startswith("model main needs ")
    assert why.endswith(" tokens, 20 are left of 20")
    await process.leave("t", await process.statement("t", wait))
    state = await process.finished("t")
    assert result(state) == "short"
    assert state.spent.tokens < 100
    await check(process)


async def test_what_has_no_price_is_refused_under_a_budget_of_money(world: World) -> None:
    _, state = await told(world, ScriptedModel(["x"]), Budget.of(money=1))
    assert state.failure is not None
    assert state.failure.kind == BudgetError.__name__
    assert "what this model costs is unknown" in state.failure.message
    assert state.spent == Spent()


@pytest.mark.parametrize(
    ("error", "charged"), [(ModelBusyError("busy"), 0), (ModelTimeoutError("late"), 1), (ModelNonsenseError("no"), 1)]
)
async def test_a_call_that_fails_counts_in_full_unless_the_server_did_nothing(
    world: World, error: Exception, charged: int
) -> None:
    process, state = await told(world, ScriptedModel([error]), Budget.of(tokens=10_000), retries=0)
    assert state.status == "failed"
    reserved = state.waits[0].reserved
    assert reserved is not None
    assert state.spent == Spent(tokens=charged * reserved.tokens, calls=1)
    await check(process)


async def test_attempts_that_ran_out_of_time_count_too(world: World) -> None:
    model = ScriptedModel([ModelTimeoutError("late"), ModelBusyError("busy"), "x"])
    process, state = await told(world, model, Budget.of(tokens=10_000), retries=2)
    reserved = state.waits[0].reserved
    assert reserved is not None
    assert reserved.tokens < state.spent.tokens < 2 * reserved.tokens
    assert state.spent.calls == 1
    await check(process)


async def test_a_call_that_a_crash_left_open_counts_in_full_and_needs_a_new_reservation(world: World) -> None:
    begun: list[int] = []

    async def hangs_first() -> None:
        begun.append(1)
        if len(begun) == 1:
            await asyncio.Event().wait()

    agent = talks(ScriptedModel(lambda request: hangs_first))
    most = await _most(world)
    process = await world.process(agent)
    await ask(process, "talk", Budget.of(tokens=most + 10))
    await until(lambda: begun)
    await world.kill(process)
    process = await world.process(agent)
    wait, why = await held(process)
    assert f"needs {most} tokens, 10 are left of {most + 10}" in why
    state = await process.state("t")
    assert (state.spent, state.reserved) == (Spent(tokens=most, calls=1), Spent())
    assert [event.spent for event in await events(process, Attempted)] == [Spent(tokens=most, calls=1)]
    await process.leave("t", await process.statement("t", wait))
    await until(lambda: len(begun) == 2)
    await process.host.cancel("t", "ada", "")
    state = await process.finished("t")
    assert not state.reserved
    await check(process)


async def _most(world: World) -> int:
    """What the call of these conversations reserves."""
    process = await world.process(talks(ScriptedModel(["x"])))
    await ask(process, "talk", Budget.of(tokens=10_000), task="first")
    state = await process.finished("first")
    await process.close()
    reserved = state.waits[0].reserved
    assert reserved is not None
    return reserved.tokens
