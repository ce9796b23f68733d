"""Carries commits from the log into a sink: the worker. Any number may run for a projection, in any processes.

A commit that cannot be projected is a dead letter, and its stream stands there: what follows in that stream is passed
over until the letter is replayed, and everything else goes on. So a projection sees each stream's commits in their
order and without a gap, always; and what replaying comes to is what a rebuild comes to.

While the sink applies a batch the next one is read, decrypted and made, where the sink can say what will stand by then.
It is applied at the turn of the one before, or not at all.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Generic, NamedTuple

import msgspec

from ..eventstore.backends.index_file import Row
from ..eventstore.errors import StoreError
from ..eventstore.log import Log
from ..eventstore.reading import in_turns
from .checking import Check, Difference, beyond, check
from .errors import NewerProjectionError
from .projection import DEAD_LETTERS
from .rebuilding import Rebuilding
from .replaying import Replaying
from .sink import Ahead, Checkpoint, Letter, Projection, R, Sink, Sizes, W
from .standing import POISON, Standing, attempted

__all__ = ["BATCH", "DEAD_LETTERS", "Check", "Difference", "Lag", "Limits", "Worker"]
BATCH = 64
"""How many commits are read before others have a turn: some milliseconds' worth."""
_log = logging.getLogger("agent_party")
_encoder = msgspec.msgpack.Encoder(enc_hook=repr)


class Limits(NamedTuple):
    """When a batch is large enough: ``rows`` commits, ``bytes`` of writes, ``seconds`` it took to make.

    At most two are in memory."""

    rows: int = BATCH
    bytes: int = 1 << 20
    seconds: float = 0.5


class Lag(NamedTuple):
    """How far a projection is behind the log: ``commits``, and the age in ``seconds`` of the oldest of them."""

    commits: int
    seconds: float


