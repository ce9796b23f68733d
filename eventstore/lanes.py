"""All lanes of an open log's tape, and the index that they fill: read at the start, and again when it is damaged."""

import asyncio
import contextlib
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from .appending import Appended, Appender, Pending, Prepare
from .backends.index_file import IndexDamaged, IndexFile, delete
from .errors import EventStoreError, LogRolledBack, StoreBusyError, StoreError, UnknownOutcomeError
from .index import Behind, Index
from .tape import Tape
from .verify import MAX_STREAM, STREAM, Identity, StreamState, slice_of

P = ParamSpec("P")
T = TypeVar("T")
GRACE = 1.0
"""Seconds after an append's deadline in which what the store says last is still waited for."""


class Lanes:
    """One `Appender` for each lane over one `Index`. ``grown()`` is called when something new was read."""

    index: Index
    appenders: list[Appender]

    def __init__(
        self,
        identity: Identity,
        tape: Tape,
        path: Path,
        secret: bytes,
        put_blob: Callable[[bytes], Awaitable[None]],
        grown: Callable[[], None],
    ) -> None:
        self._identity, self._tape, self._path, self._secret = identity, tape, path, secret
        self._put_blob, self._grown = put_blob, grown
        self._healing = asyncio.Lock()
        self._turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._doubts: dict[str, Pending] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    async def start(self, check: Callable[[Index], None]) -> None:
        """Read the tape to its end. ``check`` raises `LogRolledBack` if what was read is not what must be there."""
        try:
            self.index = await self._read_all(check)
        except (IndexDamaged, LogRolledBack):
            # The index is never truth: whether the tape or the index is wrong shows when it is read without one.
            delete(self._path)
            self.index = await self._read_all(check)
        self.appenders = self._over(self.index)
        for appender in self.appenders:
            appender.grown, appender.heal = self._grown, self.heal

    def of(self, stream: bytes) -> Appender:
        """The appender of the lane in which a stream lies."""
        return self.appenders[slice_of(self._identity, stream) * self._tape.lanes // self._identity.slices]

    async def submit(self, stream: str, prepare: Prepare, deadline: float) -> Appended | None:
        """Append in turn with the others on the stream, within ``deadline`` seconds."""
        name, loop = stream.encode(errors="replace"), asyncio.get_running_loop()
        if len(name) > MAX_STREAM or not STREAM.fullmatch(name):
            raise EventStoreError(f"{stream!r} is no stream name: use kind/name, at most 200 letters, digits, . _ ~ -")
        until = loop.time() + deadline
        turn = await self._turn(stream, until)
        try:
            await self._resolve(stream, name, until)
            if self._closed:
                raise StoreError("the log is closed")
            pending = Pending(name, prepare, until)
            self.of(name).submit(pending)
            return await self._answer(stream, pending)
        finally:
            turn.release()

    async def _turn(self, stream: str, until: float) -> asyncio.Lock:
        """The stream's lock, held."""
        turn = self._turns.get(stream)
        if turn is None:  # nobody has it or waits for it, so that neither does this
            turn = self._turns[stream] = asyncio.Lock()
            await turn.acquire()
            return turn
        try:
            async with asyncio.timeout_at(until):
                await turn.acquire()
        except TimeoutError:
            raise StoreBusyError(f"earlier appends on {stream} are not done; nothing of this one was written") from None
        return turn

    async def _answer(self, stream: str, pending: Pending) -> Appended | None:
        """What became of an append; if that is not known yet, the next one on the stream will find out first."""
        self._doubts[stream] = pending
        self._tell_by(pending.deadline + GRACE)
        try:
            await pending.told()
        finally:
            if pending.done.done():
                self._found_out(stream, pending)
            else:
                pending.done.add_done_callback(lambda _: self._found_out(stream, pending))
        if not pending.done.done():
            if pending.sent and pending.built:
                raise UnknownOutcomeError(stream, pending.built.commit)
            pending.fail(StoreBusyError(f"the store did not answer in time for {stream}; nothing was written"))
        return pending.done.result()

    def _tell_by(self, until: float) -> None:
        """Have those who wait for longer than they may look at the clock: one timer for all of them."""
        if self._timer is None or until < self._timer.when():
            if self._timer:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_at(until, self._tell_late)

    def _tell_late(self) -> None:
        self._timer, now = None, asyncio.get_running_loop().time()
        for pending in self._doubts.values():
            if pending.deadline + GRACE <= now:
                pending.tell()
            else:
                self._tell_by(pending.deadline + GRACE)

    def _found_out(self, stream: str, pending: Pending) -> None:
        unknown = not pending.done.cancelled() and isinstance(pending.done.exception(), UnknownOutcomeError)
        if self._doubts.get(stream) is pending and not unknown:
            del self._doubts[stream]

    async def _resolve(self, stream: str, name: bytes, until: float) -> None:
        """Find out what became of an append whose caller was not told."""
        if doubt := self._doubts.get(stream):
            try:
                async with asyncio.timeout_at(until):
                    await asyncio.wait([doubt.done])
                    await self.mended(self._catch_up, self.of(name))
            except TimeoutError:
                raise StoreBusyError(f"what became of an earlier append on {stream} is still unknown") from None
            self._doubts.pop(stream, None)

    async def catch_up(self) -> None:
        """Read every lane to its end, and see that what was read before is still there."""
        for appender in self.appenders:
            await self.mended(self._catch_up, appender)

    async def read_on(self, appender: Appender) -> bool:
        """Read on in a lane; at its end, see that what was read before is still there. Whether anything was new."""
        async with appender.lock:
            grown = await appender.read()
            if not grown:
                await appender.confirm()
        return grown

    async def state(self, stream: bytes) -> StreamState:
        """The rule's state of a stream, as far as this process has read."""
        return await self.mended(self._state, stream)

    async def mended(self, ask: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """What ``ask`` answers; asked again once if it meets a damaged index, which is rebuilt in between."""
        generation = self.index.generation
        try:
            return await ask(*args, **kwargs)
        except IndexDamaged:
            await self.heal(generation)
            return await ask(*args, **kwargs)

    async def heal(self, generation: int) -> None:
        """Read everything again, without the index of this generation; nothing is done if it is not in use any more.

        Raises `LogRolledBack` if the tape is no longer a continuation of what this process has read.
        """
        async with self._healing, contextlib.AsyncExitStack() as stack:
            if self.index.generation != generation:
                return
            for appender in self.appenders:
                await stack.enter_async_context(appender.lock)
            known = {number: (tree.size, tree.root()) for number, (_, tree) in self.index.parts.items()}
            delete(self._path)
            self.index.adopt(await self._read_all(lambda index: _continues(index, known)))
        self._grown()

    async def finish(self) -> None:
        """Take no more appends, and wait for what is on its way."""
        self._closed = True
        for appender in self.appenders:
            await appender.close()

    def close(self) -> None:
        """Let go of the index."""
        if self._timer:
            self._timer.cancel()
        self.index.close()

    def _over(self, index: Index) -> list[Appender]:
        return [Appender(lane, self._tape, index, self._put_blob) for lane in range(self._tape.lanes)]

    async def _read_all(self, check: Callable[[Index], None]) -> Index:
        file = IndexFile(self._path, self._secret, self._identity.log_id)
        try:
            index = Index(self._identity, file, accepted_only=self._tape.conditional, lanes=self._tape.lanes)
            for appender in self._over(index):
                await appender.bind()
                await appender.catch_up()
            check(index)
        except BaseException:
            file.close()
            raise
        return index

    async def _catch_up(self, appender: Appender) -> None:
        async with appender.lock:
            await appender.confirm()
            await appender.catch_up()

    async def _state(self, stream: bytes) -> StreamState:
        with contextlib.suppress(Behind):
            return self.index.state(stream)
        appender = self.of(stream)
        async with appender.lock:
            return await appender.state(stream)


def _continues(index: Index, known: dict[int, tuple[int, bytes]]) -> None:
    for number, (size, root) in known.items():
        if index.position(number) < size or index.root_at(number, size) != root:
            raise LogRolledBack(
                f"the first {size} commits of slice {number} are not the ones that this process has read: "
                "stop every writer and restore the newest copy"
            )
