"""Group commit: many streams' records in one append, each acknowledged only after it was read back and accepted.

The loop is the same for every tape. Build on what was read, append, read what stands behind it, judge it by the rule.
Then for each record still open: while the rule would accept its bytes if they came next, the same bytes are sent
again. Once it would not, it never will (heads do not repeat, ended grants do not return): then it is first looked
for in what was read, and if it is not there, prepared again, which either signs anew or says why not.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from .backends.index_file import IndexDamaged
from .commit import Built
from .errors import AppendError, LogError, LogRolledBack, StoreBusyError, StoreError, UnknownOutcomeError
from .index import Behind, Held, Index
from .pending import Appended, Pending, SliceSealed
from .tape import START, Attempt, Entry, Indefinite, Tape
from .verify import SLICE_STREAM, SliceState, StreamState, judge, parse, slice_of

GROUP = 256
PATIENCE = 1.0
"""Seconds to read on for a record before the same bytes are sent again."""
_HEALINGS = 3
_TURNS = 8
"""Turns of the event loop for which the first of a group waits at most, as long as others come."""


class Appender:
    """The one writer of a lane in this process. Holds the lane's lock while it reads and writes.

    ``heal(generation)``: read everything again, because the index of that generation is damaged. ``others()``: read on
    in the other lanes, because of `Held`. ``held``: that was why reading ended.
    """

    def __init__(self, lane: int, tape: Tape, index: Index, put_blob: Callable[[bytes], Awaitable[None]]) -> None:
        self.lane, self._tape, self._index, self._put_blob = lane, tape, index, put_blob
        self.lock = asyncio.Lock()
        self.grown: Callable[[], None] = lambda: None
        self.heal: Callable[[int], Awaitable[None]] | None = None
        self.others: Callable[[], Awaitable[None]] | None = None
        self.held = False
        self._queue: list[Pending] = []
        self._gathering = False
        self._task: asyncio.Task[None] | None = None

    async def submit(self, pending: Pending) -> None:
        """Queue an append, and wait until it is done or `Pending.tell` is called.

        The first one of a turn of the event loop lets the others of that turn come, and sends them all, if that can
        be done without waiting; else a task does. Cancelling this does not stop the append.
        """
        self._queue.append(pending)
        if not self._gathering and (self._task is None or self._task.done()):
            self._gathering = True
            try:
                await self._gather()
            finally:
                self._gathering = False
                if self._queue:
                    self._task = asyncio.get_running_loop().create_task(self._run())
        await pending.told()

    async def _gather(self) -> None:
        """Wait for as long as others come, and send them all."""
        for _ in range(_TURNS):
            count = len(self._queue)
            await asyncio.sleep(0)
            if len(self._queue) == count:
                break
        group, self._queue = self._queue[:GROUP], self._queue[GROUP:]
        if not self._is_settled_at_once(group):
            self._queue = group + self._queue

    async def idle(self) -> None:
        """Wait until nothing is queued."""
        while self._gathering or (self._task and not self._task.done()):
            if self._task and not self._task.done():
                await asyncio.wait([self._task])
            else:
                await asyncio.sleep(0)

    async def _run(self) -> None:
        while self._queue:
            group, self._queue = self._queue[:GROUP], self._queue[GROUP:]
            if not self._is_settled_at_once(group):
                try:
                    await self._settled(group)
                except Exception as error:  # every waiter must hear of it, whatever it is
                    for pending in group:
                        pending.fail(error)
                self.grown()
            await asyncio.sleep(0)

    def _is_settled_at_once(self, group: list[Pending]) -> bool:
        """Settle a group without waiting for anything, as nearly all can be on a quick tape. False: `_settled`."""
        if self.lock.locked() or not self._index.is_bound(self.lane):
            return False
        try:
            return self._settle_at_once([pending for pending in group if not pending.done])
        except (Behind, Held, IndexDamaged, Indefinite):
            return False
        except Exception as error:  # as in `_run`
            for pending in group:
                pending.fail(error)
            return True

    def _settle_at_once(self, group: list[Pending]) -> bool:
        for pending in group:
            if self._build(pending) or (pending.built and pending.built.blobs):
                return False
        own = {pending.built.raw: pending for pending in group if pending.built}
        if own and (attempt := self._placed_at_once(group, list(own))):
            for entry in attempt.entries:
                self._take(entry, own)
            self.grown()
        return all(pending.done for pending in group)

    def _placed_at_once(self, group: list[Pending], raws: list[bytes]) -> Attempt | None:
        unmark = _marked_as_sent(group)
        try:
            self._index.make_room()
            attempt = self._tape.append_at_once(self.lane, raws, self.seen)
        except Indefinite:
            raise
        except (StoreError, LogError):
            unmark()
            raise
        if attempt is None or not attempt.placed:
            unmark()
        return attempt

    async def _settled(self, group: list[Pending]) -> None:
        """Settle a group, over a damaged index if need be: its records are found again where they stand."""
        healings = 0
        while True:
            generation = self._index.generation
            try:
                async with self.lock:
                    await self._settle(group)
                return
            except IndexDamaged:
                healings += 1
                if self.heal is None or healings == _HEALINGS:
                    raise
                await self.heal(generation)
            except Held:
                self._expire(group)
                if self.others is None:
                    raise
                await self.others()

    async def _settle(self, group: list[Pending]) -> None:
        while group := await self._prepared(group):
            own = {pending.built.raw: pending for pending in group if pending.built}
            attempt = await self._append(group, list(own))
            if attempt:
                await self.take(attempt.entries, own)
            if attempt is None or not self._tape.conditional:
                await self._read_on(own)
            self._expire(group)

    async def _append(self, group: list[Pending], raws: list[bytes]) -> Attempt | None:
        """Send the records; None if nobody can say whether they were placed."""
        unmark = _marked_as_sent(group)
        try:
            self._index.make_room()
            await self.bind()
            attempt = await self._tape.append(self.lane, raws, self.seen)
        except Indefinite:
            return None
        except (StoreError, LogError):
            unmark()
            raise
        if not attempt.placed:
            unmark()
        return attempt

    async def _prepared(self, group: list[Pending]) -> list[Pending]:
        """Those that have bytes to send, all built on what was read so far; the others are answered."""
        caught_up = False
        while True:
            seen, refused = self.seen.place, list[tuple[Pending, AppendError]]()
            for pending in group:
                if not pending.done and (refusal := await self._ready(pending)):
                    refused.append((pending, refusal))
            if refused and not caught_up:  # refuse on the newest state only: a grant may not have been read yet
                caught_up = True
                await self.catch_up()
            elif seen == self.seen.place:  # else what was built first may be stale, and the tape would not know
                for pending, refusal in refused:
                    pending.fail(refusal)
                return [pending for pending in group if not pending.done]

    async def _ready(self, pending: Pending) -> AppendError | None:
        """Build what is to be sent, and put what belongs into the blobs there first."""
        await self.state(pending.stream)
        refusal = self._build(pending)
        if refusal or not (built := pending.built) or built is pending.complete:
            return refusal
        try:
            for blob in built.blobs:
                await self._put_blob(blob)
            pending.complete = built
        except AppendError as error:
            return error
        except Exception as error:  # one caller's mistake is no other's
            pending.fail(error)
        return None

    def _build(self, pending: Pending) -> AppendError | None:
        """See that a pending append has bytes which the rule would accept now; or why it is refused."""
        number = slice_of(self._index.log, pending.stream)
        part = self._index.part(number)[0]
        sealed = part.sealed and not SLICE_STREAM.fullmatch(pending.stream)
        if sealed or self._index.lane_of(number) != self.lane:
            if self._stands(pending):
                return None
            return SliceSealed(pending.stream.decode(), f"slice {number} is sealed, or goes on in another lane")
        state = self._index.state(pending.stream)
        if (built := pending.built) and pending.basis:
            if pending.basis == (state, part) or self._acceptable(built, state, part):
                return None
            if self._stands(pending):
                return None
        pending.built, pending.basis, pending.sent = None, None, False
        try:
            built = pending.prepare(state, part)
        except AppendError as refusal:
            return refusal
        except Exception as error:  # one caller's mistake is no other's
            pending.fail(error)
            return None
        if built is None:
            pending.succeed(None)
        else:
            pending.built, pending.basis = built, (state, part)
        return None

    def _stands(self, pending: Pending) -> bool:
        """Whether what was sent was accepted without this append being told; then it is now."""
        built = pending.built if pending.sent else None
        position = self._index.find(pending.stream, built.commit) if built else None
        if built is None or position is None:
            return False
        pending.succeed(Appended(built.revision, built.commit, built.slice, position, built.time, built.size))
        return True

    def _acceptable(self, built: Built, state: StreamState, part: SliceState) -> bool:
        """Whether the rule would accept these very bytes if they came next."""
        return not judge(self._index.log, part, state, parse(built.raw), own=True).finding

    def _expire(self, group: list[Pending]) -> None:
        now = asyncio.get_running_loop().time()
        for pending in group:
            if now > pending.deadline and pending.built:
                stream = pending.stream.decode()
                unsent = StoreBusyError(f"other processes kept {stream} out until its deadline; nothing was written")
                pending.fail(UnknownOutcomeError(stream, pending.built.commit) if pending.sent else unsent)

    async def state(self, stream: bytes) -> StreamState:
        """A stream's state, having caught up with other processes' index where needed. Call with the lock held."""
        while True:
            try:
                return self._index.state(stream)
            except Behind:
                await self._jump()

    @property
    def seen(self) -> Entry:
        """The last entry of this lane that was read."""
        return self._index.seen.get(self.lane, START)

    async def take(self, entries: list[Entry], own: dict[bytes, Pending]) -> None:
        """Judge what stands on the tape next, and answer those whose records are among it."""
        for entry in entries:
            while True:
                try:
                    self._take(entry, own)
                    break
                except Behind:
                    await self._jump()

    def _take(self, entry: Entry, own: dict[bytes, Pending]) -> None:
        pending = own.get(entry.raw)
        position = self._position(entry, pending)
        if pending and pending.built and position is not None:
            built = pending.built
            pending.succeed(Appended(built.revision, built.commit, built.slice, position, built.time, built.size))

    def _position(self, entry: Entry, own: Pending | None) -> int | None:
        """The position of an entry, or None if the rule did not accept it."""
        if entry.place <= self.seen.place:
            return self._index.position_at(self.lane, entry.place)
        if own and own.built and own.basis:
            known = self._index.take_own(self.lane, entry, own.built, *own.basis)
            if known is not None:
                return known
        taken = self._index.take(self.lane, entry, own=own is not None)
        return None if taken.finding else taken.position

    async def read(self, limit: int = 2_000) -> bool:
        """Read on by up to ``limit`` entries; False at the end, or where it is `held`. Call with the lock held."""
        entries = await self._tape.read(self.lane, self.seen.place, limit)
        try:
            await self.take(entries, {})
            self.held = False
        except Held:
            self.held = True
        return bool(entries) and not self.held

    async def catch_up(self) -> None:
        """Read to the end. Call with the lock held."""
        while await self.read():
            pass

    async def _read_on(self, own: dict[bytes, Pending]) -> None:
        """Read until nothing of one's own can come any more, or for as long as one is patient."""
        clock = asyncio.get_running_loop().time
        until = clock() + PATIENCE
        while True:
            entries = await self._tape.read(self.lane, self.seen.place, 2_000)
            await self.take(entries, own)
            if not any([await self._may_come(pending) for pending in own.values() if not pending.done]):
                return
            if not entries:
                if (left := until - clock()) <= 0:
                    return
                await self._tape.wait(self.lane, self.seen.place, left)

    async def _may_come(self, pending: Pending) -> bool:
        state = await self.state(pending.stream)
        if pending.built is None or pending.basis is None:
            return False
        part = self._index.part(pending.built.slice)[0]
        return pending.basis == (state, part) or self._acceptable(pending.built, state, part)

    async def _jump(self) -> None:
        self._index.jump(self.lane)
        await self.bind()

    async def bind(self) -> None:
        """Get the bytes of the last entry that was read, where the index file knew it by its hash only."""
        if not self._index.is_bound(self.lane):
            await self.confirm()

    async def confirm(self) -> None:
        """Raise `LogRolledBack` if the last entry that was read is not where it was. Call with the lock held."""
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


def _marked_as_sent(group: list[Pending]) -> Callable[[], None]:
    """Mark them, and return what takes that back."""
    before = [pending.sent for pending in group]
    for pending in group:
        pending.sent = True

    def unmark() -> None:
        for pending, sent in zip(group, before, strict=True):
            pending.sent = sent

    return unmark
