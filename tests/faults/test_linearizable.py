"""The checker of histories: it finds what is planted, says what a search says, and is quick."""

import random
from collections.abc import Sequence
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.faults.linearizable import (
    ACKNOWLEDGED,
    CONFLICT,
    ENDED,
    REFUSED,
    UNKNOWN,
    Append,
    Entry,
    Operation,
    Read,
    Resolved,
    Take,
    check,
)

LOG = [
    Entry("grant", "g"),
    *(Entry("data", name, "g") for name in "abcd"),
    Entry("grant", "h"),
    Entry("data", "e", "h"),
]
GOOD: list[Operation] = [
    Take(0, 1, "g"),
    Append(2, 3, "g", 0, "a", ACKNOWLEDGED, 1),
    Append(2, 4, "g", 0, "x", CONFLICT, 1),
    Append(4, 5, "g", 1, "b", UNKNOWN),
    Append(6, 8, "g", 1, "y", CONFLICT, 2),
    Resolved(8, 9, "b", stands=True),
    Read(8, 9, 1, ("a", "b")),
    Append(10, 12, "g", 2, "c", ACKNOWLEDGED, 3),
    Append(10, inf, "g", 2, "z", UNKNOWN),
    Append(12, 13, "g", 3, "d", ACKNOWLEDGED, 4),
    Resolved(13, 14, "z", stands=False),
    Take(14, 15, "", UNKNOWN),
    Append(15, 17, "g", 4, "w", ENDED),
    Append(18, 19, "h", 4, "e", ACKNOWLEDGED, 5),
    Append(18, 19, "h", 4, "v", REFUSED),
    Read(20, 21, 4, ("d", "e")),
]


def test_a_good_history_holds() -> None:
    assert check(LOG, GOOD, over=True) == []


def changed(old: Operation, *new: Operation) -> list[Operation]:
    """The good history with one operation exchanged."""
    at = GOOD.index(old)
    return [*GOOD[:at], *new, *GOOD[at + 1 :]]


PLANTED: dict[str, tuple[str, Sequence[Entry], list[Operation]]] = {
    "a lost acknowledged append": ("lost", LOG[:-1], GOOD),
    "a lost grant": ("lost", [Entry("grant", "G"), *LOG[1:]], GOOD),
    "a duplicate": ("duplicate", [*LOG, Entry("data", "e", "h")], GOOD),
    "a commit that nobody sent": ("phantom", [*LOG, Entry("data", "q", "h")], GOOD),
    "a grant that nobody asked for": ("phantom", [*LOG, Entry("grant", "i")], GOOD),
    "a commit under an ended grant": ("phantom", [*LOG[:-1], Entry("data", "e", "g")], GOOD),
    "a stale read": ("stale read", LOG, changed(GOOD[15], Read(20, 21, 4, ("d",)))),
    "a read of what was never there": ("wrong read", LOG, changed(GOOD[6], Read(8, 9, 1, ("a", "x")))),
    "a read of what came later": ("stale read", LOG, changed(GOOD[6], Read(8, 9, 1, ("a", "b", "c")))),
    "a conflict though nobody else wrote": (
        "false conflict",
        LOG,
        changed(GOOD[2], Append(1, 1, "g", 0, "x", CONFLICT, 1)),
    ),
    "a conflict with what came later": (
        "false conflict",
        LOG,
        changed(GOOD[4], Append(6, 8, "g", 1, "y", CONFLICT, 3)),
    ),
    "a conflict with nothing": ("false conflict", LOG, changed(GOOD[4], Append(6, 8, "g", 1, "y", CONFLICT, 1))),
    "a conflict with an old state": ("false conflict", LOG, changed(GOOD[4], Append(10, 11, "g", 4, "y", CONFLICT, 1))),
    "a conflict, and it stands": ("denied", LOG, changed(GOOD[1], Append(2, 3, "g", 0, "a", CONFLICT, 1))),
    "a refusal, and it stands": ("denied", LOG, changed(GOOD[3], Append(4, 5, "g", 1, "b", REFUSED))),
    "acknowledged at another revision": (
        "wrong revision",
        LOG,
        changed(GOOD[1], Append(2, 3, "g", 0, "a", ACKNOWLEDGED, 2)),
    ),
    "two at one revision": (
        "two at one revision",
        LOG,
        [*GOOD, Append(2, 3, "g", 0, "x2", ACKNOWLEDGED, 1)],
    ),
    "real time turned round": (
        "order",
        LOG,
        changed(GOOD[9], Append(9, 9.5, "g", 3, "d", ACKNOWLEDGED, 4)),
    ),
    "a grant ended that is in force": ("false ending", LOG, changed(GOOD[14], Append(18, 19, "h", 4, "v", ENDED))),
    "a grant ended too early": ("false ending", LOG, changed(GOOD[12], Append(7, 8, "g", 4, "w", ENDED))),
    "an unknown resolved both ways": ("contradiction", LOG, [*GOOD, Resolved(13, 14, "b", stands=False)]),
    "an unknown said to stand that does not": ("contradiction", LOG, [*GOOD, Resolved(13, 14, "z", stands=True)]),
    "an unknown given up too early": (
        "false resolution",
        LOG,
        changed(GOOD[10], Resolved(9.5, 9.9, "z", stands=False)),
    ),
    "an unknown given up for nothing": (
        "false resolution",
        LOG,
        [*GOOD, Append(20, 21, "h", 5, "u", UNKNOWN), Resolved(21, 22, "u", stands=False)],
    ),
    "an unknown for ever": ("unresolved", LOG, [*GOOD, Append(20, inf, "h", 5, "u", UNKNOWN)]),
}


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_is_found(name: str) -> None:
    kind, log, history = PLANTED[name]
    assert kind in {violation.kind for violation in check(log, history, over=True)}


