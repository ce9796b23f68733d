"""A task's state: the fold of its stream."""

from typing import Any, Literal

import msgspec

from ..eventstore.reading import Commit
from .activation import Fold
from .errors import TaskCancelledError, TaskFailedError
from .events import (
    Advanced,
    Cancelled,
    Checkpointed,
    Completed,
    Failed,
    Failure,
    Parent,
    Progressed,
    Requested,
    Settled,
    Started,
    Stopped,
    WaitKind,
)
from .packing import unpack

Status = Literal["", "requested", "running", "waiting", "stopped", "completed", "failed", "cancelled"]
TERMINAL = frozenset({"completed", "failed", "cancelled"})


class WaitState(msgspec.Struct):
    """One wait. ``opened``: hash of the commit that opened it, at ``revision`` as its event number ``index``;
    ``taken``: see `Opened`; ``settled`` is None while it is awaited."""

    kind: WaitKind
    name: str
    input: bytes
    opened: bytes
    revision: int
    index: int
    taken: list[int]
    settled: Settled | None = None


class TaskState(msgspec.Struct):
    """``waits`` by number. ``status`` is waiting where every open wait is an approval, a child or a sleep."""

    status: Status = ""
    capability: str = ""
    input: bytes = b"\x80"
    agent: str = ""
    version: str = ""
    by: str = ""
    runs: int = 0
    parent: Parent | None = None
    within: float = 0
    requested_at: int = 0
    updated_at: int = 0
    waits: list[WaitState] = []
    open: set[int] = set()
    progress: Progressed | None = None
    checkpoint: bytes | None = None
    result: bytes | None = None
    failure: Failure | None = None
    cancelled: Cancelled | None = None
    inbox: int = 0

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen."""
        return self.status in TERMINAL


def evolve(state: TaskState, commit: Commit) -> TaskState:
    """The state after a commit. The state is changed in place: a fold owns it, and copying would grow with the task."""
    for index, event in enumerate(commit.events):
        _evolve(state, event, commit, index)
    state.updated_at = commit.time
    return state


def _evolve(state: TaskState, event: object, commit: Commit, index: int) -> None:
    match event:
        case Requested():
            state.status, state.capability, state.input = "requested", event.capability, event.input
            state.agent, state.parent, state.by = event.agent, event.parent, event.by
            state.within, state.requested_at = event.within, commit.time
        case Started():
            state.status, state.agent, state.version, state.runs = "running", event.agent, event.version, event.runs
            state.failure = None
        case Advanced():
            _advance(state, event, commit, index)
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


def _advance(state: TaskState, event: Advanced, commit: Commit, index: int) -> None:
    for opened in event.opened:
        place = (commit.hash, commit.revision, index)
        state.waits.append(WaitState(opened.kind, opened.name, opened.input, *place, opened.taken))
        state.open.add(opened.wait)
    for settled in event.settled:
        state.waits[settled.wait].settled = settled
        state.open.discard(settled.wait)
    state.inbox = max(state.inbox, event.inbox)
    if state.status in ("running", "waiting"):
        durable = state.open and all(state.waits[wait].kind in ("approval", "child", "sleep") for wait in state.open)
        state.status = "waiting" if durable else "running"


TASK = Fold(TaskState, evolve, TaskState, "task/1")


def result_of(task: str, state: TaskState, output: Any = Any) -> Any:
    """What a finished task returned, as its declared type. Raises `TaskFailedError` or `TaskCancelledError`."""
    if state.status == "failed" and state.failure:
        raise TaskFailedError(task, f"task {task}: {state.failure.kind}: {state.failure.message}")
    if state.status == "cancelled" and state.cancelled:
        why = f": {state.cancelled.reason}" if state.cancelled.reason else ""
        raise TaskCancelledError(task, f"task {task} was cancelled by {state.cancelled.by}{why}")
    return unpack(state.result or b"\xc0", output)
