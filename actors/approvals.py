"""Who must decide an approval and how: its terms, and the pure rule by which each statement is judged.

The same rule is asked twice: by the signer, before anything is signed, and by the task's owner, whose answer counts.

- Somebody may decide if they are named, have a role that is named, or were handed the decision by somebody who may,
  at the moment when their statement is judged; and once it is escalated also those who stand behind.
- ``need`` approvals are needed, of different people with different keys, all with the same answer; with "all", one for
  each that is named. What was judged once stays: a role that is withdrawn later does not take a signature back.
- One rejection rejects, also by somebody who had approved before.
- Who hands the decision on may not decide any more, and can name nobody who may decide already.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypedDict

import msgspec

from .errors import ConfigurationError, StatementError
from .events import Signed
from .forms import completed, misfit, schema_of
from .packing import pack_input
from .people import NAME, Roles, those_with
from .statements import Statement, decoded
from .task_state import WaitState

ROLE = "role:"
LONGEST = 100 * 365 * 86_400
"""Seconds that an approval may stay open at most, where it expires."""
NAMED = 100
"""How many people and roles one approval may name."""
Need = int | Literal["all"]


class Rules(TypedDict, total=False):
    """How `Task.approval` is to be decided.

    ``by``: ids of people and ``role:NAME``; without, everybody whose key is known may decide. ``need``: how many, or
    "all" that are named. ``apart_from_requester``: not by who asked for the task. ``expires``: seconds until it counts
    as rejected. ``escalate``: who may decide as well when ``escalate_after`` seconds have passed.
    """

    by: Sequence[str]
    need: Need
    apart_from_requester: bool
    expires: float
    escalate: Sequence[str]
    escalate_after: float


class Terms(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a statement covers beside what was shown. ``apart``: who may not decide; ``form``: JSON Schema;
    ``expires`` and ``escalates``: microseconds since 1970; ``start``: asked by the runtime before the task begins."""

    by: tuple[str, ...] = ()
    need: Need = 1
    apart: str = ""
    form: dict[str, Any] | None = None
    expires: int = 0
    escalate: tuple[str, ...] = ()
    escalates: int = 0
    start: bool = False

    @property
    def due(self) -> int:
        """When time first changes something, in microseconds since 1970; 0 if it does not."""
        return min((moment for moment in (self.escalates, self.expires) if moment), default=0)

    @property
    def roles(self) -> list[str]:
        """The roles that are named."""
        return [name.removeprefix(ROLE) for name in (*self.by, *self.escalate) if name.startswith(ROLE)]


class Moment(NamedTuple):
    """``now``: of who judges; ``left``: when the statement was left for the task. Microseconds since 1970."""

    now: int
    left: int


class Verdict(NamedTuple):
    """``open``: recorded, and more is needed. ``seats``: those named for whom the person decided."""

    outcome: Literal["open", "approved", "rejected"]
    seats: tuple[str, ...] = ()


# Terms


def agreed(name: str, rules: Rules, form: Any, now: int, requester: str) -> Terms:
    """The terms of an approval that opens now; `ConfigurationError` for those under which nobody could decide it."""
    by, escalate = _named(name, "by", rules.get("by", ())), _named(name, "escalate", rules.get("escalate", ()))
    expires, after = _seconds(name, "expires", rules), _seconds(name, "escalate_after", rules)
    apart = rules.get("apart_from_requester", False)
    if apart and not requester:
        raise ConfigurationError(f"approval {name!r} is apart from who asked for the task, which does not say who did")
    if bool(escalate) != bool(after):
        raise ConfigurationError(f"approval {name!r}: escalate= (to whom) and escalate_after= (seconds) go together")
    if escalate and not by:
        raise ConfigurationError(f"approval {name!r}: escalate= needs by=, for without it everybody may decide anyway")
    if expires and after >= expires:
        raise ConfigurationError(f"approval {name!r} expires before it is escalated: give expires= more seconds")
    return Terms(
        by=by,
        need=_needed(name, rules.get("need", 1), by, requester if apart else ""),
        apart=requester if apart else "",
        form=None if form is None else schema_of(form),
        expires=now + int(expires * 1_000_000) if expires else 0,
        escalate=escalate,
        escalates=now + int(after * 1_000_000) if after else 0,
    )


def _named(name: str, what: str, given: Sequence[str]) -> tuple[str, ...]:
    named = (given,) if isinstance(given, str) else tuple(given)
    for one in named:
        if not NAME.fullmatch(one.removeprefix(ROLE)):
            raise ConfigurationError(f"approval {name!r}: {what}= names {one!r}; name people's ids and role:NAME")
    if len(set(named)) != len(named) or len(named) > NAMED:
        raise ConfigurationError(f"approval {name!r}: {what}= must name each once, and at most {NAMED}")
    return named