def possible(log: Sequence[Entry], operations: Sequence[Operation]) -> bool:
    """The search: any order that respects real time, and that the model of a stream allows, to just this log."""

    def search(left: tuple[Operation, ...], state: tuple[Entry, ...]) -> bool:
        if not [op for op in left if not _optional(op)] and state == tuple(log):
            return True
        for number, op in enumerate(left):
            rest = left[:number] + left[number + 1 :]
            if any(other.answer < op.call for other in rest):
                continue
            if _optional(op) and search(rest, state):
                return True
            for after in _applied(op, state, log, operations):
                if after == tuple(log[: len(after)]) and search(rest, after):
                    return True
        return False

    return search(tuple(_endless(op) for op in operations), ())


def _optional(op: Operation) -> bool:
    return isinstance(op, (Append, Take)) and op.outcome == UNKNOWN


def _endless(op: Operation) -> Operation:
    """What nobody was told of may happen at any later time."""
    return op._replace(answer=inf) if isinstance(op, (Append, Take)) and op.outcome == UNKNOWN else op


def _applied(
    op: Operation, state: tuple[Entry, ...], log: Sequence[Entry], operations: Sequence[Operation]
) -> list[tuple[Entry, ...]]:
    """The states after an operation, if the model allows its outcome on this one."""
    data = [entry.id for entry in state if entry.kind == "data"]
    grants = [entry.id for entry in state if entry.kind == "grant"]
    held, revision = grants[-1] if grants else "", len(data)
    if isinstance(op, Take):
        named = {other.id for other in operations if isinstance(other, Take) and other.id}
        names = [op.id] if op.id else [e.id for e in log if e.kind == "grant" and e.id not in named]
        return [(*state, Entry("grant", name)) for name in names if name not in grants]
    if isinstance(op, Read):
        holds = revision == op.first - 1 + len(op.ids) and tuple(data[op.first - 1 :]) == op.ids
    elif isinstance(op, Resolved):
        asked = next(other for other in operations if isinstance(other, Append) and other.id == op.id)
        over = revision > asked.expected or (asked.grant in grants and asked.grant != held)
        holds = op.id in data if op.stands else op.id not in data and over
    elif op.outcome in (ACKNOWLEDGED, UNKNOWN):
        fits = op.grant == held and op.expected == revision and op.id not in data
        fits = fits and (op.outcome == UNKNOWN or op.revision == revision + 1)
        return [(*state, Entry("data", op.id, held))] if fits else []
    elif op.outcome == CONFLICT:
        holds = op.grant == held and op.revision == revision != op.expected
    else:
        holds = op.outcome == REFUSED or (op.grant in grants and op.grant != held)
    return [state] if holds else []


