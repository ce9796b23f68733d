"""Budgets down the delegation tree: reserved, settled, given back; exhaustion pauses and asks."""

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from agent_party import Agent, Task, TaskCancelledError, TaskFailedError
from agent_party.actors.budgets import Accounted, Budget, Raised, Spent
from agent_party.actors.errors import BudgetError, ConfigurationError
from agent_party.actors.events import Completed, Freed, Held
from agent_party.actors.task_state import TaskState
from agent_party.cli.report import _account
from tests.unit.budgets_kit import ask, check, children, events, held, one, part, running, spent, world
from tests.unit.handlers_kit import does, failure, no_pauses, result
from tests.unit.world import Process, World, until

__all__ = ["no_pauses", "world"]


async def test_a_tree_settles_what_it_used_and_gives_back_the_rest(world: World) -> None:
    async def whole(task: Task) -> list[Any]:
        share = Budget.of(tokens=300, calls=2)
        await task.using(budget=share).ask("part", tokens=120)
        await task.ask("part", tokens=30)
        await task.step(one)
        left = task.budget.left
        assert left is not None
        return [left.tokens, left.calls, task.budget.spent.tokens]

    process = await world.process(does(whole, part))
    await ask(process, "whole", Budget.of(tokens=1_000, calls=10))
    state = await process.finished("t")
    assert result(state) == [850, 7, 150]
    assert spent(state) == {"tokens": 150, "calls": 3}
    shares = [wait.reserved for wait in state.waits if wait.kind == "child"]
    assert shares == [Spent(tokens=300, calls=2), Spent(tokens=880, calls=9)]
    for child in await children(process):
        assert (await process.state(child)).spent.calls == 1
    await check(process)
    assert (await events(process, Completed))[0].spent == state.spent


async def test_nothing_is_kept_of_a_task_without_a_budget(world: World) -> None:
    async def whole(task: Task) -> str:
        await task.budget.spend(tokens=5)
        assert (task.budget.limit, task.budget.left, task.budget.spent) == (None, None, Spent())
        return str(await task.ask("part", tokens=30))

    process = await world.process(does(whole, part))
    await ask(process, "whole", None)
    state = await process.finished("t")
    assert result(state) == "done"
    assert (len(state.waits), state.spent) == (1, Spent())
    assert state.waits[0].reserved is None


async def test_a_share_holds_below_a_task_without_a_budget(world: World) -> None:
    async def whole(task: Task) -> Any:
        return await task.using(budget=Budget.of(tokens=10, on_exhausted="fail")).ask("part", tokens=11)

    process = await world.process(does(whole, part))
    await ask(process, "whole", None)
    assert "needs 11 tokens, 10 are left of 10" in failure(await process.finished("t"))[1]


async def test_children_asked_at_once_share_what_is_left(world: World) -> None:
    async def whole(task: Task) -> None:
        await asyncio.gather(*(task.ask("part", tokens=10) for _ in range(3)))

    process = await world.process(does(whole, part))
    await ask(process, "whole", Budget.of(tokens=1_000, money="1"))
    state = await process.finished("t")
    third = Decimal("0.333333333333")
    shares = [wait.reserved for wait in state.waits]
    assert shares == [Spent(334, third), Spent(333, third), Spent(333, third)]
    assert spent(state) == {"tokens": 30, "calls": 3}
    await check(process)


async def test_what_does_not_fit_is_held_and_a_person_raises_the_budget(world: World) -> None:
    async def whole(task: Task) -> str:
        await task.budget.spend(tokens=880)
        await task.budget.spend(tokens=500)
        return "done"

    process = await world.process(does(whole))
    await ask(process, "whole", Budget.of(tokens=1_000))
    wait, why = await held(process)
    assert why == "spending 500 tokens needs 500 tokens, 120 are left of 1,000"
    assert (await process.state("t")).status == "waiting"
    await process.decide("t", "spend")
    state = await process.finished("t")
    assert result(state) == "done"
    assert (state.budget, spent(state)) == (Budget(tokens=1_380), {"tokens": 1_380})
    raised = next(c for c in await process.commits("task/t") if any(type(e) is Raised for e in c.events))
    freed = [event for event in raised.events if type(event) is Freed]
    assert [event.wait for event in freed] == [wait]
    assert freed[0].signature
    await check(process)


async def test_who_refuses_makes_the_wait_fail_with_a_budget_error(world: World) -> None:
    async def whole(task: Task) -> str:
        with pytest.raises(BudgetError, match="ada refused"):
            await task.budget.spend(tokens=500)
        with pytest.raises(BudgetError, match="ada refused"):
            await task.using(budget=Budget.of(tokens=500)).ask("part")
        return "went another way"

    process = await world.process(does(whole, part))
    await ask(process, "whole", Budget.of(tokens=100))
    await held(process)
    await process.decide("t", "spend", "reject")
    await until(lambda: _held_twice(process))
    await process.decide("t", "part", "reject")
    state = await process.finished("t")
    assert result(state) == "went another way"
    assert state.spent == Spent()
    await check(process)


