"""What stands on the log of tasks and inboxes. Payloads only: ids, times and causes are in the commits.

Everything a task awaits is one primitive: `Opened`, later `Settled`. Both travel in `Advanced`, so that an outcome
and the opening of the next wait are one event of one commit: one step costs one commit.
"""

from typing import Literal

import msgspec

from ..eventstore.codec import NIL, event
from .agent_events import Branched, Joined, Left, Moved, Registered, Remembered
from .budgets import Accounted, Budget, Raised, Spent
from .people import RoleGranted, RoleWithdrawn
from .shelf import ArtifactPut

WaitKind = Literal["step", "approval", "child", "sleep", "value", "signal", "update"]
DURABLE: frozenset[WaitKind] = frozenset({"approval", "child", "sleep", "signal", "update"})
"""What may take days: a task that awaits nothing else holds no slot, and can be passivated."""


class Failure(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """An error as it is recorded: class name and text."""

    kind: str
    message: str


class Opened(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A task began to await something. ``wait``: its number in the task, from 0. ``input``: MessagePack bytes.

    ``taken``: the waits whose outcomes the handler was given since it opened the wait before this one, in that order;
    on replay they are given to it in the same order, so that a handler that does several things at once opens the
    same waits again. ``terms``: of an approval, who must decide it and how (see `approvals`). ``due``: microseconds
    since 1970 when time settles it, if time does. ``reserved``: what it may use of the task's budget.
    """

    wait: int
    kind: WaitKind
    name: str
    input: bytes = NIL
    taken: list[int] = []
    terms: bytes = b""
    due: int = 0
    reserved: Spent | None = None


class Source(msgspec.Struct, frozen=True):
    """The commit that an outcome came from: a child's last, a memory's, an inbox's."""

    stream: str
    revision: int


class Settled(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What a wait came to: a value (MessagePack bytes) or a failure. ``attempts``: how often an effect was tried;
    ``attachments``: names of the blobs that the value refers to; ``spent``: what it used of the task's budget, None for
    a child of which that is not known yet; ``raised``: see `Accounted`."""

    wait: int
    value: bytes = NIL
    failure: Failure | None = None
    attempts: int = 1
    attachments: list[bytes] = []
    source: Source | None = None
    spent: Spent | None = None
    raised: Spent | None = None


ABANDONED = "Abandoned"
"""The kind of failure that a wait is settled with when its handler does not await it any more."""
INTERRUPTED = "Interrupted"
"""The kind of failure that the waits of a cancelled task are settled with, so that it can clean up."""


class Parent(msgspec.Struct, frozen=True):
    """The wait of another task that a task is the child of."""

    task: str
    wait: int


@event("task.requested")
class Requested(msgspec.Struct, frozen=True, omit_defaults=True):
    """Somebody asked for work. ``input``: MessagePack, the arguments by name. ``agent``: if one was chosen.

    ``models``: names of models to use instead of others. ``detached``: it goes on when its parent ends. ``chain``:
    what it was delegated through, eight bytes for each request. ``version``: of the agent, if only that one will do;
    ``team``: the team fork that it belongs to.
    """

    capability: str
    input: bytes
    agent: str = ""
    parent: Parent | None = None
    by: str = ""
    within: float = 0
    budget: Budget | None = None
    models: dict[str, str] = {}
    detached: bool = False
    chain: tuple[bytes, ...] = ()
    version: str = ""
    team: str = ""


@event("task.forked")
class Forked(msgspec.Struct, frozen=True, omit_defaults=True):
    """The task goes on from another's past. ``commit``: that task's commit at ``revision``, of log ``log``; its first
    ``waits`` waits follow as they were. ``team``: names the fork, where a whole team was forked at one moment.

    ``members``: on the root of a team, the fork of each task of the team; ``mail``: messages that nothing had awaited
    yet; ``cut``: on the root of a team, the revision of each stream at that moment; ``names``: the ids by which what
    was taken over may call this task.
    """

    task: str
    revision: int
    commit: bytes
    log: bytes
    waits: int
    team: str = ""
    members: dict[str, str] = {}
    mail: tuple["Received", ...] = ()
    cut: dict[str, int] = {}
    names: tuple[str, ...] = ()


@event("team.cut")
class TeamCut(msgspec.Struct, frozen=True):
    """Where a team fork is cut: the revision of each stream. Written before any of its tasks."""

    task: str
    log: bytes
    cut: dict[str, int]


@event("task.diverged")
class Diverged(msgspec.Struct, frozen=True):
    """A fork does something else from this wait on: what it took over from there on is dropped."""

    wait: int


@event("task.continued")
class Continued(msgspec.Struct, frozen=True):
    """The handler begins anew with another input, and nothing of what it awaited before."""

    input: bytes


@event("task.started")
class Started(msgspec.Struct, frozen=True):
    """A handler began, or began again after its process was lost: ``runs`` counts. ``replays``: recorded outcomes it
    starts from."""

    agent: str
    version: str
    runs: int
    replays: int = 0


@event("task.advanced")
class Advanced(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Waits that settled, then waits that opened. ``inbox``: revision of the inbox read so far, where it moved."""

    settled: list[Settled] = []
    opened: list[Opened] = []
    inbox: int = 0

    @property
    def attachments(self) -> list[bytes]:
        """The blobs that the outcomes name, so that they can be found from the log without its keys."""
        return [name for settled in self.settled for name in settled.attachments]


@event("task.attempted")
class Attempted(msgspec.Struct, frozen=True, omit_defaults=True):
    """An effect was tried and failed, or says how far it has come. ``detail``: MessagePack, given to the next attempt.
    ``next``: when it is tried again, in microseconds since 1970. ``spent``: what a crash may have cost of its
    reservation, which is used up then."""

    wait: int
    attempt: int
    failure: Failure | None = None
    detail: bytes = b""
    next: int = 0
    spent: Spent | None = None


@event("task.held")
class Held(msgspec.Struct, frozen=True, omit_defaults=True):
    """A wait goes on only when a person says so, for this reason; who refuses makes it fail.

    Where the budget is too low, it also goes on by itself once there is enough. ``needs`` and ``rest``: see
    `budgets.Claim`; ``more``: what who approves it adds to the budget, at most.
    """

    wait: int
    reason: str
    needs: Spent | None = None
    rest: tuple[str, ...] = ()
    more: Spent | None = None


@event("task.freed")
class Freed(msgspec.Struct, frozen=True, omit_defaults=True):
    """A person let a held wait go on; or, ``by`` nobody, there is enough of the budget for it. ``reserved``: what
    it may use."""

    wait: int
    by: str = ""
    statement: bytes = b""
    signature: bytes = b""
    reserved: Spent | None = None


@event("task.signed")
class Signed(msgspec.Struct, frozen=True, omit_defaults=True):
    """One of several people who must decide has signed; ``to``: or has handed the decision on to somebody else.
    ``seats``: those of the terms for whom the person could decide at that moment."""

    wait: int
    person: str
    statement: bytes
    signature: bytes
    to: str = ""
    seats: tuple[str, ...] = ()


@event("task.escalated")
class Escalated(msgspec.Struct, frozen=True, omit_defaults=True):
    """Nobody decided in time: those who stand behind may now as well. ``due``: when it expires, in microseconds."""

    wait: int
    due: int = 0


@event("task.refused")
class Refused(msgspec.Struct, frozen=True):
    """A statement does not count, and why. ``person``: whom it says it is of; ``revision``: its own, in the inbox."""

    wait: int
    person: str
    reason: str
    revision: int


@event("task.received")
class Received(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message for the task. ``id``: 16 bytes, received once; ``source``: the commit of another task that sent it."""

    kind: Literal["signal", "update"]
    name: str
    input: bytes
    id: bytes
    by: str = ""
    source: Source | None = None
    inbox: int = 0


@event("task.answered")
class Answered(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an update led to."""

    id: bytes
    value: bytes = NIL
    failure: Failure | None = None


@event("task.paused")
class Paused(msgspec.Struct, frozen=True, omit_defaults=True):
    """Nothing new begins until the task is resumed."""

    by: str
    reason: str = ""


@event("task.resumed")
class Resumed(msgspec.Struct, frozen=True):
    """The task goes on."""

    by: str


@event("task.cancelling")
class Cancelling(msgspec.Struct, frozen=True, omit_defaults=True):
    """Somebody stopped the task, and it is cleaning up. ``at_once``: its handler does not go on; it only waits for its
    children to end, to account for what they used."""

    by: str
    reason: str = ""
    at_once: bool = False


@event("task.progressed")
class Progressed(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far the task has come, in its own units."""

    done: int
    total: int = 0
    note: str = ""


@event("task.checkpointed")
class Checkpointed(msgspec.Struct, frozen=True):
    """State that the handler chose to keep. MessagePack."""

    state: bytes


@event("task.completed")
class Completed(msgspec.Struct, frozen=True, omit_defaults=True):
    """The handler returned. MessagePack. ``spent``: what the task and all it delegated used of its budget; ``raised``:
    by how much people raised that. A task that has a budget ends only when nothing of it is reserved any more."""

    result: bytes
    spent: Spent | None = None
    raised: Spent | None = None


@event("task.stopped")
class Stopped(msgspec.Struct, frozen=True):
    """The handler cannot go on as it is now, for example because its code has changed; it is tried again later."""

    failure: Failure


@event("task.failed")
class Failed(msgspec.Struct, frozen=True, omit_defaults=True):
    """The handler raised. ``spent``, ``raised``: see `Completed`."""

    failure: Failure
    spent: Spent | None = None
    raised: Spent | None = None


@event("task.cancelled")
class Cancelled(msgspec.Struct, frozen=True, omit_defaults=True):
    """Somebody stopped the task. ``spent``, ``raised``: see `Completed`."""

    by: str
    reason: str = ""
    spent: Spent | None = None
    raised: Spent | None = None


@event("inbox.stated")
class Stated(msgspec.Struct, frozen=True):
    """A person's signed statement, left for the owner of the stream (see `statements`)."""

    statement: bytes
    signature: bytes


@event("inbox.sent")
class Sent(msgspec.Struct, frozen=True):
    """A message for a task, left by a process that does not run it."""

    message: Received


CORE: tuple[type, ...] = (
    Requested,
    Forked,
    Diverged,
    Continued,
    Started,
    Advanced,
    Attempted,
    Held,
    Freed,
    Signed,
    Escalated,
    Refused,
    Received,
    Answered,
    Paused,
    Resumed,
    Cancelling,
    Raised,
    Accounted,
    Progressed,
    Checkpointed,
    Completed,
    Stopped,
    Failed,
    Cancelled,
    Stated,
    Sent,
    Registered,
    Joined,
    Left,
    Remembered,
    Moved,
    Branched,
    TeamCut,
    RoleGranted,
    RoleWithdrawn,
    ArtifactPut,
)