class Batch(NamedTuple, Generic[W, R]):
    """What commits come to. ``rows``: those that it was made for; ``after``: how far it takes a projection;
    ``ahead`` has the writes."""

    rows: Sequence[Row]
    after: Sizes
    ahead: Ahead[W, R]


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
        self._standing = Standing(projection, sink)
        self._replaying = Replaying(log, projection, sink, self._standing, self._start)
        self.rebuilding = Rebuilding(log, projection, sink)
        self._said = ""

    # Following the log

    async def catch_up(self, until: Sizes | None = None) -> Sizes:
        """Project what the log has been read to by now, or only so far; nothing while paused. How far it has come.

        What the log grows by meanwhile is left for the next time: under a steady load there would be no end.
        """
        until = dict(self._log.index.sizes()) if until is None else until
        async with self._lock:
            now, made = await self._start(), None
            while not now.paused and (rows := made.rows if made else self._rows(now.sizes, until)):
                now, made = await self._project(now, rows, made, until)
                await asyncio.sleep(0)
            return now.sizes

    async def run(self) -> None:
        """Keep catching up until cancelled. A store that fails is tried again, and what it said is logged once."""
        while True:
            try:
                await self.catch_up()
                await self.rebuilding.clean()
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
        except POISON:
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
        now = await self.rebuilding.released(await self.sink.checkpoint(self.projection))
        if beyond(self._log, now.sizes):
            await self._log.refresh()
            if beyond(self._log, now.sizes):
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
        return await self._standing.meet(now)

    # Batches

    async def _project(
        self, now: Checkpoint, rows: Sequence[Row], made: Batch[W, R] | None, until: Sizes | None
    ) -> tuple[Checkpoint, Batch[W, R] | None]:
        """Apply what these records change, all at once; one by one where something is wrong with one of them.

        With it, the batch that was made meanwhile, if there is one.
        """
        done = await attempted(self._batch(now, rows, made, until))
        if not isinstance(done, Exception):
            after = self._standing.own(done[0])
            return (after, done[1]) if after else (await self._start(), None)
        for row in rows:
            self._standing.bound()
            after = await self._project_one(now, row)
            if after is None:  # another worker was faster
                return await self._start(), None
            now = after
        return now, None

    async def _project_one(self, now: Checkpoint, row: Row) -> Checkpoint | None:
        done = await attempted(self._alone(now, row))
        if not isinstance(done, Exception):
            return self._standing.own(done)
        letter = self._standing.letter(row, type(done).__name__)
        after = {**now.sizes, row.part: row.position + 1}
        applied = await self.sink.apply(self.projection, now, after, [], {letter.stream: letter})
        if applied:
            self._standing.letters[letter.stream] = letter
        return self._standing.own(applied)

    async def _alone(self, now: Checkpoint, row: Row) -> Checkpoint | None:
        batch = await self._make(now.sizes, [row], self.sink.ahead(self.projection, now))
        return await self.sink.apply(self.projection, now, batch.after, batch.ahead.writes)

    async def _batch(
        self, now: Checkpoint, rows: Sequence[Row], made: Batch[W, R] | None, until: Sizes | None
    ) -> tuple[Checkpoint | None, Batch[W, R] | None]:
        """Apply a batch, and make the one that follows meanwhile; None if another worker was faster."""
        batch = made or await self._make(now.sizes, rows, self.sink.ahead(self.projection, now))
        if not (ahead := batch.ahead.following()):
            return await self.sink.apply(self.projection, now, batch.after, batch.ahead.writes), None
        making = asyncio.create_task(self._meanwhile(batch.after, until, ahead))
        try:
            applied = await self.sink.apply(self.projection, now, batch.after, batch.ahead.writes)
            return applied, await making
        finally:
            making.cancel()
            await asyncio.wait([making])

    async def _meanwhile(self, before: Sizes, until: Sizes | None, ahead: Ahead[W, R]) -> Batch[W, R] | None:
        try:
            rows = self._rows(before, until)
            return await self._make(before, rows, ahead) if rows else None
        except Exception:  # it shows again when this is made at its own turn
            return None

    async def _make(self, before: Sizes, rows: Sequence[Row], ahead: Ahead[W, R]) -> Batch[W, R]:
        """What as many of these records change as make a batch."""
        going = [row for row in rows if row.stream.decode() not in self._standing.letters]
        if getattr(self.projection, "data_only", False):
            going = [row for row in going if row.revision]  # which a control commit has none of
        taken = await self._written(going, ahead)
        last = rows[-1] if taken == len(going) else going[taken - 1]
        after = dict(before)
        for row in rows[: rows.index(last) + 1]:
            after[row.part] = row.position + 1
        return Batch(rows, after, ahead)

    async def _written(self, rows: Sequence[Row], ahead: Ahead[W, R]) -> int:
        """Gather what records change, until that is a batch; of how many of them."""
        taken = 0
        clock = asyncio.get_running_loop().time
        size, until = 0, clock() + self.limits.seconds
        await ahead.expect(row.stream.decode() for row in rows)
        for first in range(0, len(rows), BATCH):
            commits = await self._log.commits(rows[first : first + BATCH], lenient=True)
            await ahead.expect(commit.cause.stream.decode() for commit in commits if commit.cause)
            async for commit in in_turns(commits):
                new = ahead.add(await self.projection.writes(commit, ahead.read))
                size += len(_encoder.encode(new))
                taken += 1
            if size >= self.limits.bytes or clock() >= until:
                break
            await asyncio.sleep(0)
        return taken

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
            return await self._replaying.replay(stream, self.limits.rows)

    # Throwing away

    async def rebuild(self) -> str:
        """Project everything anew beside what stands, then put it in its place at once.

        The hash of what stands then; empty if it is written so fast that it cannot be told.
        """
        async with self._lock:
            return await self._rebuild()

    async def _rebuild(self) -> str:
        scratch = self.sink.beside()
        return await self.rebuilding.rebuild(scratch, self._filling(scratch).catch_up)

    def _filling(self, sink: Sink[W, R]) -> "Worker[W, R]":
        """A worker that projects the same into another sink."""
        return Worker(self._log, self.projection, sink, self.limits, self._slices)

    # Looking

    async def check(self, reference: Sink[W, R]) -> Check:
        """Compare what stands with what the log gives, projected as far into an empty sink of the same kind."""
        return await check(self._log, self.projection, self.sink, reference, self._filling(reference).catch_up)

    def _say(self, said: str) -> None:
        """Log what holds the worker up, once, and that it goes on."""
        if said != self._said:
            _log.warning("%s %s", self.projection.name, f"waits: {said}" if said else "goes on")
        self._said = said
