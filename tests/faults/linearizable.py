"""Whether what clients were told of a stream could have happened one thing after another (linearizability).

The model of a stream is its entries in order: grants, each of which ends the one before, and data commits. An append
under the grant in force succeeds if it expects the stream's revision; else it is refused and changes nothing.

Every operation must have had its moment between its call and its answer, in an order that the model allows. To search
for that order takes exponential time; here the stream itself says what the order was. Entry number ``i`` had its moment
``t[i]``, and those moments rise. An operation that wrote entry ``i`` bounds ``t[i]`` by its call and its answer. One
that saw the stream when it had between ``a`` and ``b`` entries began before ``t[b]`` and ended after ``t[a - 1]``.
Such moments exist if and only if no lower bound of an entry is above an upper bound of itself or a later one: one
pass. `tests/faults/test_linearizable.py` compares it with the search.

Times are any numbers of one monotonic clock for all clients. ``inf`` as an answer's time: it never came.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from math import inf
from typing import NamedTuple

ACKNOWLEDGED, CONFLICT, ENDED, REFUSED, UNKNOWN = "acknowledged", "conflict", "ended", "refused", "unknown"


class Entry(NamedTuple):
    """One accepted commit. A grant has its own id; a data commit has its command's, and ``grant``: under which."""

    kind: str
    id: str
    grant: str = ""


class Append(NamedTuple):
    """``revision``: the one acknowledged, or the one at which the stream was said to be in a conflict."""

    call: float
    answer: float
    grant: str
    expected: int
    id: str
    outcome: str
    revision: int = 0


class Take(NamedTuple):
    """A grant. Where nobody was told of it (``outcome`` unknown) its id is empty."""

    call: float
    answer: float
    id: str
    outcome: str = ACKNOWLEDGED


class Read(NamedTuple):
    """Commit ids from revision ``first`` on; the last of them was the stream's last one."""

    call: float
    answer: float
    first: int
    ids: tuple[str, ...]


class Resolved(NamedTuple):
    """What a client found out about an append whose answer was unknown: it stands, or can never stand."""

    call: float
    answer: float
    id: str
    stands: bool


Operation = Append | Take | Read | Resolved


class Violation(NamedTuple):
    """``kind``: lost, duplicate, phantom, two at one revision, wrong revision, denied, contradiction, unresolved, wrong
    read, or whose moment cannot be: order (of appends), stale read, false conflict, false ending, false resolution."""

    kind: str
    what: str


class _Bound(NamedTuple):
    at: float
    kind: str
    what: object


def check(log: Sequence[Entry], operations: Iterable[Operation], *, over: bool = False) -> list[Violation]:
    """What is wrong with a stream's history. ``over``: nothing is on its way any more, so nothing may be unresolved."""
    return _Check(log, list(operations)).violations(over=over)


