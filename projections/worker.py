"""Carries commits from the log into a sink: the worker. Any number may run for a projection, in any processes.

A commit that cannot be projected is a dead letter, and its stream stands there: what follows in that stream is passed
over until the letter is replayed, and everything else goes on. So a projection sees each stream's commits in their
order and without a gap, always; and what replaying comes to is what a rebuild comes to.
"""

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from typing import Generic, NamedTuple, TypeVar

import msgspec

from ..eventstore.backends.index_file import Row
from ..eventstore.errors import BlobError, EventStoreError, PayloadError, StoreBusyError, StoreError
from ..eventstore.log import Log
from .checking import SHOWN, Check, Difference, differences
from .errors import NewerProjectionError, SetAsideError
from .projection import DEAD_LETTERS
from .sink import MOST_LETTERS, Checkpoint, Letter, Projection, R, Sink, Sizes, W

__all__ = ["BATCH", "DEAD_LETTERS", "Check", "Difference", "Lag", "Limits", "Worker"]
BATCH = 64
"""How many commits are read before others have a turn: some milliseconds' worth."""
ABANDONED = 60.0
_TRIES, _RACES = 100, 3
_HOLDS = 10.0
"""Seconds after which whoever holds the live side, and does not move, is taken for dead."""
HELD = "a rebuild takes its place"
_POISON = (PayloadError, BlobError)
_WAITS = "Waiting"
_log = logging.getLogger("agent_party")
_encoder = msgspec.msgpack.Encoder(enc_hook=repr)
T = TypeVar("T")


class Limits(NamedTuple):
    """When a batch is large enough: ``rows`` commits, ``bytes`` of writes, ``seconds`` it took to make."""

    rows: int = BATCH
    bytes: int = 1 << 20
    seconds: float = 0.5


class Lag(NamedTuple):
    """How far a projection is behind the log: ``commits``, and the age in ``seconds`` of the oldest of them."""

    commits: int
    seconds: float


