"""People's decisions on one live task: opening approvals, their timers, and judging what people have signed."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from .agent import Agent, Capability
from .approvals import (
    Moment,
    Rules,
    Terms,
    agreed,
    covered,
    judge,
    pack_terms,
    terms_of,
    unknown_role,
)
from .errors import (
    BudgetError,
    ConfigurationError,
    InputError,
    RejectedError,
    ReplayError,
    SettledError,
    StatementError,
)
from .events import Escalated, Failure, Freed, Refused, Settled, Signed, Stated
from .forms import typed
from .packing import failure_of, pack_input
from .people import Roles
from .statements import Approval, Statement, decoded
from .task_state import WaitState

if TYPE_CHECKING:
    from .cell import TaskCell
    from .task import Task

_REASON = 1_000


class Decisions:
    """``forms``: the types of the answers that the handler of this run waits for, by wait."""

    def __init__(self, cell: "TaskCell") -> None:
        self._cell = cell
        self.forms: dict[int, Any] = {}
        self._signed: dict[tuple[int, bytes], tuple[Signed, ...]] = {}
        self._escalated: set[tuple[int, bytes]] = set()
        self._roles: Roles = {}

    # Asking

    async def start(self, task: "Task", agent: Agent, capability: Capability, given: Any) -> None:
        """Ask before the task begins, if its agent's rule says so; on replay, if that is what was recorded."""
        cell = self._cell
        first = cell.waits.peek()
        if first is not None:
            rules: Rules | None = {"by": terms_of(first).by} if terms_of(first).start else None
        else:
            rules = None if cell.state.begun else start_rules(agent)
        if rules is not None:
            show = {"capability": capability.name, "input": given}
            await self.ask(task, f"start {capability.name}", show, None, rules, start=True)

    async def ask(
        self, task: "Task", name: str, show: Any, form: Any, rules: Rules, *, start: bool = False
    ) -> Approval[Any]:
        """As `Task.approval`. Of a wait that is recorded, the recorded terms count."""
        cell = self._cell
        shown = pack_input(show, f"what {name} shows")
        terms = agreed(name, rules, form, cell.now(), cell.state.by)
        terms = msgspec.structs.replace(terms, start=start)

        async def run(number: int, opened: WaitState) -> Settled:
            self.forms[number] = form
            cell.stir()
            return await cell.work.durably(self._decided(number, opened))

        settled = await task.wait_for("approval", name, shown, run, terms=pack_terms(terms), due=terms.due)
        if settled.failure:
            error = ConfigurationError if settled.failure.kind == "ConfigurationError" else None
            raise error(settled.failure.message) if error else RejectedError(cell.id, settled.failure.message)
        answer = msgspec.msgpack.decode(settled.value, type=Approval[Any])
        if not answer.approved:
            reason = f": {answer.note}" if answer.note else ""
            raise RejectedError(cell.id, f"{answer.person} rejected {name!r}{reason}")
        return self._filled(answer, settled.wait, name, form)

    def _filled(self, answer: Approval[Any], wait: int, name: str, form: Any) -> Approval[Any]:
        """An approval as the handler is given it: with the answer as the form's type, and all statements."""
        own = Signed(wait, answer.person, answer.statement, answer.signature)
        values = decoded(answer.statement).answer
        try:
            value = None if form is None or not values else typed(msgspec.msgpack.decode(values), form)
        except InputError as error:
            changed = ReplayError(f"approval {name!r}, wait {wait}: {error}: the form has changed since it was signed")
            self._cell.waits.replay.error = changed  # the handler cannot go on by catching it
            raise changed from error
        return msgspec.structs.replace(answer, answer=value, signed=answer.signed or (own,))

    async def _decided(self, number: int, opened: WaitState) -> Settled:
        """What an approval comes to: by people, or by time."""
        waits, terms = self._cell.waits, terms_of(opened)
        if terms.roles and (wrong := unknown_role(opened.name, terms, await self._cell.work.roles())):
            waits.settle(Settled(number, failure=Failure("ConfigurationError", wrong)))
        if terms.escalates and not opened.escalated:
            await self._until(terms.escalates, number, lambda: self._escalate(number, opened, terms))
        if terms.expires:
            expired = Failure("RejectedError", f"approval {opened.name!r} has expired: nobody decided it in time")
            await self._until(terms.expires, number, lambda: waits.settle(Settled(number, failure=expired)))
        return await waits.answer(number)

    async def _until(self, due: int, number: int, act: Callable[[], None]) -> None:
        """Act at a time, unless the wait is decided before. What people left until then is judged first."""
        cell = self._cell
        while not cell.waits.is_settled(number) and (left := (due - cell.now()) / 1_000_000) > 0:
            try:
                async with asyncio.timeout(left):
                    await cell.waits.answer(number)
            except TimeoutError:
                continue
        if not cell.waits.is_settled(number):
            await cell.work.hear()
        if not cell.waits.is_settled(number):
            act()

    def _escalate(self, number: int, wait: WaitState, terms: Terms) -> None:
        if not wait.escalated and (number, wait.opened) not in self._escalated:
            self._escalated.add((number, wait.opened))
            self._cell.waits.note(Escalated(number, terms.expires))

    # Deciding

    def can_judge(self, stated: Stated) -> bool:
        """Whether all that is needed to judge a statement is here: the handler says of which type an answer must be,
        once it has come to that wait again. Where its code is not here, the recorded schema must do."""
        cell, wait = self._cell, self._named_by(stated)
        if wait is None or not terms_of(wait).form:
            return True
        number = decoded(stated.statement).wait
        return number in self.forms or cell.waits.is_settled(number) or cell.host.handler_for(cell.state) is None

    def _named_by(self, stated: Stated) -> WaitState | None:
        """The open wait that a statement says it is about."""
        try:
            number = decoded(stated.statement).wait
        except StatementError:
            return None
        waits = self._cell.state.waits
        return waits[number] if 0 <= number < len(waits) and waits[number].settled is None else None

    async def prepare(self, stated: Stated) -> bool:
        """Get what is needed to judge a statement, the roles as they are now; False as long as it cannot be judged."""
        if not self.can_judge(stated):
            return False
        wait = self._named_by(stated)
        if wait and terms_of(wait).roles:
            self._roles = await self._cell.host.doorman.roles()
        return True

    def decide(self, statement: Statement, stated: Stated, revision: int, left: int) -> None:
        """Judge a statement that was checked; it must be about exactly what was shown, under the terms that hold.

        ``left``: when it was left in the inbox, at ``revision``. Raises `StatementError`, `SettledError`.
        """
        cell, number = self._cell, statement.wait
        wait = self._wait(statement)
        if cell.waits.is_settled(number) or cell.state.finished:
            raise SettledError(f"wait {number} of task {cell.id} is decided already")
        terms, now = terms_of(wait), cell.now()
        if terms.escalates and now >= terms.escalates:
            self._escalate(number, wait, terms)
        before = self._signed.get((number, wait.opened), wait.signed)
        verdict = judge(
            statement,
            terms,
            before,
            self._roles,
            Moment(now, left),
            escalated=wait.escalated,
            requesters_key=self._key_of(terms.apart),
        )
        if statement.decision == "approve" and self.forms.get(number) is not None:
            self._fits(statement, self.forms[number])
        signed = Signed(
            number,
            statement.person,
            stated.statement,
            stated.signature,
            statement.to,
            verdict.seats if terms.by else (),
        )
        if verdict.outcome == "open":
            self._signed[number, wait.opened] = (*before, signed)
            cell.waits.note(signed)
            cell.waits.read_inbox(revision)
        elif wait.kind == "approval":
            approved = verdict.outcome == "approved"
            answer: Approval[Any] = Approval(
                approved,
                statement.person,
                statement.note,
                stated.statement,
                stated.signature,
                signed=(*before, signed) if before else (),
            )
            cell.waits.settle(Settled(number, msgspec.msgpack.encode(answer)), revision)
        else:
            self._held(statement, stated, wait, revision)

    def _wait(self, statement: Statement) -> WaitState:
        cell, number = self._cell, statement.wait
        wait = cell.state.waits[number] if 0 <= number < len(cell.state.waits) else None
        if wait is None or not wait.asks_a_person:
            raise StatementError(f"task {cell.id} asks for no approval at wait {number}")
        about = (statement.opened, statement.name, statement.shown, statement.terms)
        if (wait.opened, wait.name, wait.shown, covered(wait)) != about:
            raise StatementError(f"what {statement.person} signed is not what task {cell.id} shows at wait {number}")
        return wait

    def _held(self, statement: Statement, stated: Stated, wait: WaitState, revision: int) -> None:
        """A person lets a wait that was held go on, or makes it fail."""
        cell, number = self._cell, statement.wait
        budget = wait.asked is not None and wait.asked.needs is not None
        if budget and cell.spending.is_admitted(number):
            raise SettledError(
                f"wait {number} of task {cell.id} goes on already: there is enough of the budget for it now"
            )
        if statement.decision == "approve" and budget:
            cell.spending.approved(number, statement.person, stated)
            cell.waits.read_inbox(revision)
            return
        if statement.decision == "approve":
            if stated.statement in wait.freed_by:
                raise StatementError(f"this has let wait {number} of task {cell.id} go on once: sign anew")
            cell.waits.note(Freed(number, statement.person, stated.statement, stated.signature))
            cell.waits.read_inbox(revision)
            return
        answer: Approval[Any] = Approval(False, statement.person, statement.note, stated.statement, stated.signature)
        error = BudgetError if budget else StatementError
        failure = failure_of(error(f"{statement.person} refused: {statement.note or wait.held}"))
        settled = Settled(number, msgspec.msgpack.encode(answer), failure, attempts=0 if budget else 1)
        cell.waits.settle(settled, revision)

    def _key_of(self, person: str) -> bytes:
        try:
            return self._cell.host.doorman.person_key(person) if person else b""
        except StatementError:
            return b""

    @staticmethod
    def _fits(statement: Statement, form: Any) -> None:
        try:
            typed(msgspec.msgpack.decode(statement.answer), form)
        except InputError as error:
            raise StatementError(f"{statement.person}'s answer to {statement.name!r} is refused: {error}") from error

    def refused(self, stated: Stated, error: Exception, revision: int) -> None:
        """Record why a statement does not count, for whoever asks what became of it."""
        try:
            statement = decoded(stated.statement)
            wait, person = statement.wait, statement.person[:64]
        except StatementError:
            wait, person = -1, ""
        self._cell.waits.note(Refused(wait, person, str(error)[:_REASON], revision))


def start_rules(agent: Agent) -> Rules | None:
    """How a task of an agent is approved before it begins; None if it is not."""
    if agent.approval == "automatic":
        return None
    return {} if agent.approval == "person" else {"by": (agent.approval,)}
