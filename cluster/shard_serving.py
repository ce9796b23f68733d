"""A shard log: one client of the store serves many hosts. It sends their records together, and reads each lane once.

It holds no key, judges nothing, and has no say in what is acknowledged. What it gives out, it has read from the store;
what a store has answered to an append is nothing that it tells. If it dies, lingers or is doubled, an append is at
worst unknown to its writer, as when a broker's answer is lost.
"""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from ..eventstore.errors import StoreBusyError, StoreError
from ..eventstore.tape import Entry, Seen
from ..eventstore.verify import Identity
from .shard_lane import Lane
from .shard_wire import (
    Answer,
    Append,
    Ask,
    Chunk,
    Failed,
    Fetch,
    Found,
    Holds,
    Identify,
    Read,
    Request,
    Said,
    packed,
    size,
)
from .shard_wire import asked as parsed

PROMPT = 0.05
"""Seconds for which those of a call's requests that are done wait for the others."""
TOGETHER = 0.002
"""Seconds for which the first that have waited wait for others, so that they go together."""
SILENCE = 1.0
"""Seconds after which it says something, if only that there is nothing yet."""
_LOAD = 64 << 20
"""Bytes of records that it has in hand at most."""
_CALLS = 4_096
_FORGET = 60.0


class Source(Protocol):
    """The tape under a shard log: a `Tape` that goes on where another reader came to."""

    lanes: int

    async def identity(self) -> Identity | None: ...

    async def found(self, log: Identity) -> None: ...

    async def check(self, lane: int, seen: Seen) -> None: ...

    async def send(self, lane: int, records: Sequence[bytes], after: int) -> int: ...

    async def read_behind(self, lane: int, seen: Seen, limit: int) -> tuple[list[Entry], Seen]: ...

    async def fetch(self, lane: int, places: Sequence[int]) -> list[Entry]: ...

    async def wait(self, lane: int, after: int, timeout: float) -> None: ...

    async def close(self) -> None: ...


class _Call(NamedTuple):
    """Requests that are not answered yet, and their numbers; forgotten when their time is over."""

    tasks: dict[asyncio.Task[Answer], int]
    timer: asyncio.TimerHandle


class Shard:
    """See the module's text. Belongs to one event loop."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lanes: dict[int, Lane] = {}
        self._calls: dict[tuple[bytes, int], _Call] = {}
        self._told: dict[tuple[bytes, int], tuple[int, int]] = {}
        self._load = 0
        self._founding = asyncio.Lock()
        self._knows = False

    async def answer(self, message: bytes) -> bytes:
        """What there is to say to a client by now."""
        asked = parsed(message)
        name = asked.client, asked.call
        if isinstance(asked, Ask):
            if len(self._calls) >= _CALLS:
                busy = Failed.of(StoreBusyError("a shard log has too many calls in hand: try again"))
                return packed(Said([(number, busy) for number in range(len(asked.requests))]))
            tasks = {
                asyncio.ensure_future(self._answer(asked.client, one)): number
                for number, one in enumerate(asked.requests)
            }
            self._calls[name] = _Call(tasks, asyncio.get_running_loop().call_later(_FORGET, self._forget, name))
        elif name not in self._calls:
            return packed(Said([], known=False))
        waits = not isinstance(asked, Ask) or all(isinstance(one, Read) and one.hold for one in asked.requests)
        return packed(await self._said(name, waits))

    async def _said(self, name: tuple[bytes, int], waits: bool) -> Said:
        """The answers that there are: all that come promptly; of those that wait, the first that come."""
        tasks, timer = self._calls[name]
        if waits:
            done, _ = await asyncio.wait(tasks, timeout=SILENCE, return_when=asyncio.FIRST_COMPLETED)
            if len(done) < len(tasks):
                done, _ = await asyncio.wait(tasks, timeout=TOGETHER)
        else:
            done, _ = await asyncio.wait(tasks, timeout=PROMPT)
        answers = [(tasks.pop(task), task.result()) for task in done if task in tasks]
        if not tasks:
            self._calls.pop(name, None)
            timer.cancel()
        return Said(answers, more=bool(tasks))

    def _forget(self, name: tuple[bytes, int]) -> None:
        """Whoever asked has gone away."""
        if call := self._calls.pop(name, None):
            call.timer.cancel()
            for task in call.tasks:
                task.cancel()

    async def _answer(self, client: bytes, request: Request) -> Answer:
        try:
            match request:
                case Identify():
                    return await self._holds()
                case Found():
                    return await self._found(request)
                case Append():
                    return self._tells(client, request.lane, await self._appended(request))
                case Read(hold=0.0):
                    lane = await self._lane(request.lane)
                    return self._tells(client, request.lane, await lane.read(request.seen))
                case Read():
                    chunk = await (await self._lane(request.lane)).more(request.seen, request.hold)
                    after, last = self._told.pop((client, request.lane), (-1, 0))
                    told = after == chunk.after and chunk.last.place <= last
                    return Chunk(chunk.after, [], request.seen) if told else chunk
                case Fetch():
                    await self._lane(request.lane)
                    places = request.places
                    return Chunk(0, await self._source.fetch(request.lane, places), Seen(0))
        except asyncio.CancelledError:
            raise
        except Exception as error:  # whatever it is, it is the caller's
            return Failed.of(error)

    def _tells(self, client: bytes, lane: int, chunk: Chunk) -> Chunk:
        """Remember what a client gets that has just written or read, so that its waiting there brings it no copy."""
        if len(self._told) > _CALLS:
            self._told.clear()
        self._told[client, lane] = chunk.after, chunk.last.place
        return chunk

    async def _holds(self) -> Holds:
        held = await self._source.identity()
        self._knows = True
        return Holds(self._source.lanes, (held.root, held.slices, held.nonce) if held else None)

    async def _found(self, request: Found) -> Holds:
        async with self._founding:
            await self._source.found(request.log)
            return await self._holds()

    async def _appended(self, request: Append) -> Chunk:
        weight = size(request.records)
        if self._load and self._load + weight > _LOAD:
            raise StoreBusyError(f"a shard log has {self._load >> 20} MiB in hand; nothing of this was written")
        self._load += weight
        try:
            return await (await self._lane(request.lane)).append(request.records, request.seen)
        finally:
            self._load -= weight

    async def _lane(self, number: int) -> Lane:
        if not self._knows:  # where a log ends that was moved away shows to who knows which log it is
            await self._holds()
        if not 0 <= number < self._source.lanes:
            raise StoreError(f"lane {number} was asked of a shard log, and there are {self._source.lanes}")
        return self._lanes.setdefault(number, Lane(number, self._source))

    async def close(self) -> None:
        """Let go of the store. What was sent may stand."""
        for name in list(self._calls):
            self._forget(name)
        for lane in self._lanes.values():
            await lane.close()
        await self._source.close()