def _seconds(name: str, what: Literal["expires", "escalate_after"], rules: Rules) -> float:
    given = rules.get(what)
    if given is None:
        return 0.0
    if not (math.isfinite(given) and 0 < given <= LONGEST):
        raise ConfigurationError(f"approval {name!r}: {what} must be seconds from now, more than 0, not {given}")
    return float(given)


def _needed(name: str, need: Need, by: tuple[str, ...], apart: str) -> Need:
    able = [one for one in by if one != apart]
    if need == "all":
        if not by or len(able) < len(by):
            who = f"{apart}, who asked for the task, may not decide" if by else "by= names nobody"
            raise ConfigurationError(f"approval {name!r} needs all that are named, but {who}")
        return need
    if type(need) is not int or need < 1:
        raise ConfigurationError(f"approval {name!r}: need must be 1 or more, or 'all', not {need!r}")
    if by and need > len(able) and not any(one.startswith(ROLE) for one in by):
        raise ConfigurationError(f"approval {name!r} needs {need} people, but only {', '.join(able) or 'nobody'} may")
    return need


def pack_terms(terms: Terms) -> bytes:
    """The terms as they are recorded and signed; nothing where any one person may decide at any time."""
    return b"" if terms == Terms() else msgspec.msgpack.encode(terms, order="deterministic")


def postponed(terms: bytes, microseconds: int) -> bytes:
    """Recorded terms, with so much more time: for a fork, whose people are asked anew."""
    if not terms:
        return terms
    found = msgspec.msgpack.decode(terms, type=Terms)
    expires, escalates = (at and at + microseconds for at in (found.expires, found.escalates))
    return pack_terms(msgspec.structs.replace(found, expires=expires, escalates=escalates))


def terms_of(wait: WaitState) -> Terms:
    """The terms under which a wait is decided. One that is only held has none: anybody may let it go on."""
    return msgspec.msgpack.decode(wait.terms, type=Terms) if covered(wait) else Terms()


def covered(wait: WaitState) -> bytes:
    """What of a wait's terms a statement must cover."""
    return wait.terms if wait.kind == "approval" else b""


def unknown_role(name: str, terms: Terms, roles: Roles) -> str:
    """What is wrong with the roles that the terms name; empty if nothing is."""
    unknown = next((role for role in terms.roles if role not in roles), None)
    return f"approval {name!r} cannot be decided: {those_with(unknown, roles)}" if unknown else ""


# Who may decide


def seats_of(
    person: str, terms: Terms, signed: Sequence[Signed], roles: Roles, *, escalated: bool = False
) -> tuple[str, ...]:
    """Those named for whom a person may decide; none if they may not. Where nobody is named, everybody may, for ""."""
    if terms.apart == person:
        return ()
    named = terms.by or ("",)
    givers = [one.person for one in signed if one.to]
    standing = [root for root in dict.fromkeys([person, *givers]) if _holder(root, signed) == person]
    if escalated and any(_is(root, one, roles) for root in standing for one in terms.escalate):
        return named
    return tuple(one for one in named if any(_is(root, one, roles) for root in standing))


def _holder(root: str, signed: Sequence[Signed]) -> str:
    """Who decides now what was somebody's to decide, after all that was handed on."""
    holder = root
    for one in signed:
        if one.to and one.person == holder:
            holder = one.to
    return holder


def _is(person: str, named: str, roles: Roles) -> bool:
    if named.startswith(ROLE):
        return person in roles.get(named.removeprefix(ROLE), ())
    return named in ("", person)


def approvals_in(signed: Sequence[Signed]) -> list[Signed]:
    """Those who have approved so far."""
    return [one for one in signed if not one.to]


def judge(
    statement: Statement,
    terms: Terms,
    signed: Sequence[Signed],
    roles: Roles,
    at: Moment,
    *,
    escalated: bool = False,
    requesters_key: bytes = b"",
) -> Verdict:
    """What a statement about exactly this wait leads to. Raises `StatementError`, which says why it does not count."""
    name, person = statement.name, statement.person
    if terms.expires and at.left >= terms.expires:
        raise StatementError(f"{person} is too late: approval {name!r} has expired")
    escalated = escalated or bool(terms.escalates and at.now >= terms.escalates)
    seats = seats_of(person, terms, signed, roles, escalated=escalated)
    if not seats:
        raise StatementError(f"{person} may not decide {name!r}: {_why_not(person, terms, signed, roles)}")
    if statement.decision == "reject":
        return Verdict("rejected", seats)
    if any(one.person == person for one in approvals_in(signed)):
        raise StatementError(f"{person} has signed {name!r} already: it takes another person, or a rejection")
    if statement.decision == "delegate":
        _may_hand_on(statement, terms, signed, roles, escalated)
        return Verdict("open", seats)
    if terms.apart and statement.key == requesters_key:
        raise StatementError(f"{person} signs {name!r} with the key of {terms.apart}, who asked for the task")
    _one_key_and_answer(statement, terms, approvals_in(signed))
    return _counted(name, person, terms, signed, seats)


