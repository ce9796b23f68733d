"""One lane of a shard log: appends of many hosts in one batch, and one reading of its end for all who wait there."""

import asyncio
from bisect import bisect_left, bisect_right
from collections import deque
from typing import TYPE_CHECKING

from ..eventstore.errors import EventStoreError, LogRolledBack
from ..eventstore.tape import Entry, Seen
from .shard_wire import Chunk, size

if TYPE_CHECKING:
    from .shard_serving import Source

KEPT = 2 << 20
"""Bytes of a lane's end that are kept for those who come to read it."""
GROUP = 1 << 20
"""Bytes of records that are sent together."""
_LIMIT = 2_000
_WATCH, _RETRY = 1.0, 0.2


class _Sending:
    """An append on its way to the store."""

    def __init__(self, records: list[bytes]) -> None:
        self.records = records
        self.sent: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.sent.add_done_callback(lambda sent: sent.cancelled() or sent.exception())


class Lane:
    """``last``: how far the lane was read here, if anybody has asked. What stands before it is kept for a while.

    Of what is kept, ``_before`` is the place before the first entry, and ``_lasts`` says where each reading ended.
    """

    def __init__(self, number: int, source: "Source") -> None:
        self._number, self._source = number, source
        self._entries: list[Entry] = []
        self._lasts: list[Seen] = []
        self._before = self._bytes = 0
        self.last: Seen | None = None
        self._turn = asyncio.Lock()
        self._ended: tuple[int, float] = (-1, 0.0)
        self._queue: deque[_Sending] = deque()
        self._sender: asyncio.Task[None] | None = None
        self._waiting: set[asyncio.Future[None]] = set()
        self._watcher: asyncio.Task[None] | None = None

    # Reading

    async def read(self, seen: Seen) -> Chunk:
        """What stands behind ``seen``; nothing, if the store was asked after this was called, and the lane ends there.

        Raises `LogRolledBack` if something else was read there.
        """
        asked = asyncio.get_running_loop().time()
        if found := self._kept(seen):
            return found
        if self.last and seen.place < self.last.place:
            return await self._from_store(seen)
        async with self._turn:
            if found := self._kept(seen):
                return found
            place, when = self._ended
            if place == seen.place and when >= asked:
                return Chunk(seen.place, [], seen)
            began = asyncio.get_running_loop().time()
            chunk = await self._from_store(seen)
            if not chunk.entries:
                self._ended = seen.place, began
            self._keep(chunk)
        return chunk

    async def _from_store(self, seen: Seen) -> Chunk:
        entries, last = await self._source.read_behind(self._number, seen, _LIMIT)
        return Chunk(seen.place, entries, last)

    def _kept(self, seen: Seen) -> Chunk | None:
        """What is kept behind a place, if it is, and not more than goes together."""
        self._stands(seen)
        entries, begin = self._entries, _behind(self._entries, seen.place)
        if seen.place < self._before or begin == len(entries):
            return None
        at, weight = begin, len(entries[begin].raw)
        while at + 1 < len(entries) and weight < GROUP:
            at, weight = at + 1, weight + len(entries[at + 1].raw)
        last = self._lasts[bisect_left(self._lasts, entries[at].place, key=lambda one: one.place)]
        return Chunk(seen.place, entries[begin : _behind(entries, last.place)], last)

    def _stands(self, seen: Seen) -> bool:
        """Whether what was read at a place is known to be what is kept there; `LogRolledBack` if it is not."""
        if not (self._entries and self._before < seen.place <= self._entries[-1].place):
            return not seen.place
        entry = self._entries[_behind(self._entries, seen.place) - 1]
        if seen.digest and (entry.place != seen.place or Seen.of(entry).digest != seen.digest):
            raise LogRolledBack(
                f"lane {self._number}: what was read at place {seen.place} is not what its shard log has read there. "
                "Stop every writer, see docs/kafka.md"
            )
        return bool(seen.digest)

    def _keep(self, chunk: Chunk) -> None:
        """Remember what was read at the lane's end, and tell who waits for it."""
        if self.last and chunk.after < self.last.place:
            return
        if self.last is None or chunk.after > self.last.place:
            self._entries, self._lasts, self._bytes, self._before = [], [], 0, chunk.after
        self.last = chunk.last
        if chunk.entries:
            self._entries += chunk.entries
            self._lasts.append(chunk.last)
            self._bytes += _weight(chunk.entries)
            if self._bytes > KEPT:
                self._shorten()
            self._wake()

    def _shorten(self) -> None:
        """Keep the newest half, and in any case what was read last."""
        gone = 0
        while self._bytes > KEPT // 2 and len(self._lasts) > 1:
            until = _behind(self._entries, self._lasts.pop(0).place)
            self._bytes -= _weight(self._entries[gone:until])
            gone = until
        if gone:
            self._before = self._entries[gone - 1].place
            del self._entries[:gone]

    async def more(self, seen: Seen, hold: float) -> Chunk:
        """What stands behind ``seen``, waited for up to ``hold`` seconds."""
        chunk = Chunk(seen.place, [], seen)
        if self.last is None or self.last.place != seen.place:
            chunk = await self.read(seen)
        if chunk.entries:
            return chunk
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.create_task(self._watching())
        try:
            async with asyncio.timeout(hold):
                await waiter
        except TimeoutError:
            return chunk
        finally:
            self._waiting.discard(waiter)
        return self._kept(seen) or chunk

    async def _watching(self) -> None:
        """Read on as soon as there is more, for as long as somebody waits. What goes wrong, whoever reads is told."""
        while self._waiting and self.last:
            seen = self.last
            try:
                await self._source.wait(self._number, seen.place, _WATCH)
                if self.last == seen:
                    await self.read(seen)
            except EventStoreError:
                self._wake()
                await asyncio.sleep(_RETRY)

    def _wake(self) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    # Appending

    async def append(self, records: list[bytes], seen: Seen) -> Chunk:
        """Send records, with those of others that come meanwhile; what stands behind ``seen`` then.

        Raises `Indefinite` if nobody knows whether they stand, another error if they do not.
        """
        if not self._stands(seen):
            await self._source.check(self._number, seen)
        sending = _Sending(records)
        self._queue.append(sending)
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send())
        end = await asyncio.shield(sending.sent)
        try:
            while self.last and self.last.place < end and (await self.read(self.last)).entries:
                continue
            return await self.read(seen)
        except EventStoreError:  # they were sent all the same: whoever reads on is told
            return Chunk(seen.place, [], seen)

    async def _send(self) -> None:
        while self._queue:
            group = [self._queue.popleft()]
            weight = size(group[0].records)
            while self._queue and weight + size(self._queue[0].records) <= GROUP:
                group.append(self._queue.popleft())
                weight += size(group[-1].records)
            end, error = 0, None
            try:
                records = [raw for sending in group for raw in sending.records]
                end = await self._source.send(self._number, records, self.last.place if self.last else 0)
            except Exception as raised:  # whatever it is, it is the writers'
                error = raised
            for sending in group:
                if not sending.sent.done():
                    if error:
                        sending.sent.set_exception(error)
                    else:
                        sending.sent.set_result(end)

    async def close(self) -> None:
        """Stop reading and sending."""
        tasks = [task for task in (self._sender, self._watcher) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _behind(entries: list[Entry], place: int) -> int:
    """How many entries stand at or before a place."""
    return bisect_right(entries, place, key=lambda entry: entry.place)


def _weight(entries: list[Entry]) -> int:
    return size([entry.raw for entry in entries])
