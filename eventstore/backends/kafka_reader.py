"""Reading lanes: cursors that go on where the last read ended, one long poll for all lanes that are waited on, and
single places in batches of neighbours.

Memory is bounded: a cursor holds one page, a lane has few cursors, and a lane whose page nobody took is not polled.

A leader that takes over after an unclean loss may hold other records at places that were read. It writes under a
newer epoch, so whenever the epoch changes, the last entry that was read is looked at again before anything behind it
is handed out: the same bytes, written under the same epoch, mean the same lane up to there (as in Raft).
"""

import asyncio
import contextlib
import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Sequence

from ..errors import LogRolledBack, StoreError
from ..tape import Entry, Seen
from .kafka_batch import Page
from .kafka_client import Client, NotSent, sending
from .kafka_errors import NOT_LEADER
from .kafka_fetching import PAGE, Fetching
from .kafka_wire import Answer

_CURSORS = 3
_HOLD = 0.1
"""Seconds for which a leader holds back an answer while there is nothing."""
_LITTLE = 64 * 1024
"""Bytes of entries below which the next page is fetched too, if it is known that there is one."""
_AT_ONCE, _PIECES, _MANY = 8, 2, 2_000
"""Questions for places that leave in one piece; such pieces on their way at once; places that an answer may bring."""
_LAST_LOOK = 0.5
"""Seconds before a read is too late, in which it is asked whether what it waits for is gone."""
_RETRY, _READING = 0.2, 0.002
"""Seconds of rest for the poll: after an error; and after an answer, so that those who wait take it and ask again."""


class _Cursor:
    """``after``: the place up to which entries were handed out; ``offset``: where to fetch next.

    ``last``: the hash of the last entry handed out, and the epoch it was written under, if they are known.
    ``polled``: what the poll has brought for ``offset``; ``ahead``: a request for it that is on its way.
    """

    def __init__(self, after: int) -> None:
        self.after = self.offset = after
        self.ready: list[Entry] = []
        self.epochs: list[int] = []
        self.polled: tuple[int, Answer] | None = None
        self.ahead: tuple[int, asyncio.Task[Page]] | None = None
        self.last: tuple[bytes, int] | None = None
        self.turn = asyncio.Lock()

    @property
    def newest(self) -> tuple[int, bytes, int] | None:
        """Place, hash and epoch of the last entry that was fetched, if they are known."""
        if self.ready:
            return self.ready[-1].place, _hash(self.ready[-1]), self.epochs[-1]
        return (self.after, *self.last) if self.last else None


class _Wanted:
    """Places of a lane, in order, that several questions fetch between them. ``found``: what has come so far."""

    def __init__(self, places: Sequence[int]) -> None:
        self.places, self.found = places, dict[int, Entry]()
        self._left, self._reach = [places], 0

    def claim(self) -> Sequence[int]:
        """Places that nobody asks for, as many as one answer is likely to bring; none if none are left."""
        while self._left:
            left = self._left.pop()
            begin = next((at for at, place in enumerate(left) if place not in self.found), len(left))
            if begin < len(left):
                end = bisect_right(left, left[begin] + self._reach)
                self._left.append(left[end:])
                return left[begin:end]
        return []

    def behind(self, place: int) -> Sequence[int]:
        """A place, and those that may come with it."""
        begin = bisect_left(self.places, place)
        return self.places[begin : begin + _MANY]

    def came(self, claimed: Sequence[int], page: Page) -> None:
        """An answer to a question. What was claimed and did not come is there for others to claim."""
        self.found |= {entry.place: entry for entry in page.entries}
        self._left.append([place for place in claimed if place not in self.found])
        self._reach = page.next - claimed[0]