def _counted(name: str, person: str, terms: Terms, signed: Sequence[Signed], seats: tuple[str, ...]) -> Verdict:
    before = [one.seats for one in approvals_in(signed)]
    if terms.need != "all":
        return Verdict("approved" if len(before) + 1 >= terms.need else "open", seats)
    filled = seated([*before, seats])
    if filled <= len(before):
        raise StatementError(f"{person} has nothing left to decide of {name!r}: {', '.join(seats)} has been signed for")
    return Verdict("approved" if filled == len(terms.by) else "open", seats)


def _why_not(person: str, terms: Terms, signed: Sequence[Signed], roles: Roles) -> str:
    if person == terms.apart:
        return "they asked for the task, and it is to be decided by somebody else"
    if (holder := _holder(person, signed)) != person:
        return f"they have handed it on to {holder}"
    who = " or ".join(terms.by) + (f", later {' or '.join(terms.escalate)}" if terms.escalate else "")
    named = [f"; {those_with(role, roles)}" for role in terms.roles]
    return f"{who} may{''.join(named)}"


def _may_hand_on(statement: Statement, terms: Terms, signed: Sequence[Signed], roles: Roles, escalated: bool) -> None:
    name, person, to = statement.name, statement.person, statement.to
    if not terms.by:
        raise StatementError(f"{person} cannot hand {name!r} on: everybody may decide it")
    if not NAME.fullmatch(to) or to == terms.apart:
        why = "they asked for the task, and may not decide it" if NAME.fullmatch(to) else "name one person's id"
        raise StatementError(f"{person} cannot hand {name!r} on to {to!r}: {why}")
    if seats_of(to, terms, signed, roles, escalated=escalated) or any(to == one.person for one in approvals_in(signed)):
        raise StatementError(f"{person} cannot hand {name!r} on to {to}, who may decide it already")


def _one_key_and_answer(statement: Statement, terms: Terms, approvals: Sequence[Signed]) -> None:
    person, name = statement.person, statement.name
    if wrong := answer_misfit(statement.answer, terms):
        raise StatementError(f"{person}'s answer to {name!r} does not fit its form: {wrong}")
    for one in approvals:
        earlier = decoded(one.statement)
        if earlier.key == statement.key:
            raise StatementError(f"{person} signs {name!r} with the key of {one.person}, who has signed already")
        given = full_answer(earlier.answer, terms)
        if pack_input(given, "it") != pack_input(full_answer(statement.answer, terms), "it"):  # true is not 1
            raise StatementError(f"{person} answers {name!r} otherwise than {one.person} did: {given!r}; or reject it")


def full_answer(answer: bytes, terms: Terms) -> Any:
    """An answer that fits the form, with what it leaves out; None where there is no form."""
    return None if terms.form is None else completed(msgspec.msgpack.decode(answer), terms.form, terms.form)


def answer_misfit(answer: bytes, terms: Terms) -> str:
    """What is wrong with a packed answer, by the form's schema; empty if nothing is."""
    if terms.form is None:
        return "it asks for no answer" if answer else ""
    if not answer:
        return "it lacks an answer"
    try:
        return misfit(msgspec.msgpack.decode(answer), terms.form)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return "it is not MessagePack"


def seated(choices: Sequence[Sequence[str]]) -> int:
    """How many people can be given a seat of their own, each one of those they may take: a maximum matching."""
    taken: dict[str, int] = {}
    return sum(_seat(number, choices, taken, set()) for number in range(len(choices)))


def _seat(number: int, choices: Sequence[Sequence[str]], taken: dict[str, int], tried: set[str]) -> bool:
    for seat in _untried(choices[number], tried):
        if seat not in taken or _seat(taken[seat], choices, taken, tried):
            taken[seat] = number
            return True
    return False


def _untried(seats: Sequence[str], tried: set[str]) -> Iterator[str]:
    for seat in seats:
        if seat not in tried:
            tried.add(seat)
            yield seat
