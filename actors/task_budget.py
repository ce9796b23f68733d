"""A task's budget as its handler sees it: what is left, spending, and reserving for a call of a model."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from .budgets import Account, Budget, Claim, Spent
from .errors import BudgetError
from .events import Settled
from .model import Estimate, ModelAnswer
from .reservation import Reservation, reserving
from .spending import CALL, FREE, SPEND, Plan
from .task_state import WaitState

if TYPE_CHECKING:
    from .cell import TaskCell


class TaskBudget:
    """A task's budget, as its handler sees it. What it reads is recorded: on replay it reads the same."""

    def __init__(self, cell: "TaskCell", wait_for: Callable[..., Awaitable[Settled]]) -> None:
        self._cell, self._wait_for = cell, wait_for

    def _read(self, what: str, read: Callable[[Account], Any], kind: Any) -> Any:
        if self._cell.state.budget is None:
            return None
        account = self._cell.spending.account
        packed = self._cell.waits.value(f"budget {what}", lambda: msgspec.msgpack.encode(read(account())))
        return msgspec.msgpack.decode(packed, type=kind)

    @property
    def limit(self) -> Budget | None:
        """The budget, as far as it was raised; None if the task has none."""
        found: Budget | None = self._read("limit", lambda account: account.limit, Budget)
        return found

    @property
    def left(self) -> Budget | None:
        """What is neither spent nor reserved; None if the task has no budget."""
        found: Budget | None = self._read("left", lambda account: account.left, Budget)
        return found

    @property
    def spent(self) -> Spent:
        """What the task has used, with its children that have ended; nothing is kept of a task without a budget."""
        found: Spent | None = self._read("spent", lambda account: account.spent, Spent)
        return found or Spent()

    async def spend(self, **amounts: Any) -> None:
        """Spend, once: ``tokens``, ``money``, ``calls``. Waits where the budget does not allow it, or raises
        `BudgetError`; `ConfigurationError` for an amount that cannot be."""
        amount = Spent.of(**amounts)
        if not amount or self._cell.state.budget is None:
            return

        async def run(wait: int, _: WaitState) -> Settled:
            return Settled(wait)

        plan = Plan(f"spending {amount}", Claim(amount))
        await self._wait_for("step", SPEND, msgspec.msgpack.encode(amount), run, plan=plan)

    @contextlib.asynccontextmanager
    async def reserve(self, most: Spent, used: Callable[[Any], Spent] | None = None) -> AsyncIterator[Reservation]:
        """Within it, the next step may use so much, beside its call. ``used`` tells from its result what it was;
        without it, and for a step that fails, all of it."""

        def measured(settled: Settled) -> Spent:
            if used is None or settled.failure:
                return most + CALL if settled.failure is None or settled.failure.kind not in FREE else CALL
            return used(msgspec.msgpack.decode(settled.value)) + CALL

        with reserving(Reservation(self._cell.spending, most + CALL, measured)) as reservation:
            yield reservation

    @contextlib.asynccontextmanager
    async def for_call(self, estimate: Estimate) -> AsyncIterator[Reservation]:
        """Within it, the next step is a call of a model, which uses this much at most."""
        limit, usage = self._cell.state.budget, estimate.usage
        money = estimate.cost.amount if estimate.cost else Decimal(0)
        if limit and limit.money is not None and estimate.cost is None and self._cell.waits.peek() is None:
            raise BudgetError(
                f"task {self._cell.id} has a budget of money, and what this model costs is unknown: give it prices, or "
                "leave money out of the budget"
            )
        most = Spent(usage.input_tokens + usage.output_tokens, money, 1)

        def measured(settled: Settled) -> Spent:
            if settled.failure:
                return CALL if settled.failure.kind in FREE else most
            answer = msgspec.msgpack.decode(settled.value, type=ModelAnswer)
            cost = answer.cost.amount if answer.cost else money
            return Spent(answer.usage.input_tokens + answer.usage.output_tokens, cost, 1)

        with reserving(Reservation(self._cell.spending, most, measured)) as reservation:
            yield reservation