async def test_a_raise_is_bounded_to_what_was_shown(world: World) -> None:
    process = await world.process(does(both_want))
    await ask(process, "both_want", Budget.of(tokens=100))
    await until(lambda: _held_twice(process))
    first, second = sorted((await process.state("t")).open)
    one_, two = [await process.statement("t", wait) for wait in (first, second)]
    await process.leave("t", one_, two)

    async def asked_again() -> bool:
        return len(await events(process, Held)) == 3

    await until(asked_again)
    state = await process.state("t")
    assert state.budget == Budget(tokens=500)
    again = (await events(process, Held))[-1]
    assert again.more == Spent(tokens=500)
    await process.leave("t", await process.statement("t", again.wait))
    state = await process.finished("t")
    assert (state.budget, state.spent.tokens) == (Budget(tokens=1_000), 1_000)
    await check(process)


async def both_want(task: Task) -> None:
    await asyncio.gather(task.budget.spend(tokens=500), task.budget.spend(tokens=500))


async def _held_twice(process: Process) -> bool:
    return len(await events(process, Held)) == 2


async def test_a_signature_covers_what_was_shown(world: World) -> None:
    process = await world.process(does(both_want))
    await ask(process, "both_want", Budget.of(tokens=100))
    wait, _ = await held(process)
    input_only = (await process.state("t")).waits[wait].input
    for number, stated in enumerate(
        [await process.statement("t", wait, shown=input_only), await process.statement("t", wait)]
    ):
        await process.leave("t", stated)

        async def read(revision: int = number + 1) -> bool:
            return (await process.state("t")).inbox >= revision

        await until(read)
        assert len(await events(process, Raised)) == number
    await process.host.cancel("t", "ada", "")


async def test_a_hold_is_lifted_when_a_sibling_gives_back(world: World) -> None:
    async def whole(task: Task) -> None:
        first = asyncio.create_task(task.using(budget=Budget.of(tokens=900), on_failure="ignore").ask("slow"))
        await asyncio.gather(first, task.budget.spend(tokens=500))

    async def slow(task: Task) -> None:
        await task.signal("go")

    process = await world.process(does(whole, slow))
    await ask(process, "whole", Budget.of(tokens=1_000))
    _, why = await held(process)
    assert why.endswith("needs 500 tokens, 100 are left of 1,000 (900 reserved, which may come back)")
    await process.host.cancel_here(await running(process), "ada", "")
    state = await process.finished("t")
    freed = await events(process, Freed)
    assert [(event.by, event.reserved) for event in freed] == [("", Spent(tokens=500))]
    assert state.spent == Spent(tokens=500)
    await check(process)


@pytest.mark.parametrize("how", ["fails", "is cancelled"])
async def test_unattended_it_fails_only_when_nothing_can_come_back(world: World, how: str) -> None:
    async def whole(task: Task) -> str:
        async def child() -> None:
            with pytest.raises((TaskFailedError, TaskCancelledError)):
                await task.using(budget=Budget.of(tokens=900)).ask("slow")

        await asyncio.gather(child(), task.budget.spend(tokens=500))
        with pytest.raises(BudgetError, match=r"does not allow it: spending 501 tokens needs 501 tokens, 500 are left"):
            await task.budget.spend(tokens=501)
        return "done"

    async def slow(task: Task) -> None:
        await task.signal("go")
        raise ValueError

    process = await world.process(does(whole, slow))
    await ask(process, "whole", Budget.of(tokens=1_000, on_exhausted="fail"))
    await held(process)
    child = await running(process)
    if how == "fails":
        from tests.unit.test_messages import message

        await process.host.deliver(child, message("signal", "go", 1))
    else:
        await process.host.cancel_here(child, "ada", "")
    state = await process.finished("t")
    assert result(state) == "done"
    assert (await process.state(child)).budget == Budget(tokens=900, on_exhausted="fail")
    await check(process)


async def test_an_effect_that_is_dearer_is_recorded_and_then_nothing_begins(world: World) -> None:
    async def dear() -> int:
        return 700

    async def whole(task: Task) -> None:
        async with task.budget.reserve(Spent(tokens=400), lambda used: Spent(tokens=used)):
            await task.step(dear)
        await task.step(one)

    process = await world.process(does(whole))
    await ask(process, "whole", Budget.of(tokens=500))
    _, why = await held(process)
    assert "0 are left of 500, and 200 more than that are used" in why
    state = await process.state("t")
    assert state.spent == Spent(tokens=700, calls=1)
    await process.decide("t", "one")
    state = await process.finished("t")
    assert (state.budget, state.spent) == (Budget(tokens=700), Spent(tokens=700, calls=2))
    await check(process, over=Spent(tokens=200))


