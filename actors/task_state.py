"""A task's state: the fold of its stream."""

from collections.abc import Iterable
from typing import Literal

import msgspec

from ..eventstore.reading import Commit
from .activation import Fold, Growing
from .budgets import Accounted, Budget, Raised, Spent
from .events import (
    ABANDONED,
    DURABLE,
    Advanced,
    Answered,
    Attempted,
    Cancelled,
    Cancelling,
    Checkpointed,
    Completed,
    Continued,
    Diverged,
    Escalated,
    Failed,
    Failure,
    Forked,
    Freed,
    Held,
    Parent,
    Paused,
    Progressed,
    Received,
    Requested,
    Resumed,
    Settled,
    Signed,
    Started,
    Stopped,
    WaitKind,
)

Status = Literal[
    "", "requested", "running", "waiting", "paused", "cancelling", "stopped", "completed", "failed", "cancelled"
]
TERMINAL = frozenset({"completed", "failed", "cancelled"})
HEARD = 1_000
"""How many ids of messages a task remembers."""


class WaitState(msgspec.Struct, omit_defaults=True, gc=False):
    """One wait. ``opened``: hash of the commit that opened it, at ``revision`` as its event number ``index``;
    ``taken``, ``terms``, ``due``, ``reserved``: see `Opened`; ``settled`` is None while it is awaited.

    ``attempts``: how often its effect was tried and failed so far; ``detail``: how far it said it had come;
    ``held``: why it goes on only when a person says so, and ``asked`` with its figures; ``signed``: who has decided so
    far; ``freed_by``: the statements that let it go on, the last one at revision ``freed_at``. ``admitted``: the
    revision that gave it its reservation, where that came later; ``released``: it has nothing reserved any more.
    """

    kind: WaitKind
    name: str
    input: bytes
    opened: bytes
    revision: int
    index: int
    taken: list[int]
    settled: Settled | None = None
    terms: bytes = b""
    due: int = 0
    reserved: Spent | None = None
    attempts: int = 0
    detail: bytes = b""
    failure: Failure | None = None
    next: int = 0
    held: str = ""
    freed: bool = False
    signed: tuple[Signed, ...] = ()
    escalated: bool = False
    asked: Held | None = None
    admitted: int = 0
    released: bool = False
    freed_by: tuple[bytes, ...] = ()
    freed_at: int = 0

    @property
    def shown(self) -> bytes:
        """What a person is shown who decides about it, and signs: where the budget is too low, by how much."""
        if self.asked is None or self.asked.needs is None:
            return self.input
        told = {"asks": self.held, "needs": self.asked.needs, "more": self.asked.more}
        return msgspec.msgpack.encode({**told, "input": msgspec.Raw(self.input)})

    @property
    def asks_a_person(self) -> bool:
        """Whether it is a person who must decide."""
        return self.kind == "approval" or bool(self.held and not self.freed)