class Reader:
    """Reads the lanes of one topic."""

    def __init__(self, client: Client) -> None:
        self._client, self.fetching = client, Fetching(client)
        self._cursors: dict[int, list[_Cursor]] = {}
        self._epochs: dict[int, int] = {}
        self._waiting: dict[asyncio.Future[None], tuple[int, _Cursor]] = {}
        self._poll: asyncio.Task[None] | None = None

    def stands(self, lane: int, end: int) -> None:
        """A broker has acknowledged records up to this offset: until they are read, the lane has not ended."""
        ends = self.fetching.ends
        ends[lane] = max(ends.get(lane, 0), end)

    def look_ahead(self, lane: int, after: int) -> None:
        """Ask for what will stand behind a place while something is sent there: as soon as the caller waits, and on the
        same channel, so that the leader looks when it has placed that. Both answers come at about once."""
        cursor = self._cursor(lane, after)
        if not (cursor.ready or cursor.polled or cursor.ahead or cursor.turn.locked()):
            page = self._asked_for(lane, cursor, 0, sending(lane))
            cursor.ahead = cursor.offset, asyncio.create_task(page)
            cursor.ahead[1].add_done_callback(lambda task: task.cancelled() or task.exception())

    def last(self, lane: int, place: int) -> Seen:
        """What was handed out last at a place of a lane, as far as that is known."""
        at = (cursor.last for cursor in self._cursors.get(lane, ()) if cursor.after == place)
        return Seen(place, *(next(at, None) or ()))

    def resume(self, lane: int, seen: Seen) -> None:
        """Go on where another reader came to; `LogRolledBack` if it read something else there than this one."""
        cursor = self._cursor(lane, seen.place)
        if cursor.last and seen.digest and cursor.last[0] != seen.digest:
            raise LogRolledBack(
                f"{self.fetching.where(lane)}: what was read at place {seen.place} has changed. Stop every writer, see "
                "docs/kafka.md"
            )
        if cursor.last is None and seen.epoch >= 0:
            cursor.last = seen.digest, seen.epoch

    async def read(self, lane: int, after: int, limit: int) -> list[Entry]:
        """Up to ``limit`` entries behind a place; none at the end of the lane."""
        cursor = self._cursor(lane, after)
        async with cursor.turn:
            if cursor.after == after:
                return await self._read(lane, cursor, limit)
        return await self.read(lane, after, limit)  # somebody else has read on with it

    async def _read(self, lane: int, cursor: _Cursor, limit: int) -> list[Entry]:
        until = asyncio.get_running_loop().time() + self._client.deadline
        while self._wants_more(lane, cursor, limit):
            asked = cursor.polled is None
            waited = asked and cursor.ahead is None and cursor.offset < self.fetching.ends.get(lane, 0)
            page = await self._page(lane, cursor)
            newest = cursor.newest
            if page.epoch is not None and newest and page.epoch != newest[2]:
                await self._look_again(lane, *newest, page.epoch)
            cursor.ready, cursor.offset = cursor.ready + page.entries, page.next
            cursor.epochs += page.epochs
            if asked and page.epoch is None:
                if cursor.ready:
                    break
                if cursor.offset >= self.fetching.ends.get(lane, 0):
                    await self.fetching.look_for_end(lane, until)
                if cursor.offset >= (end := self.fetching.ends.get(lane, 0)):
                    return []
                if waited:
                    await self._ask_another(lane, end, until)
        taken, cursor.ready = cursor.ready[:limit], cursor.ready[limit:]
        epoch, cursor.epochs = cursor.epochs[len(taken) - 1], cursor.epochs[limit:]
        cursor.after, cursor.last = taken[-1].place, (_hash(taken[-1]), epoch)
        self._epochs[lane] = max(self._epochs.get(lane, -1), epoch)
        return taken

    def _wants_more(self, lane: int, cursor: _Cursor, limit: int) -> bool:
        """Whether to fetch before anything is handed out: nothing is there, or little, and more is known to stand."""
        if not cursor.ready:
            return True
        more = cursor.offset < self.fetching.ends.get(lane, 0) and len(cursor.ready) < limit
        return more and sum([len(entry.raw) for entry in cursor.ready]) < _LITTLE

    async def _ask_another(self, lane: int, end: int, until: float) -> None:
        """What a broker has acknowledged, its leader does not show: another one may lead by now, or it is gone."""
        if asyncio.get_running_loop().time() > until - _LAST_LOOK:
            await self.fetching.look_at_range(lane, end, self._epochs.get(lane, -1), until)
        await self._client.pause(until, NOT_LEADER, self.fetching.where(lane))

    async def _page(self, lane: int, cursor: _Cursor) -> Page:
        polled, cursor.polled = cursor.polled, None
        ahead, cursor.ahead = cursor.ahead, None
        if polled and polled[0] == cursor.offset:
            return self.fetching.parsed(lane, polled[1], cursor.offset)
        if ahead and ahead[0] == cursor.offset:
            return await ahead[1]
        behind = cursor.offset < self.fetching.ends.get(lane, 0)
        return await self._asked_for(lane, cursor, _HOLD if behind else 0)

    async def _asked_for(self, lane: int, cursor: _Cursor, hold: float, channel: Hashable = None) -> Page:
        epoch = cursor.newest[2] if cursor.newest else -1
        return await self.fetching.page(lane, cursor.offset, hold=hold, epoch=epoch, channel=channel)

    async def _look_again(self, lane: int, place: int, digest: bytes, known: int, epoch: int) -> None:
        """See that the last entry that was fetched is still there, now that another epoch has begun."""
        page = await self.fetching.places(lane, [place], epoch=known)
        if (_hash(page.entries[0]), page.epochs[0]) != (digest, known) or epoch < known:
            raise LogRolledBack(
                f"{self.fetching.where(lane)}: what was read at place {place} has changed since another broker "
                "leads it. Stop every writer, see docs/kafka.md"
            )

    async def fetch(self, lane: int, places: Sequence[int]) -> list[Entry]:
        """The entries at these places, in the order asked; `LogRolledBack` for one that is gone."""
        wanted = _Wanted(sorted(set(places)))
        await self._ask_for(lane, wanted, wanted.claim())  # only an answer tells how far one reaches
        if len(wanted.found) < len(wanted.places):
            asking = [asyncio.create_task(self._ask_for_all(lane, wanted)) for _ in range(_PIECES)]
            try:
                await asyncio.gather(*asking)
            finally:
                for task in asking:
                    task.cancel()
        return [wanted.found[place] for place in places]

    async def _ask_for_all(self, lane: int, wanted: _Wanted) -> None:
        """A few questions after the other, until there is no place left that nobody asks for."""
        while many := [claimed for _ in range(_AT_ONCE) if (claimed := wanted.claim())]:
            pages = await self.fetching.several(lane, [wanted.behind(claimed[0]) for claimed in many])
            for claimed, page in zip(many, pages, strict=True):
                if page:
                    wanted.came(claimed, page)
                else:
                    await self._ask_for(lane, wanted, claimed)

    async def _ask_for(self, lane: int, wanted: _Wanted, claimed: Sequence[int]) -> None:
        """The entry at the first of these places, and as many of the others as one question brings."""
        places, epoch = wanted.behind(claimed[0]), self._epochs.get(lane, -1)
        wanted.came(claimed, await self.fetching.places(lane, places, epoch=epoch))

    async def wait(self, lane: int, after: int, timeout: float) -> None:
        """Return soon after something stands behind a place, or when ``timeout`` seconds have passed."""
        cursor = self._cursor(lane, after)
        if cursor.ready or cursor.polled or cursor.offset < self.fetching.ends.get(lane, 0):
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[future] = lane, cursor
        if self._poll is None or self._poll.done():
            self._poll = asyncio.create_task(self._polling())
        try:
            async with asyncio.timeout(timeout):
                await future
        except TimeoutError:
            return
        finally:
            self._waiting.pop(future, None)

    def _cursor(self, lane: int, after: int) -> _Cursor:
        """The cursor that stands at a place, else a new one instead of the one that was used longest ago."""
        cursors = self._cursors.setdefault(lane, [])
        found = next((cursor for cursor in cursors if cursor.after == after), None)
        if found:
            cursors.remove(found)
        elif len(cursors) == _CURSORS:
            cursors.pop(0)
        cursors.append(found or _Cursor(after))
        return cursors[-1]

    async def _polling(self) -> None:
        """Ask for all lanes that are waited on, until none is. What goes wrong, whoever reads is told."""
        while self._waiting:
            try:
                async with asyncio.timeout(self._client.deadline):
                    by_leader: dict[int, dict[int, _Cursor]] = {}
                    until = asyncio.get_running_loop().time() + self._client.deadline
                    for lane, cursor in list(self._waiting.values()):
                        by_leader.setdefault(await self._client.leader(lane, until), {})[lane] = cursor
                    said = await asyncio.gather(*(self._ask(*asked) for asked in by_leader.items()))
                await asyncio.sleep(_READING if any(said) else 0)
            except (StoreError, LogRolledBack, NotSent, OSError, RuntimeError, TimeoutError):
                await asyncio.sleep(_RETRY)
                with contextlib.suppress(StoreError):
                    await self._client.look_again()

    async def _ask(self, leader: int, cursors: dict[int, _Cursor]) -> bool:
        """Ask one leader; whether there was anything."""
        offsets = {lane: cursor.offset for lane, cursor in cursors.items()}
        answers = await self.fetching.ask(leader, offsets, PAGE, _HOLD, "poll")
        new = False
        for lane, answer in answers.items():
            if answer.code == 0:
                self.fetching.learn(lane, answer)
                if answer.raw and cursors[lane].offset == offsets[lane]:
                    cursors[lane].polled = offsets[lane], answer
                if answer.raw:
                    new = True
                    self._wake(lane)
            else:  # a read says what it means
                self._wake(lane)
        if any(answer.code for answer in answers.values()):
            raise StoreError("a leader has changed")
        return new

    def _wake(self, lane: int) -> None:
        for future, (of, _) in list(self._waiting.items()):
            if of == lane and not future.done():
                future.set_result(None)
                self._waiting.pop(future)

    async def close(self) -> None:
        """Stop polling, and drop what is on its way."""
        tasks = [cursor.ahead[1] for cursors in self._cursors.values() for cursor in cursors if cursor.ahead]
        tasks += [self._poll] if self._poll else []  # type: ignore[list-item]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _hash(entry: Entry) -> bytes:
    return hashlib.sha256(entry.raw).digest()
