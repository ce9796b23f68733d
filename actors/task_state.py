"""A task's state: the fold of its stream."""

from typing import Any, Literal

import msgspec

from ..eventstore.reading import Commit
from .activation import Fold
from .budgets import Budget, Spent
from .errors import TaskCancelledError, TaskFailedError
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
    Raised,
    Received,
    Requested,
    Resumed,
    Settled,
    Signed,
    Started,
    Stopped,
    WaitKind,
)
from .packing import unpack

Status = Literal[
    "", "requested", "running", "waiting", "paused", "cancelling", "stopped", "completed", "failed", "cancelled"
]
TERMINAL = frozenset({"completed", "failed", "cancelled"})
HEARD = 1_000
"""How many ids of messages a task remembers."""


class WaitState(msgspec.Struct, omit_defaults=True):
    """One wait. ``opened``: hash of the commit that opened it, at ``revision`` as its event number ``index``;
    ``taken``, ``terms``, ``due``, ``reserved``: see `Opened`; ``settled`` is None while it is awaited.

    ``attempts``: how often its effect was tried and failed so far; ``detail``: how far it said it had come;
    ``held``: why it goes on only when a person says so; ``signed``: who has decided so far.
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

    @property
    def asks_a_person(self) -> bool:
        """Whether it is a person who must decide."""
        return self.kind == "approval" or bool(self.held and not self.freed)


class TaskState(msgspec.Struct):
    """``waits`` by number. ``status`` is waiting where every open wait may take days.

    ``begun``: how often the handler began anew (`Continued`); ``mail``: messages by name that nothing has awaited yet;
    ``heard``: what became of messages by id, None while an update is not answered; ``spent`` and ``reserved``: of the
    budget; ``foreign``: how many of the first waits are those of the task that this one was forked from.
    """

    status: Status = ""
    capability: str = ""
    input: bytes = b"\x80"
    agent: str = ""
    version: str = ""
    by: str = ""
    runs: int = 0
    begun: int = 0
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
    forked: Forked | None = None
    foreign: int = 0
    models: dict[str, str] = {}
    chain: tuple[bytes, ...] = ()

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
        case Stopped():
            state.status, state.failure = "stopped", event.failure
        case Failed():
            state.status, state.failure = "failed", event.failure
        case Cancelled():
            state.status, state.cancelled = "cancelled", event
        case Attempted() | Held() | Freed() | Signed() | Escalated():
            _of_a_wait(state.waits[event.wait], event)
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
            state.budget = state.budget.raised(event.more) if state.budget else None
        case Forked():
            state.forked, state.foreign = event, event.waits
        case Diverged():
            _drop(state, event.wait)
        case Continued():
            state.input, state.begun = event.input, state.begun + 1
            _drop(state, 0)
            state.runs, state.progress = 0, None


def _request(state: TaskState, event: Requested, commit: Commit) -> None:
    state.status, state.capability, state.input = "requested", event.capability, event.input
    state.agent, state.parent, state.by = event.agent, event.parent, event.by
    state.within, state.requested_at = event.within, commit.time
    state.budget, state.models, state.detached = event.budget, event.models, event.detached
    state.chain = event.chain


def _drop(state: TaskState, first: int) -> None:
    """Forget the waits from one on; what they used is used, what they had reserved is free."""
    for wait in [wait for wait in state.open if wait >= first]:
        state.open.discard(wait)
        if reserved := state.waits[wait].reserved:
            state.reserved -= reserved
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
    state.inbox = max(state.inbox, event.inbox)


def _settle(state: TaskState, wait: WaitState, settled: Settled) -> None:
    wait.settled = settled
    state.open.discard(settled.wait)
    if wait.reserved:
        state.reserved -= wait.reserved
    if settled.spent:
        state.spent += settled.spent
    if wait.kind in ("signal", "update") and settled.failure is None:
        key = f"{wait.kind} {wait.name}"
        waiting = state.mail.get(key, [])
        del waiting[:1]
        if not waiting:
            state.mail.pop(key, None)


def _hear(state: TaskState, event: Received | Answered) -> None:
    if isinstance(event, Received):
        state.mail.setdefault(f"{event.kind} {event.name}", []).append(event)
        state.inbox = max(state.inbox, event.inbox)
        state.heard[event.id] = None if event.kind == "update" else Answered(event.id)
    else:
        state.heard[event.id] = event
    if len(state.heard) > HEARD:
        del state.heard[next(iter(state.heard))]


def _of_a_wait(wait: WaitState, event: Attempted | Held | Freed | Signed | Escalated) -> None:
    match event:
        case Attempted():
            wait.attempts, wait.failure, wait.next = event.attempt, event.failure, event.next
            wait.detail = event.detail or wait.detail
        case Held():
            wait.held, wait.freed = event.reason, False
        case Freed():
            wait.freed = True
        case Signed():
            wait.signed = (*wait.signed, event)
        case Escalated():
            wait.escalated = True


TASK = Fold(TaskState, evolve, TaskState, "task/2")


def abandoned(settled: Settled) -> bool:
    """Whether a wait was settled because its handler did not await it any more."""
    return settled.failure is not None and settled.failure.kind == ABANDONED


def result_of(task: str, state: TaskState, output: Any = Any) -> Any:
    """What a finished task returned, as its declared type. Raises `TaskFailedError` or `TaskCancelledError`."""
    if state.status == "failed" and state.failure:
        raise TaskFailedError(task, f"task {task}: {state.failure.kind}: {state.failure.message}")
    if state.status == "cancelled" and state.cancelled:
        why = f": {state.cancelled.reason}" if state.cancelled.reason else ""
        raise TaskCancelledError(task, f"task {task} was cancelled by {state.cancelled.by}{why}")
    return unpack(state.result or b"\xc0", output)
