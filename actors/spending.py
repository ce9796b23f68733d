"""Spending: what one live task uses of its budget, and what its handler may know and do about it.

The rules, which hold on the task's stream at every commit:

- What is spent and what open waits have reserved is together no more than the limit. A wait that does not fit is
  opened without a reservation and held; it goes on when a person raises the budget, or when enough comes back.
- A step is one call, however often it is tried. A call of a model reserves the most that it can use. What ends without
  a known outcome (cancelled, lost in a crash, out of time) counts as having used all that it had reserved; after a
  crash it is tried again under a new reservation, if it had reserved tokens or money.
- A child's budget is what its wait has reserved. What it used is settled with its outcome; of a child that is not
  awaited any more, once it has ended. A task ends only when all its children are accounted for, but for detached ones:
  they keep their share for good, and it counts as used.
- An effect that turns out dearer than its reservation is recorded as it was; then nothing begins until it is raised.
- What people add to a child's budget is added to its parent's as far as the child has used it.
- A child's seconds are those from its request to its end, or those of its own children where these are more.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from ..eventstore.errors import EventStoreError
from .budgets import Account, Accounted, Budget, Claim, Raised, Spent, bounded
from .delegation import DETACHED, cause_of
from .errors import CallError
from .events import Attempted, Cancelled, Completed, Failed, Failure, Freed, Held, Parent, Requested, Settled, Stated
from .reservation import Used, reservation_of_next
from .task_state import WaitState

if TYPE_CHECKING:
    from .cell import TaskCell

REFUSED = "BudgetError"
"""The kind of failure, without any attempt, of a wait that the budget does not allow."""
FREE = frozenset({"ModelBusyError", "ModelRefusedError", "ModelNoAnswerError", "ConfigurationError"})
"""Kinds of failure after which nothing is charged but the call."""
AGAIN = 2.0
"""Seconds after which a child that does not end is told again that it is cancelled."""
SPEND = "spend"
CALL = Spent(calls=1)
Ended = Completed | Failed | Cancelled


class Plan:
    """What a wait asks of the budget. ``what``: for people; ``used`` tells what of it was used from the outcome."""

    def __init__(self, what: str, claim: Claim, used: Used | None = None) -> None:
        self.what, self.claim, self.used = what, claim, used


class Spending:
    """The account of one run of a task's handler; of a task without a budget, nothing is kept."""

    def __init__(self, cell: "TaskCell") -> None:
        self._cell = cell
        self._claims: dict[int, tuple[Spent, Spent]] = {}
        self._accounts: dict[int, Accounted] = {}
        self._lost: dict[int, Spent] = {}
        self._begun: dict[int, Plan] = {}
        self._sharing: list[tuple[int, Plan]] = []
        self._used_up: set[int] = set()
        self._ending = False

    @property
    def limit(self) -> Budget | None:
        """The budget, as far as it has been raised."""
        return self._cell.state.budget

    def account(self) -> Account:
        """How it stands, with all that is decided and not on the log yet."""
        state = self._cell.state
        assert state.budget is not None
        account = Account(state.budget, state.spent, state.reserved)
        self._claims = {wait: claim for wait, claim in self._claims.items() if not self._is_reserved(wait)}
        for amount, more in self._claims.values():
            account = account.raised(more).with_more(amount)
        for settled in self._unrecorded():
            if not self._is_released(settled.wait) and settled.spent is not None:
                held = self.reserved(settled.wait) or Spent()
                account = account._replace(spent=account.spent + settled.spent, reserved=account.reserved - held)
                account = account.raised(settled.raised or Spent())
        return account

    def _unrecorded(self) -> list[Settled | Accounted]:
        return [*self._cell.waits.settling, *self._accounts.values()]

    def _wait(self, wait: int) -> WaitState | None:
        return self._cell.state.waits[wait] if self._cell.waits.is_recorded(wait) else None

    def _is_reserved(self, wait: int) -> bool:
        recorded = self._wait(wait)
        return recorded is not None and (recorded.reserved is not None or recorded.settled is not None)

    def _is_released(self, wait: int) -> bool:
        recorded = self._wait(wait)
        return recorded is not None and recorded.released

    def reserved(self, wait: int) -> Spent | None:
        """What a wait may use; None as long as it has no reservation."""
        recorded = self._wait(wait)
        claimed = self._claims.get(wait)
        if recorded and wait in self._used_up and recorded.admitted <= self._cell.known:
            return claimed[0] if claimed else None
        return recorded.reserved if recorded and recorded.reserved is not None else claimed[0] if claimed else None

    # Before something begins

    async def claim(self, wait: int, plan: Plan | None) -> None:
        """Reserve for a wait that is about to be opened, if that fits. Those that are opened at the same moment and
        want all that is left share it equally."""
        if self.limit is None or plan is None:
            return
        self._sharing.append((wait, plan))
        if plan.claim.rest:
            await asyncio.sleep(0)
        sharing = [one for one in self._sharing if not self._cell.waits.is_settled(one[0])]
        self._sharing = []
        exact = [(wait, plan) for wait, plan in sharing if not plan.claim.rest]
        rest = [(wait, plan) for wait, plan in sharing if plan.claim.rest]
        for wait, plan in exact:
            self._reserve(wait, plan.claim.offer(self.account()))
        before = self.account()
        for place, (wait, plan) in enumerate(rest):
            amount = plan.claim.offer(before, len(rest), place)
            if amount is not None and not self.account().lacking(amount):
                self._reserve(wait, amount)

    def _reserve(self, wait: int, amount: Spent | None) -> None:
        if amount is not None and self._cell.waits.reserve(wait, amount):
            self._claims[wait] = (amount, Spent())

    async def admitted(self, wait: int, plan: Plan | None) -> Settled | None:
        """Wait until there is enough of the budget for a wait; its outcome if there will not be."""
        if self.limit is None or plan is None:
            return None
        await self._crashed(wait, plan)
        if self._cell.state.waits[wait].reserved is None:
            await self._cell.work.durably(self._enough(wait, plan))
        while self._ending:
            await self._cell.moved()
        if settled := self._cell.waits.settled(wait):
            return settled
        self._begun[wait] = plan
        return None

    @contextlib.contextmanager
    def ends(self) -> Iterator[None]:
        """Nothing begins while the task's end is on its way to the log: it would not be counted."""
        self._ending = True
        try:
            yield
        except BaseException:
            self._ending = False
            self._cell.stir()
            raise

    def is_admitted(self, wait: int) -> bool:
        """Whether a wait has its reservation, recorded or about to be."""
        return self.reserved(wait) is not None

    async def _crashed(self, wait: int, plan: Plan) -> None:
        """Charge what an attempt may have cost that a crash left without an outcome."""
        cell, opened = self._cell, self._cell.state.waits[wait]
        dear = opened.reserved and (opened.reserved.tokens or opened.reserved.money)
        if opened.kind == "step" and plan.used and dear and max(opened.revision, opened.admitted) <= cell.known:
            assert opened.reserved is not None
            self._used_up.add(wait)
            lost = Attempted(wait, opened.attempts, opened.failure, next=opened.next, spent=opened.reserved)
            await cell.waits.flush(lost)

    async def _enough(self, wait: int, plan: Plan) -> None:
        cell = self._cell
        while cell.state.waits[wait].reserved is None and not cell.waits.is_settled(wait):
            account = self.account()
            claim = plan.claim.definite(account)
            if wait in self._claims:
                await cell.moved()
            elif (amount := claim.offer(account)) is not None:
                self._claims[wait] = (amount, Spent())
                await cell.waits.flush(Freed(wait, reserved=amount))
            elif account.limit.on_exhausted == "fail" and not self._comes_back(claim, account):
                message = f"the budget of task {cell.id} does not allow it: {claim.reason(plan.what, account)}"
                cell.waits.settle(Settled(wait, failure=Failure(REFUSED, message), attempts=0))
            elif (held := cell.state.waits[wait].asked) is None or held.needs is None:
                await cell.waits.flush(_held(wait, plan.what, claim, account))
            else:
                await cell.moved()

    @staticmethod
    def _comes_back(claim: Claim, account: Account) -> bool:
        """Whether it would fit if nothing that is reserved were used."""
        return claim.offer(account._replace(reserved=Spent())) is not None

    def approved(self, wait: int, person: str, stated: Stated) -> None:
        """A person raises the budget by what a held wait lacks, but no further than they were shown; where that is not
        enough any more, the wait is held again, for them to be shown what it lacks now."""
        cell, account = self._cell, self.account()
        held = cell.state.waits[wait].asked
        assert held is not None
        claim = Claim(held.needs or Spent(), held.rest)
        more = account.lacking(claim.needs)
        if more.beyond(held.more or Spent()):
            cell.waits.note(_held(wait, held.reason.partition(" needs ")[0], claim, account))
            return
        raised = account.raised(more)
        rest = {unit: getattr(raised.with_more(claim.needs).left, unit) for unit in claim.rest}
        amount = claim.needs + Spent(**rest)
        if more:
            cell.waits.note(Raised(more, person))
        self._claims[wait] = (amount, more)
        cell.waits.note(Freed(wait, person, stated.statement, stated.signature, amount))

    # After it has ended

    def attempted(self, wait: int, failure: Failure) -> None:
        """An attempt failed, and another one follows under the same reservation."""
        if self._begun.get(wait) and self._begun[wait].used and failure.kind not in FREE:
            used = msgspec.structs.replace(self.reserved(wait) or Spent(), calls=0)
            self._lost[wait] = self._lost.get(wait, Spent()) + used

    def charged(self, settled: Settled) -> Settled:
        """An outcome, with what it used; a child's says itself what that was."""
        wait = settled.wait
        if self.limit is None:
            return msgspec.structs.replace(settled, raised=None)
        if wait in self._accounts or self._is_released(wait):
            return msgspec.structs.replace(settled, spent=None, raised=None)
        plan, reserved = self._begun.get(wait), self.reserved(wait)
        if plan is None or reserved is None:
            return settled
        if self._cell.state.waits[wait].kind == "child":
            spent = settled.spent or Spent()
            over = spent.beyond(reserved).at_most(settled.raised or Spent())
            return msgspec.structs.replace(settled, spent=spent, raised=over or None)
        spent = (plan.used(settled) if plan.used else reserved) + self._lost.pop(wait, Spent())
        return msgspec.structs.replace(settled, spent=spent)

    def stopped(self, wait: int, failure: Failure) -> Settled:
        """The outcome of a wait that is not awaited any more, whatever it would have come to."""
        if self.limit is None or self.reserved(wait) is None:
            return Settled(wait, failure=failure)
        if not self._may_have_begun(wait):
            return Settled(wait, failure=failure, spent=Spent())
        child = self._cell.state.waits[wait].kind == "child"
        return Settled(wait, failure=failure, spent=None if child else self._most(wait))

    def _may_have_begun(self, wait: int) -> bool:
        recorded = self._wait(wait)
        if wait in self._begun or recorded is None or recorded.reserved is None:
            return wait in self._begun
        return max(recorded.revision, recorded.admitted) <= self._cell.known

    def owed(self) -> list[int]:
        """The waits that have something reserved, and for which nothing is settled yet."""
        state = self._cell.state
        open_ = [n for n in sorted(state.open | state.owed) if state.waits[n].reserved is not None]
        known = {settled.wait for settled in self._cell.waits.settling if settled.spent is not None}
        return [n for n in open_ if not (state.waits[n].released or n in known or n in self._accounts)]

    def children(self) -> list[int]:
        """Those of them that are children, which end with the task."""
        waits = self._cell.state.waits
        return [n for n in self.owed() if waits[n].kind == "child" and waits[n].terms != DETACHED]

    def go_on(self) -> None:
        """See to the children that an earlier run has left to be accounted for."""
        for wait in sorted(self._cell.state.owed):
            self._cell.serve(self.settle_up(wait))

    async def settle_up(self, wait: int) -> None:
        """Stop a child that nobody awaits any more, and take back what it did not use."""
        cell = self._cell
        await cell.waits.flush()
        opened = cell.state.waits[wait]
        child, why = cell.child(wait), f"its parent {cell.id} does not await it any more"
        if not self._may_have_begun(wait):
            self._account(Accounted(wait, Spent()))
        while wait in self.owed():
            try:
                await cell.host.bury(child, self._nothing(wait, opened), cell.id, why, cause_of(cell.stream, opened))
                async with asyncio.timeout(AGAIN):
                    ended = await cell.host.outcome(child, wait)
            except TimeoutError:
                continue
            except (EventStoreError, CallError):
                await asyncio.sleep(AGAIN)
                continue
            spent = ended.spent or Spent()
            over = spent.beyond(opened.reserved or Spent()).at_most(ended.raised or Spent())
            self._account(Accounted(wait, spent, over or None))

    def _nothing(self, wait: int, opened: WaitState) -> Requested:
        """The request of a child that is not to do anything, should it not be on the log yet."""
        state = self._cell.state
        budget = (state.budget or Budget()).none()
        return Requested(opened.name, opened.input, parent=Parent(self._cell.id, wait), by=state.by, budget=budget)

    def _account(self, accounted: Accounted) -> None:
        if accounted.wait in self.owed():
            self._accounts[accounted.wait] = accounted
            self._cell.waits.note(accounted)

    async def closed(self) -> None:
        """Nothing begins any more; when this returns, all children are accounted for that end with the task."""
        self._cell.waits.close()
        self._ending = True
        if self.limit is not None:
            await self._cell.waits.flush()
            await asyncio.gather(*(self.settle_up(wait) for wait in self.children()))

    def leftovers(self) -> list[Accounted]:
        """What is unknown when the task ends: steps that were under way, and detached children."""
        if self.limit is None:
            return []
        self.account()  # forgets the claims that are recorded
        settling = {settled.wait for settled in self._cell.waits.settling if settled.spent is not None}
        owed = sorted({*self.owed(), *(wait for wait in self._claims if wait not in settling)})
        return [Accounted(n, self._most(n) if self._may_have_begun(n) else Spent()) for n in owed]

    def _most(self, wait: int) -> Spent:
        recorded = self._wait(wait)
        reserved = recorded.reserved if recorded and recorded.reserved is not None else self.reserved(wait)
        return (reserved or Spent()) + self._lost.get(wait, Spent())

    def ending(self, ended: Ended) -> Callable[[], list[Any]]:
        """The task's last events, with what it used; called when all that goes before is known."""

        def events() -> list[Any]:
            if self.limit is None:
                return [ended]
            left, account, state = self.leftovers(), self.account(), self._cell.state
            spent = sum((one.spent for one in left), account.spent)
            if account.limit.seconds is not None:
                spent = msgspec.structs.replace(spent, seconds=max(self._elapsed(), spent.seconds))
            raised = state.raised + sum((more for _, more in self._claims.values()), Spent())
            over = [one.raised for one in self._unrecorded() if one.raised and not self._is_released(one.wait)]
            raised += sum(over, Spent())
            return [*left, msgspec.structs.replace(ended, spent=spent, raised=raised or None)]

        return events

    def _elapsed(self) -> Decimal:
        """Seconds since the task was asked for, but no more than it was given: then nothing is done any more."""
        state = self._cell.state
        elapsed = Decimal(max(0, self._cell.now() - state.requested_at)) / 1_000_000
        return min(elapsed, Decimal(str(state.within))) if state.within else elapsed

    # What is asked for

    def step(self, name: str) -> Plan:
        """A step: one call, or what was reserved for it."""
        reservation = reservation_of_next()
        if reservation is None or reservation.taken or reservation.spending is not self:
            return Plan(name, Claim(CALL))
        reservation.taken = True
        return Plan(name, Claim(reservation.most), reservation.used)

    def child(self, name: str, share: Budget | None, within: float) -> Plan | None:
        """A child: its share, and all that is left of the units that it does not say."""
        if self.limit is None:
            return None
        said: dict[str, Any] = {unit: getattr(share, unit) for unit in (share.units if share else ())}
        if within and "seconds" not in said:
            said["seconds"] = Decimal(str(within))
        needs = Spent(**{unit: amount for unit, amount in said.items() if unit in self.limit.units})
        return Plan(name, Claim(needs, tuple(unit for unit in self.limit.units if unit not in said)))

    def given(self, wait: int, share: Budget | None, within: float) -> tuple[Budget | None, float]:
        """What a child may use, and the seconds that it has."""
        budget = share
        if self.limit is not None:
            reserved = self.reserved(wait) or Spent()
            granted = {unit: getattr(reserved, unit) for unit in self.limit.units}
            how = (share.on_exhausted if share else "") or self.limit.on_exhausted
            budget = msgspec.structs.replace(share or Budget(), **granted, on_exhausted=how)
        return budget, bounded(budget, within)


def _held(wait: int, what: str, claim: Claim, account: Account) -> Held:
    reason = claim.reason(what, account)
    return Held(wait, reason, claim.needs, claim.rest, account.lacking(claim.needs))
