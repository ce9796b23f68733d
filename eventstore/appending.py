"""Group commit: many streams' records in one append, each acknowledged only after it was read back and accepted.

The loop is the same for every tape. Build on what was read, append, read what stands behind it, judge it by the rule.
Then for each record still open: if its predecessor is no longer the head it can never be accepted (heads do not
repeat), so it is prepared again, which either signs anew or says why not; else the same bytes are sent again.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from .commit import Built
from .errors import EventStoreError, LogRolledBack, UnknownOutcomeError
from .index import Behind, Index
from .tape import Attempt, Entry, Indefinite, Tape
from .verify import StreamState

GROUP = 256
PATIENCE = 1.0
"""Seconds to read on for a record before the same bytes are sent again."""


class Appended(NamedTuple):
    """An acknowledged commit: revision (0 for a control commit), hash, slice and position."""

    revision: int
    commit: bytes
    slice: int
    position: int


class Prepare(Protocol):
    """Builds the record on a stream's state; raises an `AppendError` to refuse; None: there is nothing to write."""

    def __call__(self, state: StreamState) -> Built | None: ...


class Pending:
    """One append on its way. A stream has at most one."""

    def __init__(self, stream: bytes, prepare: Prepare, deadline: float) -> None:
        self.stream, self.prepare, self.deadline = stream, prepare, deadline
        self.built: Built | None = None
        self.prev = b""
        self.sent = False
        self.done: asyncio.Future[Appended | None] = asyncio.get_running_loop().create_future()

    def fail(self, error: BaseException) -> None:
        """Resolve with an error, unless resolved."""
        if not self.done.done():
            self.done.set_exception(error)

    def succeed(self, appended: Appended | None) -> None:
        """Resolve as acknowledged, unless resolved."""
        if not self.done.done():
            self.done.set_result(appended)


class Appender:
    """The one writer of a lane in this process. Holds the lane's lock while it reads and writes."""

    def __init__(self, lane: int, tape: Tape, index: Index, put_blob: Callable[[bytes], Awaitable[None]]) -> None:
        self.lane, self._tape, self._index, self._put_blob = lane, tape, index, put_blob
        self.lock = asyncio.Lock()
        self.grown: Callable[[], None] = lambda: None
        self._queue: list[Pending] = []
        self._task: asyncio.Task[None] | None = None

    def submit(self, pending: Pending) -> None:
        """Queue an append; it goes out with the next group."""
        self._queue.append(pending)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def idle(self) -> None:
        """Wait until nothing is queued."""
        while self._task and not self._task.done():
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while self._queue:
            group, self._queue = self._queue[:GROUP], self._queue[GROUP:]
            try:
                async with self.lock:
                    await self._settle(group)
            except Exception as error:  # every waiter must hear of it, whatever it is
                for pending in group:
                    pending.fail(error)
            self.grown()
            await asyncio.sleep(0)

    async def _settle(self, group: list[Pending]) -> None:
        while group:
            ready = await self._prepared(group)
            if not ready:
                return
            own = {pending.built.raw: pending for pending in ready if pending.built}
            try:
                attempt = await self._tape.append(self.lane, list(own), self.seen)
                unsure = False
            except Indefinite:
                attempt, unsure = Attempt(True, []), True
            for pending in ready:
                pending.sent |= attempt.placed
            await self.take(attempt.entries, own)
            if unsure or not self._tape.conditional:
                await self._read_on(own)
            group = [pending for pending in ready if not pending.done.done()]
            self._expire(group)

    async def _prepared(self, group: list[Pending]) -> list[Pending]:
        ready = []
        for pending in group:
            if pending.done.done():
                continue
            try:
                state = await self.state(pending.stream)
                if pending.built is None or pending.prev != state.head:
                    pending.built, pending.prev = pending.prepare(state), state.head
                    for blob in pending.built.blobs if pending.built else ():
                        await self._put_blob(blob)
                if pending.built is None:
                    pending.succeed(None)
                else:
                    ready.append(pending)
            except EventStoreError as error:
                pending.fail(error)
        return ready

    def _expire(self, group: list[Pending]) -> None:
        now = asyncio.get_running_loop().time()
        for pending in group:
            if now > pending.deadline and pending.built and pending.sent:
                pending.fail(UnknownOutcomeError(pending.stream.decode(), pending.built.commit))

    async def state(self, stream: bytes) -> StreamState:
        """A stream's state, having caught up with other processes' index where needed. Call with the lock held."""
        try:
            return self._index.state(stream)
        except Behind:
            await self._jump()
            return self._index.state(stream)

    @property
    def seen(self) -> Entry:
        """The last entry of this lane that was read."""
        return self._index.seen.get(self.lane, Entry(0, b""))

    async def take(self, entries: list[Entry], own: dict[bytes, Pending]) -> None:
        """Judge what stands on the tape next, and answer those whose records are among it."""
        for entry in entries:
            pending = own.get(entry.raw)
            if entry.place <= self.seen.place:
                position = self._index.position_at(self.lane, entry.place)
                accepted = position is not None
            else:
                try:
                    taken = self._index.take(self.lane, entry, own=pending is not None)
                except Behind:
                    await self._jump()
                    await self.take([entry], own)
                    continue
                accepted, position = not taken.finding, taken.position
            if pending and accepted and pending.built and position is not None:
                built = pending.built
                pending.succeed(Appended(built.revision, built.commit, built.slice, position))

    async def read(self, limit: int = 2_000) -> bool:
        """Read on by up to ``limit`` entries; False at the end. Call with the lock held."""
        entries = await self._tape.read(self.lane, self.seen.place, limit)
        await self.take(entries, {})
        return bool(entries)

    async def _read_on(self, own: dict[bytes, Pending]) -> None:
        clock = asyncio.get_running_loop().time
        until = clock() + PATIENCE
        while True:
            entries = await self._tape.read(self.lane, self.seen.place, 2_000)
            await self.take(entries, own)
            if all(pending.done.done() for pending in own.values()):
                return
            if not entries:
                if self._tape.conditional or clock() >= until:
                    return
                await self._tape.wait(self.lane, self.seen.place, min(0.1, PATIENCE))

    async def _jump(self) -> None:
        self._index.jump()
        await self.bind()

    async def bind(self) -> None:
        """Get the bytes of the last entry that was read, which the index file knows by their hash only."""
        last = self.seen
        if last.place:
            (entry,) = await self._tape.fetch(self.lane, [last.place])
            if not self._index.binds(self.lane, entry):
                raise LogRolledBack(f"record {last.place} is not the one that was read there before: restore the log")

    async def close(self) -> None:
        """Let the last group finish."""
        await self.idle()
        if self._task:
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
