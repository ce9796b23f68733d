"""One append on its way through a group, and what it came to."""

import asyncio
from collections.abc import Callable
from typing import NamedTuple, Protocol

from .commit import Built
from .errors import AppendError, LogError, UnknownOutcomeError
from .verify import SliceState, StreamState


class Appended(NamedTuple):
    """An acknowledged commit: revision (0 for a control commit), hash, slice, position, the time in the record, and
    how many bytes of payload it holds."""

    revision: int
    commit: bytes
    slice: int
    position: int
    time: int
    size: int = 0


class SliceSealed(AppendError):
    """The stream's slice goes on in another lane, or nowhere yet: not refused, to be sent again where it goes on.

    Never reaches a caller.
    """


class Prepare(Protocol):
    """Builds the record on the states of a stream and its slice; raises an `AppendError` to refuse; None: there is
    nothing to write."""

    def __call__(self, state: StreamState, part: SliceState) -> Built | None: ...


class Pending:
    """One append on its way. A stream has at most one. ``sent``: the tape may have the bytes, or get them yet.

    ``over(pending)`` is called once, when ``done``: acknowledged (`Appended`, or None: there was nothing to write),
    or failed with an error. ``complete``: of what was built, what lies in the blobs.
    """

    def __init__(self, stream: bytes, prepare: Prepare, deadline: float, over: Callable[["Pending"], None]) -> None:
        self.stream, self.prepare, self.deadline, self.over = stream, prepare, deadline, over
        self.built: Built | None = None
        self.complete: Built | None = None
        self.basis: tuple[StreamState, SliceState] | None = None
        self.sent = self.done = False
        self.answer: Appended | None = None
        self.error: BaseException | None = None
        self._waiting: list[asyncio.Future[None]] = []

    async def told(self) -> None:
        """Wait until it is done, or for `tell`. Cancelling this cancels the wait only."""
        if not self.done:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter

    def tell(self) -> None:
        """Have whoever waits look again."""
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    def result(self) -> Appended | None:
        """What it came to."""
        if self.error is not None:
            raise self.error
        return self.answer

    def fail(self, error: BaseException) -> None:
        """Resolve with an error, unless resolved. One that does not say what became of the record means unknown."""
        if self.done:
            return
        if self.built and self.sent and not isinstance(error, (AppendError, LogError)):
            unknown = UnknownOutcomeError(self.stream.decode(), self.built.commit)
            unknown.__cause__ = error
            error = unknown
        self.error = error
        self._resolve()

    def succeed(self, appended: Appended | None) -> None:
        """Resolve as acknowledged, unless resolved."""
        if not self.done:
            self.answer = appended
            self._resolve()

    def _resolve(self) -> None:
        self.done = True
        self.over(self)
        self.tell()
