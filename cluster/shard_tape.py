"""The tape of a host in a cluster: the lanes of the log by way of shard logs, which several hosts share.

It promises what the tape under the shard logs promises. What a shard log says of the store's bytes is believed as a
broker is; what they are worth, the rule decides here. Where no answer comes, an append is `Indefinite`, and a reading
is asked for again.

What was read last in a lane is told with each reading (a hash and an epoch), so any shard log can go on where another
one came to, and see whether it is the same lane up to there.
"""

import asyncio
import itertools
import os
from collections.abc import Sequence
from typing import NamedTuple

from ..eventstore.errors import StoreBusyError, StoreError
from ..eventstore.tape import Attempt, Entry, Indefinite, Seen
from ..eventstore.verify import Identity
from .shard_calls import Calls, Line, Lost
from .shard_wire import Answer, Append, Chunk, Failed, Fetch, Found, Holds, Identify, Read, Request

DEADLINE = 15.0
"""Seconds within which an append is answered: longer than a shard log has for it."""
PATIENCE = 20.0
"""Seconds for which a reading is asked for again and again."""
HOLD = 2.0
CALLS, WAITS = 4, 64
"""Calls to one shard log that nothing was said to yet: of those that are answered at once, and of those that wait."""
_PAUSE = 0.05
_PLACES = 64


class _Held(NamedTuple):
    """What a lane's shard log has said and nobody has read here yet. ``seen``: what was read last."""

    seen: Seen
    entries: list[Entry]
    last: Seen


class ShardTape:
    """See the module's text. ``lanes`` is known once `identity` or `found` has been answered.

    Each lane has one of the lines, by its number.
    """

    conditional = False

    def __init__(self, lines: Sequence[Line]) -> None:
        client, numbers = os.urandom(8), itertools.count(1)
        self._calls = [Calls(line, client, numbers, CALLS) for line in lines]
        self._waits = [Calls(line, client, numbers, WAITS) for line in lines]
        self._held: dict[int, _Held] = {}
        self.lanes = 1

    async def identity(self) -> Identity | None:
        return self._learnt(await self._repeated(0, Identify()))

    async def found(self, log: Identity) -> None:
        try:
            answer = await self._calls[0].ask(Found(log.root, log.slices, log.nonce), DEADLINE)
        except Lost as error:
            raise StoreBusyError(f"whether the log was founded is not known ({error}): open it again") from error
        self._learnt(answer)

    async def append(self, lane: int, records: Sequence[bytes], after: Entry) -> Attempt:
        try:
            answer = await self._of(lane).ask(Append(lane, list(records), Seen.of(after)), DEADLINE)
        except Lost as error:
            if not error.sent:
                raise StoreBusyError(f"nothing of this was written, no shard log was reached: {error}") from error
            raise Indefinite(f"whether the records stand is unknown, their shard log is silent: {error}") from error
        self._keep(lane, _chunk(answer))
        return Attempt(True, [])

    def append_at_once(self, lane: int, records: Sequence[bytes], after: Entry) -> Attempt | None:
        return None

    async def read(self, lane: int, after: int, limit: int) -> list[Entry]:
        seen, entries, last = self._at(lane, after)
        if not entries:
            chunk = _chunk(await self._repeated(lane, Read(lane, seen)))
            entries, last = chunk.entries, chunk.last
        taken, rest = entries[:limit], entries[limit:]
        if taken:
            seen = Seen.of(taken[-1]) if rest else last
        self._held[lane] = _Held(seen, rest, last)
        return taken

    async def fetch(self, lane: int, places: Sequence[int]) -> list[Entry]:
        found: list[Entry] = []
        for begin in range(0, len(places), _PLACES):
            some = list(places[begin : begin + _PLACES])
            found += _chunk(await self._repeated(lane, Fetch(lane, some))).entries
        if [entry.place for entry in found] != list(places):
            raise StoreError(f"a shard log answers with other places of lane {lane} than it was asked for")
        return found

    async def wait(self, lane: int, after: int, timeout: float) -> None:
        clock = asyncio.get_running_loop().time
        until = clock() + timeout
        while (left := until - clock()) > 0:
            seen, entries, _ = self._at(lane, after)
            if entries:
                return
            try:
                waits = self._waits[lane % len(self._waits)]
                answer = await waits.ask(Read(lane, seen, min(left, HOLD)), DEADLINE)
            except Lost:
                await asyncio.sleep(min(_PAUSE, left))
                continue
            if isinstance(answer, Chunk):
                self._keep(lane, answer)
            if not isinstance(answer, Chunk) or answer.entries or self._has_read_on(lane, after):
                return

    async def close(self) -> None:
        for calls in (*self._calls, *self._waits):
            await calls.close()

    def _of(self, lane: int) -> Calls:
        return self._calls[lane % len(self._calls)]

    def _at(self, lane: int, after: int) -> _Held:
        """What is held behind a place; nothing, if another one was read last."""
        held = self._held.get(lane)
        return held if held and held.seen.place == after else _Held(Seen(after), [], Seen(after))

    def _has_read_on(self, lane: int, after: int) -> bool:
        held = self._held.get(lane)
        return held is not None and held.seen.place > after

    def _keep(self, lane: int, chunk: Chunk) -> None:
        """Hold what came by the way, for whoever reads next."""
        held = self._held.get(lane) or self._at(lane, chunk.after)
        if held.seen.place == chunk.after and chunk.last.place > held.last.place:
            self._held[lane] = _Held(held.seen, chunk.entries, chunk.last)

    def _learnt(self, answer: Answer) -> Identity | None:
        if isinstance(answer, Failed):
            raise answer.raised()
        if not isinstance(answer, Holds):
            raise StoreError("a shard log does not say which log it holds")
        self.lanes = answer.lanes
        return answer.identity

    async def _repeated(self, lane: int, request: Request) -> Answer:
        """An answer to what may be asked any number of times."""
        clock = asyncio.get_running_loop().time
        until = clock() + PATIENCE
        while True:
            try:
                return await self._of(lane).ask(request, max(_PAUSE, until - clock()))
            except Lost as error:
                if clock() + _PAUSE >= until:
                    raise StoreBusyError(
                        f"no shard log answered within {PATIENCE:g} s ({error}): see that the cluster runs, try again"
                    ) from error
            await asyncio.sleep(_PAUSE)


def _chunk(answer: Answer) -> Chunk:
    if isinstance(answer, Failed):
        raise answer.raised()
    if not isinstance(answer, Chunk):
        raise StoreError("a shard log answers something else than it was asked")
    return answer