async def test_what_people_add_further_down_is_added_above_as_far_as_it_is_used(world: World) -> None:
    async def whole(task: Task) -> None:
        await task.using(budget=Budget.of(tokens=100)).ask("middle")

    async def middle(task: Task) -> None:
        await task.using(budget=Budget.of(tokens=60)).ask("part", tokens=90)

    process = await world.process(does(whole, middle, part))
    await ask(process, "whole", Budget.of(tokens=100))

    async def leaf() -> str:
        for child in await children(process):
            for grandchild in await children(process, child):
                return grandchild
        return ""

    child = await until(leaf)
    await held(process, child)
    await process.decide(child, "spend")
    state = await process.finished("t")
    assert (state.budget, state.spent.tokens, state.raised) == (Budget(tokens=100), 90, Spent())
    middle_state = await process.state((await children(process))[0])
    assert (middle_state.budget, middle_state.raised) == (Budget(tokens=130, on_exhausted=""), Spent(tokens=30))
    await check(process)


async def test_seconds_bound_a_child_and_come_back(world: World) -> None:
    async def whole(task: Task) -> Any:
        await task.using(budget=Budget.of(seconds=400)).ask("quick")
        with pytest.raises(TaskFailedError, match=r"within 0.05 seconds"):
            await task.using(within=0.05).ask("never")
        left = task.budget.left
        assert left is not None
        return left.seconds

    async def quick(task: Task) -> None:
        await task.sleep(0.02)

    async def never(task: Task) -> None:
        await task.signal("never")

    process = await world.process(does(whole, quick, never))
    await ask(process, "whole", Budget.of(seconds=1_000))
    state = await process.finished("t")
    first, second = [await process.state(child) for child in await children(process)]
    assert (first.within, second.within) == (400, 0.05)
    assert first.spent.seconds >= Decimal("0.02")
    assert second.spent.seconds == Decimal("0.05")
    assert Decimal(str(result(state))) == 1_000 - first.spent.seconds - second.spent.seconds
    assert [wait.reserved for wait in state.waits[:2]] == [Spent(seconds=Decimal(400)), Spent(seconds=Decimal("0.05"))]
    await check(process)


async def test_a_detached_child_keeps_its_share_and_one_that_is_started_needs_one(world: World) -> None:
    async def whole(task: Task) -> None:
        with pytest.raises(ConfigurationError, match="without a share"):
            await task.using().start("slow")
        await task.using(budget=Budget.of(tokens=100)).start("slow")
        await task.first(task.sleep(0.02), _swallow(task))

    async def _swallow(task: Task) -> None:
        asyncio.get_running_loop().create_task(
            task.using(detached=True, budget=Budget.of(tokens=200)).ask("slow")
        ).add_done_callback(lambda done: done.cancelled() or done.exception())
        await task.signal("never")

    async def slow(task: Task) -> None:
        await task.signal("never")

    process = await world.process(does(whole, slow))
    await ask(process, "whole", Budget.of(tokens=1_000))
    state = await process.finished("t")
    assert (state.status, state.spent) == ("completed", Spent(tokens=300))
    assert [event.spent for event in await events(process, Accounted)] == [Spent(tokens=200)]
    await check(process)


async def test_what_a_child_wants_beyond_its_parents_budget_is_asked_for_there(world: World) -> None:
    async def whole(task: Task) -> Any:
        return await task.using(budget=Budget.of(tokens=5_000, money="2.5")).ask("part", tokens=4_000)

    process = await world.process(does(whole, part))
    await ask(process, "whole", Budget.of(tokens=1_000, money="0.5"))
    _, why = await held(process)
    assert why == "part needs 5,000 tokens, 1,000 are left of 1,000; 2.5 of money, 0.5 are left of 0.5"
    await process.decide("t", "part")
    state = await process.finished("t")
    assert state.budget == Budget(tokens=5_000, money=Decimal("2.5"))
    assert state.spent == Spent(tokens=4_000, calls=1)
    await check(process)


@pytest.mark.parametrize("budget", [5, "5 tokens", {"tokens": 5}, Budget(tokens=-1), Budget(calls=True)])
async def test_a_share_that_cannot_be_is_refused(world: World, budget: Any) -> None:
    agent = Agent("a")

    @agent.on("whole")
    async def whole(task: Task) -> None:
        with pytest.raises(ConfigurationError, match="cannot be"):
            await task.using(budget=budget).ask("whole")

    process = await world.process(agent)
    await ask(process, "whole", Budget.of(tokens=1_000))
    assert (await process.finished("t")).status == "completed"


async def test_the_report_of_a_task_says_how_its_budget_stands(world: World) -> None:
    process = await world.process(does(both_want))
    await ask(process, "both_want", Budget.of(tokens=700, money="1.50"))
    await held(process)
    await process.host.cancel("t", "ada", "")
    assert _account(await process.finished("t")) == "700 tokens, 1.5 of money: 500 tokens spent"
    assert _account(TaskState()) == ""