class _Check:
    def __init__(self, log: Sequence[Entry], operations: list[Operation]) -> None:
        self._log, self._operations = log, operations
        self._found: list[Violation] = []
        self._place: dict[str, int] = {}
        self._data: list[int] = []
        self._ends: dict[str, int] = {}
        self._asked = {op.id: op for op in operations if isinstance(op, Append)}
        self._after: list[_Bound] = [_Bound(-inf, "", "")] * (len(log) + 1)
        self._before: list[_Bound] = [_Bound(inf, "", "")] * (len(log) + 1)

    def violations(self, *, over: bool) -> list[Violation]:
        self._look_through_the_log()
        self._count()
        for operation in self._operations:
            match operation:
                case Append():
                    self._append(operation, over=over)
                case Take():
                    self._take(operation)
                case Read():
                    self._read(operation)
                case Resolved():
                    self._resolved(operation)
        self._look_at_order()
        return self._found

    def _say(self, kind: str, what: object) -> None:
        self._found.append(Violation(kind, str(what)))

    def _look_through_the_log(self) -> None:
        held = ""
        for number, entry in enumerate(self._log):
            if entry.id in self._place:
                self._say("duplicate", entry)
            self._place.setdefault(entry.id, number)
            if entry.kind == "grant":
                self._ends[held] = number
                held = entry.id
            else:
                self._data.append(number)
                if entry.grant != held:
                    self._say("phantom", f"{entry} while {held} was in force")

    def _count(self) -> None:
        """Whoever stands in the log was sent, and nobody was told of two at one revision."""
        takes = [op for op in self._operations if isinstance(op, Take)]
        taken = {op.id for op in takes if op.outcome == ACKNOWLEDGED}
        nameless = iter(sorted(op.call for op in takes if op.outcome != ACKNOWLEDGED))
        for number, entry in enumerate(self._log):
            if entry.kind != "grant":
                if entry.id not in self._asked:
                    self._say("phantom", entry)
            elif entry.id not in taken:
                if (call := next(nameless, None)) is None:
                    self._say("phantom", entry)
                else:
                    self._not_before(number, call, "order", entry)
        told = Counter(op.revision for op in self._operations if isinstance(op, Append) and op.outcome == ACKNOWLEDGED)
        for revision, count in told.items():
            if count > 1:
                self._say("two at one revision", f"revision {revision} was acknowledged {count} times")
        answers = defaultdict(set)
        for op in self._operations:
            if isinstance(op, Resolved):
                answers[op.id].add(op.stands)
        for commit, said in answers.items():
            if len(said) > 1:
                self._say("contradiction", f"{commit} was said to stand, and to be unable to stand")

    def _append(self, op: Append, *, over: bool) -> None:
        number = self._place.get(op.id)
        if op.outcome in (ACKNOWLEDGED, UNKNOWN):
            if number is not None:
                self._stands(op, number)
            elif op.outcome == ACKNOWLEDGED:
                self._say("lost", op)
            elif over and len(self._data) <= op.expected and op.grant not in self._ends:
                self._say("unresolved", op)
            return
        if number is not None:
            self._say("denied", f"{op}, and it stands")
        elif op.outcome == CONFLICT:
            self._conflict(op)
        elif op.outcome == ENDED and op.grant not in self._ends:
            self._say("false ending", op)
        elif op.outcome == ENDED:
            self._saw(op, self._ends[op.grant] + 1, len(self._log), "false ending")

    def _stands(self, op: Append, number: int) -> None:
        revision = bisect_right(self._data, number)
        if revision != op.expected + 1 or (op.outcome == ACKNOWLEDGED and op.revision != revision):
            self._say("wrong revision", f"{op}, and it stands at {revision}")
        if self._log[number].grant != op.grant:
            self._say("wrong revision", f"{op}, and it stands under {self._log[number].grant}")
        self._not_before(number, op.call, "order", op)
        if op.outcome == ACKNOWLEDGED:
            self._not_after(number, op.answer, "order", op)

    def _conflict(self, op: Append) -> None:
        if op.revision == op.expected or not 0 <= op.revision <= len(self._data) or op.grant not in self._place:
            self._say("false conflict", op)
            return
        first, last = self._states_at(op.revision)
        first, last = max(first, self._place[op.grant] + 1), min(last, self._ends.get(op.grant, len(self._log)))
        if first > last:
            self._say("false conflict", op)
        else:
            self._saw(op, first, last, "false conflict")

    def _states_at(self, revision: int) -> tuple[int, int]:
        """How many entries the stream had, at least and at most, while it was at a revision."""
        first = self._data[revision - 1] + 1 if revision else 0
        return first, self._data[revision] if revision < len(self._data) else len(self._log)

    def _take(self, op: Take) -> None:
        if op.outcome != ACKNOWLEDGED:
            return
        number = self._place.get(op.id)
        if number is None:
            self._say("lost", op)
        else:
            self._not_before(number, op.call, "order", op)
            self._not_after(number, op.answer, "order", op)

    def _read(self, op: Read) -> None:
        last = op.first - 1 + len(op.ids)
        stands = self._data[op.first - 1 : last]
        if last > len(self._data) or any(
            self._log[number].id != commit for number, commit in zip(stands, op.ids, strict=True)
        ):
            self._say("wrong read", op)
        else:
            self._saw(op, *self._states_at(last), "stale read")

    def _resolved(self, op: Resolved) -> None:
        number = self._place.get(op.id)
        if op.stands != (number is not None):
            self._say("contradiction", f"{op}, and it {'does not stand' if op.stands else 'stands'}")
        elif number is not None:
            self._saw(op, number + 1, len(self._log), "false resolution")
        else:
            asked, ends = self._asked.get(op.id), [len(self._log) + 1]
            if asked and asked.expected < len(self._data):
                ends.append(self._data[asked.expected] + 1)
            if asked and asked.grant in self._ends:
                ends.append(self._ends[asked.grant] + 1)
            if (first := min(ends)) > len(self._log):
                self._say("false resolution", op)
            else:
                self._saw(op, first, len(self._log), "false resolution")

    def _saw(self, op: Operation, first: int, last: int, kind: str) -> None:
        """The operation met the stream when it had between ``first`` and ``last`` entries."""
        if first:
            self._not_after(first - 1, op.answer, kind, op)
        self._not_before(last, op.call, kind, op)

    def _not_before(self, number: int, at: float, kind: str, what: object) -> None:
        if at > self._after[number].at:
            self._after[number] = _Bound(at, kind, what)

    def _not_after(self, number: int, at: float, kind: str, what: object) -> None:
        if at < self._before[number].at:
            self._before[number] = _Bound(at, kind, what)

    def _look_at_order(self) -> None:
        """Each entry's moment is after all that bounds the earlier ones from below."""
        latest = _Bound(-inf, "", "")
        for number in range(len(self._log)):
            if (lower := self._after[number]).at > latest.at:
                latest = lower
            if latest.at > (upper := self._before[number]).at:
                kind = upper.kind if latest.kind == "order" else latest.kind
                self._say(kind, f"entry {number} came after {latest.what} began and before {upper.what} ended")
                return
