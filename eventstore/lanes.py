"""All lanes of an open log's tape, and the index that they fill: read at the start, and again when it is damaged."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar

from .appending import Appender
from .backends.index_file import IndexDamaged, IndexFile, delete
from .errors import EventStoreError, LogRolledBack, StoreBusyError, StoreError, UnknownOutcomeError
from .index import Behind, Index
from .pending import Appended, Pending, Prepare, SliceSealed
from .tape import Tape
from .verify import MAX_STREAM, STREAM, Identity, StreamState, slice_of

P = ParamSpec("P")
T = TypeVar("T")
_AGAIN = 0.02
LAG = 5.0
"""Seconds in which a tape of several brokers may show less than it holds: one that led before, and is back, shows what
it had until it hears who leads now."""
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
        self._turns: dict[str, deque[asyncio.Future[None]]] = {}
        self._doubts: dict[bytes, Pending] = {}
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
            appender.grown, appender.heal, appender.others = self._grown, self.heal, self._read_others

    def of(self, stream: bytes) -> Appender:
        """The appender of the lane in which a stream's slice goes on."""
        return self.appenders[self.index.lane_of(slice_of(self._identity, stream))]

    async def submit(self, stream: str, prepare: Prepare, deadline: float) -> Appended | None:
        """Append in turn with the others on the stream, within ``deadline`` seconds."""
        name, loop = stream.encode(errors="replace"), asyncio.get_running_loop()
        if len(name) > MAX_STREAM or not STREAM.fullmatch(name):
            raise EventStoreError(f"{stream!r} is no stream name: use kind/name, at most 200 letters, digits, . _ ~ -")
        until = loop.time() + deadline
        if stream in self._turns:
            await self._turn(stream, until)
        else:
            self._turns[stream] = deque()
        try:
            if name in self._doubts:
                await self._resolve(stream, name, until)
            if self._closed:
                raise StoreError("the log is closed")
            return await self._appended(stream, name, prepare, until)
        finally:
            self._pass_on(stream)

    async def _appended(self, stream: str, name: bytes, prepare: Prepare, until: float) -> Appended | None:
        """Append where the stream's slice goes on; while it is sealed, wait until it is opened again."""
        clock = asyncio.get_running_loop().time
        while True:
            try:
                return await self._answer(stream, Pending(name, prepare, until, self._found_out))
            except SliceSealed as error:
                if clock() + _AGAIN >= until:
                    late = f"the slice of {stream} was sealed and is not open yet; nothing was written: try again"
                    raise StoreBusyError(late) from error
            await asyncio.sleep(_AGAIN)
            await self.catch_up()

    def in_doubt(self, stream: bytes) -> bool:
        """Whether it is not known what became of the last append on a stream."""
        return stream in self._doubts

    async def _turn(self, stream: str, until: float) -> None:
        """Wait until those who were first on the stream are done."""
        turn = asyncio.get_running_loop().create_future()
        self._turns[stream].append(turn)
        try:
            async with asyncio.timeout_at(until):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self._pass_on(stream)
            turn.cancel()
            if not isinstance(error, TimeoutError):
                raise
            raise StoreBusyError(f"earlier appends on {stream} are not done; nothing of this one was written") from None

    def _pass_on(self, stream: str) -> None:
        """The stream's next one may go; who has gone away meanwhile is passed over."""
        turns = self._turns[stream]
        while turns:
            turn = turns.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        del self._turns[stream]

    async def _answer(self, stream: str, pending: Pending) -> Appended | None:
        """What became of an append; if that is not known yet, the next one on the stream will find out first."""
        self._doubts[pending.stream] = pending
        if self._timer is None or pending.deadline + GRACE < self._timer.when():
            self._tell_by(pending.deadline + GRACE)
        await self.of(pending.stream).submit(pending)
        if not pending.done:
            if pending.sent and pending.built:
                raise UnknownOutcomeError(stream, pending.built.commit)
            pending.fail(StoreBusyError(f"the store did not answer in time for {stream}; nothing was written"))
        return pending.result()

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

    def _found_out(self, pending: Pending) -> None:
        if self._doubts.get(pending.stream) is pending and not isinstance(pending.error, UnknownOutcomeError):
            del self._doubts[pending.stream]

    async def _resolve(self, stream: str, name: bytes, until: float) -> None:
        """Find out what became of an append whose caller was not told."""
        doubt = self._doubts[name]
        try:
            async with asyncio.timeout_at(until):
                while not doubt.done:
                    await doubt.told()
                await self.mended(self._catch_up, self.of(name))
        except TimeoutError:
            raise StoreBusyError(f"what became of an earlier append on {stream} is still unknown") from None
        self._doubts.pop(name, None)

    async def catch_up(self) -> None:
        """Read every lane to its end, and see that what was read before is still there."""
        await _whole(self.appenders, lambda appender: self.mended(self._catch_up, appender))

    async def _read_others(self) -> None:
        """Read on everywhere, for an append in a lane where nothing can be read before another lane is."""
        await asyncio.sleep(_AGAIN)
        await self.catch_up()

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
            appenders = self._over(index)
            for appender in appenders:
                await appender.bind()
            await self._read_until(appenders, lambda: check(index))
        except BaseException:
            file.close()
            raise
        return index

    async def _read_until(self, appenders: Sequence[Appender], check: Callable[[], None]) -> None:
        """Read to the end; on where it does not hold what must be there, for a broker that was away may not know it."""
        clock = asyncio.get_running_loop().time
        late = clock() + (0 if self._tape.conditional else LAG)
        while True:
            await _whole(appenders, Appender.catch_up)
            try:
                return check()
            except LogRolledBack:
                if clock() >= late:
                    raise
            await asyncio.sleep(_AGAIN)

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


async def _whole(appenders: Sequence[Appender], read: Callable[[Appender], Awaitable[None]]) -> None:
    """Read all lanes, as often as one that was held up by another can go on."""
    while True:
        before = [appender.seen.place for appender in appenders]
        for appender in appenders:
            await read(appender)
        held = any(appender.held for appender in appenders)
        if not held or before == [appender.seen.place for appender in appenders]:
            return


def _continues(index: Index, known: dict[int, tuple[int, bytes]]) -> None:
    for number, (size, root) in known.items():
        if index.position(number) < size or index.root_at(number, size) != root:
            raise LogRolledBack(
                f"the first {size} commits of slice {number} are not the ones that this process has read: "
                "stop every writer and restore the newest copy"
            )