class TaskState(msgspec.Struct):
    """``waits`` by number. ``status`` is waiting where every open wait may take days.

    ``begun``: how often the handler began anew (`Continued`), ``original``: the input that was asked for, if it did;
    ``mail``: messages by name that nothing has awaited yet; ``heard``: what became of messages by id, None while an
    update is not answered; ``spent`` and ``reserved``: of the budget, ``raised``: what was added to it; ``owed``:
    children that are settled and not accounted for; ``foreign``: how many of the first waits are those of the task that
    this one was forked from; ``fitting``: the
    version that opened the last wait, and so does what is recorded.
    """

    status: Status = ""
    capability: str = ""
    input: bytes = b"\x80"
    agent: str = ""
    version: str = ""
    by: str = ""
    runs: int = 0
    begun: int = 0
    original: bytes = b""
    parent: Parent | None = None
    detached: bool = False
    within: float = 0
    requested_at: int = 0
    updated_at: int = 0
    waits: list[WaitState] = []
    open: set[int] = set()
    progress: Progressed | None = None
    checkpoint: bytes | None = None
    result: bytes | None = None
    failure: Failure | None = None
    paused: Paused | None = None
    cancelling: Cancelling | None = None
    cancelled: Cancelled | None = None
    inbox: int = 0
    mail: dict[str, list[Received]] = {}
    heard: dict[bytes, Answered | None] = {}
    budget: Budget | None = None
    spent: Spent = Spent()
    reserved: Spent = Spent()
    raised: Spent = Spent()
    owed: set[int] = set()
    forked: Forked | None = None
    foreign: int = 0
    models: dict[str, str] = {}
    chain: tuple[bytes, ...] = ()
    pinned: str = ""
    team: str = ""
    fitting: str = ""

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen."""
        return self.status in TERMINAL

    @property
    def due(self) -> int | None:
        """When time next moves a waiting task on, in microseconds since 1970; None if time does not."""
        return min((self.waits[wait].due for wait in self.open if self.waits[wait].due), default=None)


def evolve(state: TaskState, commit: Commit) -> TaskState:
    """The state after a commit. The state is changed in place: a fold owns it, and copying would grow with the task."""
    for index, event in enumerate(commit.events):
        _evolve(state, event, commit, index)
    if not state.finished and state.status not in ("", "requested", "stopped"):
        state.status = _status(state)
    state.updated_at = commit.time
    return state


def _status(state: TaskState) -> Status:
    if state.cancelling:
        return "cancelling"
    if state.paused:
        return "paused"
    return "waiting" if state.open and all(_is_durable(state.waits[wait]) for wait in state.open) else "running"


def _is_durable(wait: WaitState) -> bool:
    return wait.kind in DURABLE or wait.asks_a_person


def _evolve(state: TaskState, event: object, commit: Commit, index: int) -> None:
    match event:
        case Advanced():
            _advance(state, event, commit, index)
        case Requested():
            _request(state, event, commit)
        case Started():
            state.status, state.agent, state.version, state.runs = "running", event.agent, event.version, event.runs
            state.failure = None
        case Progressed():
            state.progress = event
        case Checkpointed():
            state.checkpoint = event.state
        case Completed():
            state.status, state.result = "completed", event.result
            state.spent = event.spent or state.spent
        case Stopped():
            state.status, state.failure = "stopped", event.failure
        case Failed():
            state.status, state.failure = "failed", event.failure
            state.spent = event.spent or state.spent
        case Cancelled():
            state.status, state.cancelled = "cancelled", event
            state.spent = event.spent or state.spent
        case Freed(reserved=Spent()):
            _admit(state, event, commit)
        case Attempted() | Held() | Freed() | Signed() | Escalated():
            _of_a_wait(state.waits[event.wait], event, commit.revision)
            if isinstance(event, Attempted) and event.spent is not None:
                _use_up(state, state.waits[event.wait], event.spent)
        case Received() | Answered():
            _hear(state, event)
        case _:
            _steer(state, event)


def _steer(state: TaskState, event: object) -> None:
    """What changes the course of a task from outside of it."""
    match event:
        case Paused():
            state.paused = event
        case Resumed():
            state.paused = None
        case Cancelling():
            state.cancelling = event
        case Raised():
            _raise(state, event.more)
        case Accounted():
            _release(state, event.wait, event)
        case Forked():
            state.forked, state.foreign = event, event.waits
            for message in event.mail:
                state.mail.setdefault(f"{message.kind} {message.name}", []).append(message)
        case Diverged():
            _drop(state, event.wait)
        case Continued():
            state.original = state.original or state.input
            state.input, state.begun = event.input, state.begun + 1
            _drop(state, 0)
            state.runs, state.progress = 0, None


def _request(state: TaskState, event: Requested, commit: Commit) -> None:
    state.status, state.capability, state.input = "requested", event.capability, event.input
    state.agent, state.parent, state.by = event.agent, event.parent, event.by
    state.within, state.requested_at = event.within, commit.time
    state.budget, state.models, state.detached = event.budget, event.models, event.detached
    state.chain, state.pinned, state.team = event.chain, event.version, event.team


def _drop(state: TaskState, first: int) -> None:
    """Forget the waits from one on; what they used is used, what they had reserved is free."""
    for wait in [wait for wait in state.open | state.owed if wait >= first]:
        state.open.discard(wait)
        _release(state, wait, None)
    del state.waits[first:]
    state.foreign = min(state.foreign, first)


def _advance(state: TaskState, event: Advanced, commit: Commit, index: int) -> None:
    for opened in event.opened:
        place = (commit.hash, commit.revision, index)
        wait = WaitState(opened.kind, opened.name, opened.input, *place, opened.taken)
        wait.terms, wait.due, wait.reserved = opened.terms, opened.due, opened.reserved
        if opened.reserved:
            state.reserved += opened.reserved
        state.waits.append(wait)
        state.open.add(opened.wait)
    for settled in event.settled:
        _settle(state, state.waits[settled.wait], settled)
    if event.opened:
        state.fitting = state.version
    state.inbox = max(state.inbox, event.inbox)


def _settle(state: TaskState, wait: WaitState, settled: Settled) -> None:
    wait.settled = settled
    state.open.discard(settled.wait)
    if settled.spent is not None or wait.kind != "child":
        _release(state, settled.wait, settled)
    elif wait.reserved is not None and not wait.released:
        state.owed.add(settled.wait)
    if wait.kind in ("signal", "update") and settled.failure is None:
        key = f"{wait.kind} {wait.name}"
        waiting = state.mail.get(key, [])
        del waiting[:1]
        if not waiting:
            state.mail.pop(key, None)


def _release(state: TaskState, number: int, used: Settled | Accounted | None) -> None:
    """What a wait has reserved is free again, but for what it used; once."""
    wait = state.waits[number]
    if wait.released:
        return
    wait.released = True
    state.owed.discard(number)
    if wait.reserved:
        state.reserved -= wait.reserved
    if used and used.spent:
        state.spent += used.spent
    if used and used.raised:
        _raise(state, used.raised)


def _raise(state: TaskState, more: Spent) -> None:
    state.raised += more
    state.budget = state.budget.raised(more) if state.budget else None


def _admit(state: TaskState, event: Freed, commit: Commit) -> None:
    """A wait gets its reservation after it was opened."""
    wait = state.waits[event.wait]
    if wait.settled is not None:
        return
    wait.reserved, wait.admitted, wait.held, wait.asked = event.reserved, commit.revision, "", None
    state.reserved += event.reserved or Spent()


def _use_up(state: TaskState, wait: WaitState, spent: Spent) -> None:
    """What a wait had reserved is spent: it needs another reservation to go on."""
    state.spent += spent
    if not wait.released:
        state.reserved -= wait.reserved or Spent()
        wait.reserved = None


def _hear(state: TaskState, event: Received | Answered) -> None:
    if isinstance(event, Received):
        state.mail.setdefault(f"{event.kind} {event.name}", []).append(event)
        state.inbox = max(state.inbox, event.inbox)
        state.heard[event.id] = None if event.kind == "update" else Answered(event.id)
    else:
        state.heard[event.id] = event
    if len(state.heard) > HEARD:
        del state.heard[next(iter(state.heard))]


def _of_a_wait(wait: WaitState, event: Attempted | Held | Freed | Signed | Escalated, revision: int) -> None:
    match event:
        case Attempted():
            wait.attempts, wait.failure, wait.next = event.attempt, event.failure, event.next
            wait.detail = event.detail or wait.detail
        case Held():
            wait.held, wait.freed, wait.asked = event.reason, False, event
        case Freed():
            wait.freed, wait.freed_at, wait.freed_by = True, revision, (*wait.freed_by, event.statement)
        case Signed():
            wait.signed = (*wait.signed, event)
        case Escalated():
            wait.escalated, wait.due = True, event.due


def _changed(event: object) -> Iterable[int]:
    """The waits that an event opens or changes."""
    if isinstance(event, Advanced):
        yield from (opened.wait for opened in event.opened)
        yield from (settled.wait for settled in event.settled)
    elif isinstance(event, Attempted | Held | Freed | Signed | Escalated | Accounted):
        yield event.wait


TASK = Fold(TaskState, evolve, TaskState, "task/4", growing=Growing("waits", WaitState, _changed))


def abandoned(settled: Settled) -> bool:
    """Whether a wait was settled because its handler did not await it any more."""
    return settled.failure is not None and settled.failure.kind == ABANDONED
