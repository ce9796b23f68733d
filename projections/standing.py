"""Dead letters: which streams of a projection stand, and what makes a stream stand."""

import logging
from collections.abc import Awaitable
from typing import Generic, TypeVar

from ..eventstore.backends.index_file import Row
from ..eventstore.errors import BlobError, EventStoreError, PayloadError
from .errors import SetAsideError
from .sink import MOST_LETTERS, Checkpoint, Letter, Named, R, Sink, W

POISON = (PayloadError, BlobError)
"""Errors of the log that are one commit's own."""
_log = logging.getLogger("agent_party")
T = TypeVar("T")


class Standing(Generic[W, R]):
    """The dead letters of a projection by stream, as of the turn that its worker has seen or made last."""

    def __init__(self, projection: Named, sink: Sink[W, R]) -> None:
        self._projection, self._sink = projection, sink
        self.letters: dict[str, Letter] = {}
        self._known = -1

    async def meet(self, now: Checkpoint) -> Checkpoint:
        """Know which streams stand, as of this turn. `SetAsideError` where there are too many."""
        if now.turn != self._known:
            self.letters = await self._sink.letters(self._projection) if now.sizes else {}
            self._known = now.turn
        self.bound()
        return now

    def bound(self) -> None:
        """`SetAsideError` where too many streams stand."""
        if len(self.letters) >= MOST_LETTERS:
            raise SetAsideError(
                f"{self._projection.name} cannot project {MOST_LETTERS:,} streams and is set aside: "
                f"mend it, then `party projection rebuild {self._projection.name}`"
            )

    def own(self, after: Checkpoint | None) -> Checkpoint | None:
        """After a turn of its own, the worker knows which streams stand."""
        if after:
            self._known = after.turn
        return after

    def letter(self, row: Row, reason: str) -> Letter:
        """The dead letter of a commit that cannot be projected; it is logged."""
        stream = row.stream.decode()
        _log.warning("%s cannot project %s revision %d: %s", self._projection.name, stream, row.revision, reason)
        return letter_of(row, reason)


def letter_of(row: Row, reason: str) -> Letter:
    """A dead letter of a commit."""
    return Letter(row.stream.decode(), row.revision, row.part, row.position, row.commit.hex(), reason)


async def attempted(work: Awaitable[T]) -> T | Exception:
    """What it comes to, or why a commit cannot be projected. What is no commit's fault is raised."""
    try:
        return await work
    except EventStoreError as error:
        if not isinstance(error, POISON):
            raise
        return error
    except Exception as error:  # a poisoned commit must not stop the projection
        return error