def random_history(order: random.Random) -> tuple[list[Entry], list[Operation]]:
    """A history that happened, a moment for each operation; and often something in it is not true."""
    log, history = [Entry("grant", "g0")], list[Operation]([Take(0, 0, "g0")])
    data = list[str]()
    moments = sorted(order.randrange(1, 12) for _ in range(order.randint(2, 7)))
    for number, moment in enumerate(moments):
        call, answer = moment - order.choice([0, 0.5, 1, 4]), moment + order.choice([0, 0.5, 1, 4])
        grants = [entry.id for entry in log if entry.kind == "grant"]
        what = order.choice(["append"] * 4 + ["read", "read", "take", "take", "resolve", "resolve"])
        unknown = order.random() < 0.4
        if what == "append":
            grant = order.choice(grants)
            expected = order.choice([len(data), len(data), max(0, len(data) - 1), len(data) + 1])
            history.append(_appended(log, data, f"d{number}", call, answer, grant, expected, unknown=unknown))
        elif what == "take":
            log.append(Entry("grant", f"g{number}"))
            history.append(Take(call, answer, *(("", UNKNOWN) if unknown else (f"g{number}",))))
        elif what == "read":
            history.append(Read(call, answer, (first := order.randint(1, len(data) + 1)), tuple(data[first - 1 :])))
        elif unknowns := [op for op in history if isinstance(op, Append) and op.outcome == UNKNOWN]:
            asked = order.choice(unknowns)
            history.append(Resolved(call, answer, asked.id, asked.id in data))
    return _spoilt(order, log, history) if order.random() < 0.6 else (log, history)


def _appended(
    log: list[Entry],
    data: list[str],
    name: str,
    call: float,
    answer: float,
    grant: str,
    expected: int,
    *,
    unknown: bool,
) -> Operation:
    held = [entry.id for entry in log if entry.kind == "grant"][-1]
    if grant == held and expected == len(data):
        data.append(name)
        log.append(Entry("data", name, grant))
        told = (UNKNOWN, 0) if unknown else (ACKNOWLEDGED, expected + 1)
    else:
        told = (UNKNOWN, 0) if unknown else (ENDED, 0) if grant != held else (CONFLICT, len(data))
    return Append(call, answer, grant, expected, name, *told)


def _spoilt(order: random.Random, log: list[Entry], history: list[Operation]) -> tuple[list[Entry], list[Operation]]:
    at = order.randrange(1, len(history)) if len(history) > 1 else 0
    op = history[at]
    match order.choice(["move", "move", "move", "outcome", "revision", "log", "answer"]):
        case "move":
            by = order.choice([-6, -3, -1, 1, 3, 6])
            history[at] = op._replace(call=op.call + by, answer=op.answer + by)
        case "outcome" if isinstance(op, Append):
            history[at] = op._replace(outcome=order.choice([ACKNOWLEDGED, CONFLICT, ENDED, REFUSED, UNKNOWN]))
        case "revision" if isinstance(op, Append):
            history[at] = op._replace(revision=op.revision + order.choice([-1, 1]))
        case "log":
            one, two = order.randrange(len(log)), order.randrange(len(log))
            log[one], log[two] = log[two], log[one]
        case "answer" if isinstance(op, Resolved):
            history[at] = op._replace(stands=not op.stands)
    return log, history


@settings(max_examples=6_000, deadline=None, derandomize=True, database=None)
@given(st.integers(0, 2**48))
def test_it_says_what_the_search_says(seed: int) -> None:
    log, history = random_history(random.Random(seed))
    assert (check(log, history) == []) == possible(log, history), (log, history)


def test_both_answers_are_common_among_the_histories() -> None:
    answers = [check(*random_history(random.Random(seed))) == [] for seed in range(400)]
    assert 100 < sum(answers) < 300


def test_two_hundred_thousand_appends() -> None:
    log, history = [Entry("grant", "g")], list[Operation]([Take(0, 0, "g")])
    for number in range(200_000):
        log.append(Entry("data", str(number), "g"))
        history.append(Append(number, number + 2.5, "g", number, str(number), ACKNOWLEDGED, number + 1))
        if number % 4 == 0:
            history.append(Append(number + 1.5, number + 2, "g", number, f"c{number}", CONFLICT, number + 1))
    assert check(log, history, over=True) == []
    history[150_000] = history[150_000]._replace(call=-2, answer=-1)
    assert [violation.kind for violation in check(log, history, over=True)] == ["order"]
