"""A task as it was: its commits up to one of them, read from a log or from a file that was taken from one."""

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple, Protocol

import msgspec

from ..eventstore.artifacts import Artifact, fetch, fetch_pieces
from ..eventstore.errors import DataKeyMissingError
from ..eventstore.log import Log
from ..eventstore.reading import Commit
from .activation import Folded
from .decider import stream_of
from .errors import InputError, UnknownTaskError
from .events import Advanced, Cancelled, Completed, Failed, Requested, Stopped
from .task_state import TASK, TaskState

Ending = Completed | Failed | Cancelled


class Past(Protocol):
    """Where histories are read. ``log_id``: of the log they are of."""

    log_id: bytes

    async def commits(self, stream: str) -> list[Commit]:
        """All data commits of a stream; none, if it is not there. `DataKeyMissingError` if its payloads were erased."""
        ...

    async def content(self, artifact: Artifact) -> bytes:
        """The content of an artifact of these histories."""
        ...

    def pieces(self, artifact: Artifact) -> AsyncIterator[bytes]:
        """The same, piece by piece."""
        ...


class LogPast:
    """The histories of an open log."""

    def __init__(self, log: Log) -> None:
        self._log, self.log_id = log, log.identity.log_id

    async def commits(self, stream: str) -> list[Commit]:
        await self._log.refresh()
        try:
            return [commit async for commit in self._log.read(stream)]
        except DataKeyMissingError as error:
            why = f"what it recorded was erased ({error})"
            raise DataKeyMissingError(f"{stream} cannot be gone over again: {why}") from None

    async def content(self, artifact: Artifact) -> bytes:
        return await fetch(self._log, artifact)

    def pieces(self, artifact: Artifact) -> AsyncIterator[bytes]:
        return fetch_pieces(self._log, artifact)


class Recorded(NamedTuple):
    """A task after its commit ``commits[-1]``. ``opened``: when each of its waits was opened, by its number, in
    microseconds since 1970; ``ending``: what it had come to by then, which its ``state`` does not show."""

    task: str
    commits: Sequence[Commit]
    requested: Requested
    state: TaskState
    opened: dict[int, int]
    ending: Ending | Stopped | None

    @property
    def head(self) -> Commit:
        """The commit after which the task is seen."""
        return self.commits[-1]


async def recorded(past: Past, task: str, at: int | None = None) -> Recorded:
    """A task at a revision, or at its last. `UnknownTaskError`; `InputError` for a revision that it does not have."""
    commits = await past.commits(stream_of("task", task))
    if not commits:
        raise UnknownTaskError(task)
    last = commits[-1].revision
    if at is not None and not 1 <= at <= last:
        raise InputError(f"task {task} has no revision {at}: it is at {last}")
    return as_it_was(task, commits[:at])


def as_it_was(task: str, commits: Sequence[Commit]) -> Recorded:
    """A task after the last of these commits, as if it were still to go on."""
    folded, ending = Folded(TASK, stream_of("task", task)), None
    opened: dict[int, int] = {}
    for commit in commits:
        kept = []
        for event in commit.events:
            if isinstance(event, Completed | Failed | Cancelled | Stopped):
                ending = event
            else:
                ending = None
                kept.append(event)
            if isinstance(event, Advanced):
                opened |= {one.wait: commit.time for one in event.opened}
        folded.add(commit._replace(events=tuple(kept)))
    requested = next(event for event in commits[0].events if isinstance(event, Requested))
    return Recorded(task, commits, requested, folded.state, opened, ending)


def input_of(packed: bytes) -> dict[str, object]:
    """A recorded input, by name."""
    return msgspec.msgpack.decode(packed, type=dict[str, object])
