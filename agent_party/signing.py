"""What a person signs of a task: made from what the task shows, and checked by the owner's rule before it is signed."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from .actors.activation import load
from .actors.approvals import Moment, Terms, Verdict, answer_misfit, approvals_in, covered, full_answer, judge, terms_of
from .actors.errors import InputError, SettledError, StatementError
from .actors.events import Signed, Stated
from .actors.forms import as_answer, described, resolved
from .actors.packing import pack_input
from .actors.statements import Decision, Statement, decoded, person_of, read, sign
from .actors.task_state import TASK, TaskState, WaitState

if TYPE_CHECKING:
    from .party import Party

NO_ANSWER: Any = msgspec.UNSET


def open_approval(task: str, state: TaskState, name: str, wait: int | None = None) -> int:
    """The number of the open approval of this name, or of this number, or the only one; else `SettledError`."""
    found = [n for n in sorted(state.open) if state.waits[n].asks_a_person]
    if wait is not None and wait in found:
        return wait
    if wait is not None:
        raise SettledError(f"wait {wait} of task {task} ({state.status}) is no open approval, or not any more")
    named = [n for n in found if name in ("", state.waits[n].name)]
    if len(named) != 1 and not (name and named):
        waits = ", ".join(repr(state.waits[n].name) for n in found) or "none"
        which = f"no open approval {name!r}" if name else "not exactly one open approval"
        raise SettledError(f"task {task} ({state.status}) has {which}; open: {waits}")
    return named[0]


def still(task: str, wait: WaitState, shown: WaitState | None) -> WaitState:
    """The wait, if it is the one that the person was shown; else `SettledError`."""
    seen = shown or wait
    if (seen.opened, seen.name, seen.shown, seen.terms) != (wait.opened, wait.name, wait.shown, wait.terms):
        raise SettledError(f"what task {task} showed as {seen.name!r} is not open any more: look at it again")
    return wait


async def statement_about(
    party: "Party", task: str, wait: WaitState, number: int, decision: Decision, person: str, **more: Any
) -> Stated:
    """A person's signed decision. Raises `StatementError` where it would not count, and `InputError` for an answer
    that does not fit; nothing is signed then. ``more``: ``note``, ``answer``, ``to``.

    It may count only together with what others have left and the task has not read yet: that is looked at too.
    """
    log, terms = party.stack.log, terms_of(wait)
    given, moment = more.pop("answer", NO_ANSWER), Moment(log.ambient.now(), log.ambient.now())
    statement = Statement(
        log=log.identity.log_id,
        task=task,
        wait=number,
        opened=wait.opened,
        name=wait.name,
        shown=wait.shown,
        decision=decision,
        person=person,
        key=_key_of(party, person),
        time=moment.now,
        terms=covered(wait),
        **more,
    )
    roles = await party.doorman.roles() if terms.roles else {}
    apart = _key_of(party, terms.apart)

    def check(statement: Statement, signed: tuple[Signed, ...], at: Moment) -> Verdict:
        return judge(statement, terms, signed, roles, at, escalated=wait.escalated, requesters_key=apart)

    def checked(signed: tuple[Signed, ...]) -> Statement:
        # Whether they may decide at all comes first: nobody is asked for an answer that would not count.
        check(msgspec.structs.replace(statement, decision="reject"), signed, moment)
        full = msgspec.structs.replace(statement, answer=_answer(wait.name, terms, decision, given, signed))
        check(full, signed, moment)
        return full

    try:
        statement = checked(wait.signed)
    except (StatementError, InputError):
        if (also := await _with_those_left(party, statement, wait, check)) == wait.signed:
            raise
        statement = checked(also)
    key = party.doorman.person(person)[1]  # made only now, for whom it is of use
    return sign(msgspec.structs.replace(statement, key=key.public), key)


def statement_on(party: "Party", task: str, decision: Decision, person: str, note: str) -> Stated:
    """A person's signed word about the task as a whole: to cancel, pause or resume it."""
    log, (_, key) = party.stack.log, party.doorman.person(person)
    about = Statement(
        log.identity.log_id, task, -1, b"", "", b"", decision, person, key.public, log.ambient.now(), note
    )
    return sign(about, key)


def answered_so_far(signed: tuple[Signed, ...]) -> Any:
    """The answer that those who approved so far have given; `NO_ANSWER` if nobody has."""
    approvals = approvals_in(signed)
    return msgspec.msgpack.decode(decoded(approvals[0].statement).answer) if approvals else NO_ANSWER


async def _with_those_left(
    party: "Party", about: Statement, wait: WaitState, check: Callable[[Statement, tuple[Signed, ...], Moment], Verdict]
) -> tuple[Signed, ...]:
    """What has been signed, with what lies in the task's inbox, is not read yet and will count."""
    log, stream = party.stack.log, f"task/{about.task}"
    await log.refresh()
    state = (await load(log, TASK, stream, snapshots=party.stack.snapshots)).state
    now = state.waits[about.wait] if about.wait < len(state.waits) else wait
    signed = now.signed if now.opened == wait.opened else wait.signed
    async for commit in log.read(f"inbox/{stream}", state.inbox + 1, lenient=True):
        for event in commit.events:
            try:
                if not isinstance(event, Stated):
                    continue
                found = read(event, about.log, about.task, party.doorman.person_key(person_of(event)))
                shown = (found.wait, found.opened, found.name, found.shown, found.terms)
                if shown == (about.wait, about.opened, about.name, about.shown, about.terms):
                    verdict = check(found, signed, Moment(about.time, commit.time))
                    if verdict.outcome == "open":
                        one = Signed(
                            about.wait, found.person, event.statement, event.signature, found.to, verdict.seats
                        )
                        signed = (*signed, one)
            except StatementError:
                continue
    return signed


def _answer(name: str, terms: Terms, decision: Decision, given: Any, signed: tuple[Signed, ...]) -> bytes:
    """The answer, packed. Who gives none where others have answered, confirms what they did."""
    if decision != "approve":
        return b""
    if terms.form is None:
        if given is not NO_ANSWER:
            raise InputError(f"approval {name!r} asks for no answer: leave it out")
        return b""
    value = answered_so_far(signed) if given is NO_ANSWER else as_answer(given)
    if value is NO_ANSWER:
        raise InputError(f"approval {name!r} asks for an answer: {'; '.join(fields_of(terms.form))}")
    packed = pack_input(value, f"the answer to {name}")
    if wrong := answer_misfit(packed, terms):
        raise InputError(f"the answer to {name!r} does not fit its form: {wrong}")
    return pack_input(full_answer(packed, terms), f"the answer to {name}")  # nothing is signed by leaving it out


def fields_of(form: dict[str, Any]) -> list[str]:
    """What a form asks for, in words: one line a field."""
    whole = resolved(form, form)
    found = whole.get("properties")
    if not found:
        return [described(form, form)]
    required = whole.get("required", [])
    optional = {name: "" if name in required else f", {_default(part)}" for name, part in found.items()}
    return [f"{name}: {described(part, form)}{optional[name]}" for name, part in found.items()]


def _default(part: dict[str, Any]) -> str:
    return f"{part['default']!r} if left out" if "default" in part else "may be left out"


def _key_of(party: "Party", person: str) -> bytes:
    try:
        return party.doorman.person_key(person) if person else b""
    except StatementError:
        return b""
