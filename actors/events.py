"""What stands on the log of tasks, agents and inboxes. Payloads only: ids, times and causes are in the commits.

Everything a task awaits is one primitive: `Opened`, later `Settled`. Both travel in `Advanced`, so that an outcome
and the opening of the next wait are one event of one commit: one step costs one commit.
"""

from typing import Any, Literal

import msgspec

from ..eventstore.codec import event

WaitKind = Literal["step", "approval", "child", "sleep", "value"]


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error as it is recorded: class name and text."""

    kind: str
    message: str


class Opened(msgspec.Struct, frozen=True, omit_defaults=True):
    """A task began to await something. ``wait``: its number in the task, from 0. ``input``: MessagePack bytes.

    ``taken``: the waits whose outcomes the handler was given since it opened the wait before this one, in that order;
    on replay they are given to it in the same order, so that a handler that does several things at once opens the
    same waits again.
    """

    wait: int
    kind: WaitKind
    name: str
    input: bytes = b"\xc0"
    taken: list[int] = []


class Settled(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a wait came to: a value (MessagePack bytes) or a failure. ``attempts``: how often an effect was tried;
    ``attachments``: names of the blobs that the value refers to."""

    wait: int
    value: bytes = b"\xc0"
    failure: Failure | None = None
    attempts: int = 1
    attachments: list[bytes] = []


class Parent(msgspec.Struct, frozen=True):
    """The wait of another task that a task is the child of."""

    task: str
    wait: int


@event("task.requested")
class Requested(msgspec.Struct, frozen=True, omit_defaults=True):
    """Somebody asked for work. ``input``: MessagePack, the arguments by name. ``agent``: if one was chosen."""

    capability: str
    input: bytes
    agent: str = ""
    parent: Parent | None = None
    by: str = ""
    within: float = 0


@event("task.started")
class Started(msgspec.Struct, frozen=True):
    """A handler began, or began again after its process was lost: ``runs`` counts. ``replays``: recorded outcomes it
    starts from."""

    agent: str
    version: str
    runs: int
    replays: int = 0


@event("task.advanced")
class Advanced(msgspec.Struct, frozen=True, omit_defaults=True):
    """Waits that settled, then waits that opened. ``inbox``: revision of the inbox read so far, where it moved."""

    settled: list[Settled] = []
    opened: list[Opened] = []
    inbox: int = 0

    @property
    def attachments(self) -> list[bytes]:
        """The blobs that the outcomes name, so that they can be found from the log without its keys."""
        return [name for settled in self.settled for name in settled.attachments]


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
class Completed(msgspec.Struct, frozen=True):
    """The handler returned. MessagePack."""

    result: bytes


@event("task.stopped")
class Stopped(msgspec.Struct, frozen=True):
    """The handler cannot go on as it is now, for example because its code has changed; it is tried again later."""

    failure: Failure


@event("task.failed")
class Failed(msgspec.Struct, frozen=True):
    """The handler raised."""

    failure: Failure


@event("task.cancelled")
class Cancelled(msgspec.Struct, frozen=True):
    """Somebody stopped the task."""

    by: str
    reason: str = ""


@event("inbox.stated")
class Stated(msgspec.Struct, frozen=True):
    """A person's signed statement, left for the owner of the stream (see `statements`)."""

    statement: bytes
    signature: bytes


@event("agent.registered")
class Registered(msgspec.Struct, frozen=True, omit_defaults=True):
    """An agent with its capabilities: name → JSON schema of its input."""

    version: str
    capabilities: dict[str, dict[str, Any]]
    description: str = ""
    approval: str = "automatic"
    concurrency: int = 16


@event("agent.joined")
class Joined(msgspec.Struct, frozen=True):
    """The agent's code runs in a process. ``host``: 16 bytes that name it."""

    host: bytes


@event("agent.left")
class Left(msgspec.Struct, frozen=True):
    """The process let the agent go."""

    host: bytes


@event("agent.remembered")
class Remembered(msgspec.Struct, frozen=True):
    """The agent keeps a value under a key; MessagePack nil forgets it."""

    key: str
    value: bytes


@event("agent.moved")
class Moved(msgspec.Struct, frozen=True):
    """The agent's lifecycle went on to another phase."""

    phase: str
    reason: str = ""


CORE: tuple[type, ...] = (
    Requested,
    Started,
    Advanced,
    Progressed,
    Checkpointed,
    Completed,
    Stopped,
    Failed,
    Cancelled,
    Stated,
    Registered,
    Joined,
    Left,
    Remembered,
    Moved,
)