class Worker(Generic[W, R]):
    """``slices``: of which slices it carries commits; None for all. See `parts`."""

    def __init__(
        self,
        log: Log,
        projection: Projection[W, R],
        sink: Sink[W, R],
        limits: Limits | None = None,
        slices: range | None = None,
    ) -> None:
        self._log, self.projection, self.sink = log, projection, sink
        self.limits, self._slices = limits or Limits(BATCH), slices
        self._lock = asyncio.Lock()
        self._standing: dict[str, Letter] = {}
        self._known = -1
        self._scratch: tuple[int, float] = (0, 0.0)
        self._said = ""

    # Following the log

    async def catch_up(self, until: Sizes | None = None) -> Sizes:
        """Project what the log has been read to by now, or only so far; nothing while paused. How far it has come.

        What the log grows by meanwhile is left for the next time: under a steady load there would be no end.
        """
        until = dict(self._log.index.sizes()) if until is None else until
        async with self._lock:
            now = await self._start()
            while not now.paused and (rows := self._rows(now.sizes, until)):
                now = await self._project(now, rows)
                await asyncio.sleep(0)
            return now.sizes

    async def run(self) -> None:
        """Keep catching up until cancelled. A store that fails is tried again, and what it said is logged once."""
        while True:
            try:
                await self.catch_up()
                await self._clean()
                self._say("")
            except StoreError as error:
                self._say(str(error))
                await asyncio.sleep(1)
            await self._log.changed(5)

    async def caught_up(self) -> bool:
        """Whether everything the log has been read to is projected."""
        return not (await self.lag()).commits

    async def lag(self) -> Lag:
        """How far the projection is behind what the log has been read to."""
        now = await self.sink.checkpoint(self.projection)
        behind = sum(
            max(0, size - now.sizes.get(part, 0)) for part, size in self._log.index.sizes().items() if self._has(part)
        )
        rows = self._rows(now.sizes, None, 1)
        try:
            oldest = [commit.time for commit in await self._log.commits(rows, lenient=True)]
        except _POISON:
            oldest = []
        return Lag(behind, max(0.0, (self._log.ambient.now() - min(oldest)) / 1e6) if oldest else 0.0)

    def _has(self, part: int) -> bool:
        return self._slices is None or part in self._slices

    def _rows(self, sizes: Sizes, until: Sizes | None, limit: int | None = None) -> list[Row]:
        """The next records, of each slice in order; those of other slices are passed over."""
        over = {
            part: size
            for part, size in self._log.index.sizes().items()
            if not self._has(part) or (until is not None and sizes.get(part, 0) >= until.get(part, 0))
        }
        rows = self._log.after(sizes | over, limit or self.limits.rows)
        return rows if until is None else [row for row in rows if row.position < until[row.part]]

    async def _start(self) -> Checkpoint:
        """What stands. Of a log that is shorter than that, and by an older program, everything is projected anew."""
        now = await self._released(await self.sink.checkpoint(self.projection))
        if self._beyond(now.sizes):
            await self._log.refresh()
            if self._beyond(now.sizes):
                await self.sink.drop(self.projection)
                now = await self.sink.checkpoint(self.projection)
        if now.version > self.projection.version:
            raise NewerProjectionError(
                f"{self.projection.name} was projected by a newer program (version {now.version}, this one has "
                f"{self.projection.version}): upgrade, or `party projection rebuild {self.projection.name}`"
            )
        if 0 < now.version < self.projection.version and not now.paused:
            await self._rebuild()
            now = await self.sink.checkpoint(self.projection)
        return await self._meet(now)

    async def _meet(self, now: Checkpoint) -> Checkpoint:
        """Know which streams stand, as of this turn."""
        if now.turn != self._known:
            self._standing = await self.sink.letters(self.projection) if now.sizes else {}
            self._known = now.turn
        self._bound()
        return now

    def _bound(self) -> None:
        if len(self._standing) >= MOST_LETTERS:
            raise SetAsideError(
                f"{self.projection.name} cannot project {MOST_LETTERS:,} streams and is set aside: "
                f"mend it, then `party projection rebuild {self.projection.name}`"
            )

    def _beyond(self, sizes: Sizes) -> bool:
        return any(size > self._log.index.position(part) for part, size in sizes.items())

    # Batches

    async def _project(self, now: Checkpoint, rows: Sequence[Row]) -> Checkpoint:
        """Apply what these records change, all at once; one by one where something is wrong with one of them."""
        done = await _attempted(self._batch(now, rows))
        if not isinstance(done, Exception):
            return self._own(done) or await self._start()
        for row in rows:
            self._bound()
            after = await self._project_one(now, row)
            if after is None:  # another worker was faster
                return await self._start()
            now = after
        return now

    async def _project_one(self, now: Checkpoint, row: Row) -> Checkpoint | None:
        done = await _attempted(self._batch(now, [row]))
        if not isinstance(done, Exception):
            return self._own(done)
        letter = self._letter(row, type(done).__name__)
        after = {**now.sizes, row.part: row.position + 1}
        applied = await self.sink.apply(self.projection, now, after, [], {letter.stream: letter})
        if applied:
            self._standing[letter.stream] = letter
        return self._own(applied)

    async def _batch(self, now: Checkpoint, rows: Sequence[Row]) -> Checkpoint | None:
        """Apply as many of these records as make a batch; None if another worker was faster."""
        going = [row for row in rows if row.stream.decode() not in self._standing]
        writes, taken = await self._make(now, going)
        last = rows[-1] if taken == len(going) else going[taken - 1]
        after = dict(now.sizes)
        for row in rows[: rows.index(last) + 1]:
            after[row.part] = row.position + 1
        return await self.sink.apply(self.projection, now, after, writes)

    async def _make(self, now: Checkpoint, rows: Sequence[Row]) -> tuple[list[W], int]:
        """What records change, until that is a batch; and of how many of them."""
        ahead, writes, taken = self.sink.ahead(self.projection, now), list[W](), 0
        clock = asyncio.get_running_loop().time
        size, until = 0, clock() + self.limits.seconds
        for first in range(0, len(rows), BATCH):
            commits = await self._log.commits(rows[first : first + BATCH], lenient=True)
            await ahead.expect(commits)
            for commit in commits:
                new = ahead.add(await self.projection.writes(commit, ahead.read))
                size += len(_encoder.encode(new))
                writes += new
                taken += 1
            if size >= self.limits.bytes or clock() >= until:
                break
            await asyncio.sleep(0)
        return writes, taken

    def _own(self, after: Checkpoint | None) -> Checkpoint | None:
        """After a turn of its own, the worker knows which streams stand."""
        if after:
            self._known = after.turn
        return after

    def _letter(self, row: Row, reason: str) -> Letter:
        stream = row.stream.decode()
        _log.warning("%s cannot project %s revision %d: %s", self.projection.name, stream, row.revision, reason)
        return Letter(stream, row.revision, row.part, row.position, row.commit.hex(), reason)

    # Dead letters

    async def letters(self) -> list[Letter]:
        """The dead letters, by stream."""
        found = await self.sink.letters(self.projection)
        return [found[stream] for stream in sorted(found)]

    async def replay(self, stream: str = "") -> dict[str, Letter | None]:
        """Project the dead letter of a stream again, or of all, and then what waits behind it, in the stream's order.

        For each stream, where it stands now; None if it stands no more.
        """
        async with self._lock:
            now = await self._start()
            if now.paused:
                raise SetAsideError(f"{self.projection.name} is paused ({now.paused}): resume it first")
            told: dict[str, Letter | None] = {}
            for name in sorted(self._standing):
                if not stream or name == stream:
                    now = await self._replay(now, name)
                    told[name] = self._standing.get(name)
            return told

    async def _replay(self, now: Checkpoint, stream: str) -> Checkpoint:
        most = self.limits.rows
        rows = self._log.index.all_rows(stream.encode())
        while letter := self._standing.get(stream):
            waiting = [row for row in rows if letter.position <= row.position < now.sizes.get(row.part, 0)]
            done = await _attempted(self._again(now, stream, waiting[:most], waiting[most:]))
            if isinstance(done, Exception) and most > 1:
                most = 1  # whose fault it is shows one by one
                continue
            if isinstance(done, Exception):
                still = self._letter(waiting[0], type(done).__name__)
                done = await self.sink.apply(self.projection, now, now.sizes, [], {stream: still})
                if done:
                    self._standing[stream] = still
                    return self._own(done) or now
            now = self._own(done) or await self._start()
        return now

    async def _again(self, now: Checkpoint, stream: str, some: list[Row], rest: list[Row]) -> Checkpoint | None:
        """Project what waits in a stream, or a piece of it; then the letter is of what follows."""
        ahead, writes = self.sink.ahead(self.projection, now), list[W]()
        for commit in await self._log.commits(some, lenient=True):
            writes += ahead.add(await self.projection.writes(commit, ahead.read))
        next_ = rest[0] if rest else None
        still = (
            Letter(stream, next_.revision, next_.part, next_.position, next_.commit.hex(), _WAITS) if next_ else None
        )
        done = await self.sink.apply(self.projection, now, now.sizes, writes, {stream: still})
        if done and still:
            self._standing[stream] = still
        elif done:
            self._standing.pop(stream, None)
        return done

    # Throwing away

    async def rebuild(self) -> str:
        """Project everything anew beside what stands, then put it in its place at once.

        The hash of what stands then; empty if it is written so fast that it cannot be told.
        """
        async with self._lock:
            return await self._rebuild()

    async def _rebuild(self) -> str:
        scratch, projection = self.sink.beside(), self.projection
        await scratch.drop(projection)
        worker = Worker(self._log, projection, scratch, self.limits, self._slices)
        for attempt in range(_TRIES):
            await worker.catch_up()
            if attempt >= _RACES:  # the live one is as fast: for a moment it must stand still
                await self._hold()
            await self._log.refresh()
            await worker.catch_up()
            live, new = await self.sink.checkpoint(projection), await scratch.checkpoint(projection)
            behind = any(new.sizes.get(part, 0) < size for part, size in live.sizes.items())
            if behind and not self._beyond(live.sizes):  # readers must not be taken back
                continue
            if await self.sink.swap(projection, live, new):
                await self._release()
                return await self._digest()
        raise StoreBusyError(f"{projection.name} is being rebuilt by somebody else as well: try again")

    async def _hold(self) -> None:
        if not (await self.sink.checkpoint(self.projection)).paused:
            await self.sink.pause(self.projection, HELD)

    async def _release(self) -> None:
        if (await self.sink.checkpoint(self.projection)).paused == HELD:
            await self.sink.pause(self.projection, "")

    async def _released(self, now: Checkpoint) -> Checkpoint:
        """Wait for a rebuild that holds the live side; one that has died meanwhile holds it no longer."""
        clock = asyncio.get_running_loop().time
        turn, until = now.turn, clock() + _HOLDS
        while now.paused == HELD:
            if clock() >= until:
                await self._release()
            await asyncio.sleep(0.02)
            now = await self.sink.checkpoint(self.projection)
            turn, until = (turn, until) if now.turn == turn else (now.turn, clock() + _HOLDS)
        return now

    async def _digest(self) -> str:
        try:
            return await self.sink.digest(self.projection)
        except StoreBusyError:
            return ""

    async def _clean(self) -> None:
        """Throw away what a rebuild that came to no end has left: what does not move for a minute."""
        scratch, clock = self.sink.beside(), asyncio.get_running_loop().time
        turn = (
            (await scratch.checkpoint(self.projection)).turn
            if self.projection.name in await scratch.projections()
            else 0
        )
        if not turn or turn != self._scratch[0]:
            self._scratch = turn, clock()
        elif clock() - self._scratch[1] >= ABANDONED:
            await scratch.drop(self.projection)

    # Looking

    async def check(self, reference: Sink[W, R]) -> Check:
        """Compare what stands with what the log gives, projected as far into an empty sink of the same kind."""
        worker = Worker(self._log, self.projection, reference, self.limits, self._slices)
        for _ in range(_TRIES):
            before = await self.sink.checkpoint(self.projection)
            if self._beyond(before.sizes):
                await self._log.refresh()
            if await worker.catch_up(before.sizes) != before.sizes:
                await reference.drop(self.projection)
                reached = await worker.catch_up(before.sizes)
                if reached != before.sizes:
                    return self._elsewhere(before.sizes, reached)
            expected, found = await reference.digest(self.projection), await self.sink.digest(self.projection)
            told = await differences(self.projection, reference, self.sink) if expected != found else []
            if (await self.sink.checkpoint(self.projection)).turn == before.turn:
                return Check(expected == found, sum(before.sizes.values()), expected, found, told)
        raise StoreBusyError(f"{self.projection.name} is written all the time: pause it first, then check it")

    def _elsewhere(self, found: Sizes, reached: Sizes) -> Check:
        """The checkpoint itself is none that the log can lead to."""
        parts = [part for part in sorted(found.keys() | reached.keys()) if found.get(part) != reached.get(part)]
        told = [Difference(("checkpoint", str(part)), reached.get(part), found.get(part)) for part in parts[:SHOWN]]
        return Check(False, sum(found.values()), "", "", told)

    def _say(self, said: str) -> None:
        """Log what holds the worker up, once, and that it goes on."""
        if said != self._said:
            _log.warning("%s %s", self.projection.name, f"waits: {said}" if said else "goes on")
        self._said = said


async def _attempted(work: Awaitable[T]) -> T | Exception:
    """What it comes to, or why a commit cannot be projected. What is no commit's fault is raised."""
    try:
        return await work
    except EventStoreError as error:
        if not isinstance(error, _POISON):
            raise
        return error
    except Exception as error:  # a poisoned commit must not stop the projection
        return error
