"""Carries commits from the log into views: the embedded worker."""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..eventstore.backends.index_file import Row
from ..eventstore.errors import BlobError, EventStoreError, PayloadError, StoreError
from ..eventstore.log import Log
from .backends.views_memory import Documents, apply_to
from .projection import Projection, Put, Sizes, Views, Write

BATCH = 64
"""How many commits are projected before others have a turn: some milliseconds' worth."""
DEAD_LETTERS = "dead-letters"
_log = logging.getLogger("agent_party")


class Ahead:
    """Documents as the writes of a batch will leave them. ``views`` is None where nothing was projected before."""

    def __init__(self, views: Views | None) -> None:
        self._views = views
        self._read: Documents = {}
        self._known: set[tuple[str, str]] = set()
        self._writes: dict[tuple[str, str], list[Write]] = {}

    async def read(self, view: str, key: str) -> Mapping[str, Any]:
        """One document; empty if there is none."""
        name = view, key
        if name not in self._known:
            self._known.add(name)
            if self._views and (found := await self._views.get(view, key)) is not None:
                self._read[name] = found
            for write in self._writes.pop(name, ()):
                apply_to(self._read, write)
        return self._read.get(name, {})

    def add(self, writes: Iterable[Write]) -> list[Write]:
        """These come next."""
        added = list(writes)
        for write in added:
            name = write.view, write.key
            if name in self._known:
                apply_to(self._read, write)
            else:
                self._writes.setdefault(name, []).append(write)
        return added


class Worker:
    """Any number may run for one projection: the stored checkpoint decides whose batch counts."""

    def __init__(self, log: Log, projection: Projection, views: Views) -> None:
        self._log, self.projection, self.views = log, projection, views
        self._turn = asyncio.Lock()

    async def catch_up(self) -> Sizes:
        """Project everything the log has been read to. Returns the checkpoint."""
        async with self._turn:
            sizes = await self._start()
            while rows := self._log.after(sizes, BATCH):
                sizes = await self._project(sizes, rows)
                await asyncio.sleep(0)
            return sizes

    async def _project(self, sizes: Sizes, rows: Sequence[Row]) -> Sizes:
        """Apply what these records change, all at once; one by one where something is wrong with one of them."""
        try:
            commits = await self._log.commits(rows, lenient=True)
            ahead, made = Ahead(self.views if sizes else None), list[tuple[Row, list[Write]]]()
            for row, commit in zip(rows, commits, strict=True):
                made.append((row, ahead.add(await self.projection.writes(commit, ahead.read))))
            return await self._apply(sizes, made)
        except EventStoreError as error:
            if not isinstance(error, PayloadError | BlobError):
                raise
        except Exception:  # whose fault it is shows one by one
            pass
        for row in rows:
            before = sizes
            sizes = await self._project_one(sizes, row)
            if sizes != {**before, row.part: row.position + 1}:  # another worker was faster
                break
        return sizes

    async def _project_one(self, sizes: Sizes, row: Row) -> Sizes:
        try:
            (commit,) = await self._log.commits([row], lenient=True)
            ahead = Ahead(self.views if sizes else None)
            return await self._apply(sizes, [(row, ahead.add(await self.projection.writes(commit, ahead.read)))])
        except EventStoreError as error:
            if not isinstance(error, PayloadError | BlobError):
                raise
            return await self._apply(sizes, [(row, [self._dead_letter(row, error)])])
        except Exception as error:  # a poisoned commit must not stop the projection
            return await self._apply(sizes, [(row, [self._dead_letter(row, error)])])

    async def _apply(self, sizes: Sizes, made: list[tuple[Row, list[Write]]]) -> Sizes:
        after, writes = dict(sizes), list[Write]()
        for row, new in made:
            after[row.part] = row.position + 1
            writes += new
        return after if await self.views.apply(self.projection, sizes, after, writes) else await self._start()

    async def _start(self) -> Sizes:
        """The stored checkpoint; of a log that is shorter than that, everything is projected anew."""
        sizes = await self.views.checkpoint(self.projection)
        if any(size > self._log.index.position(part) for part, size in sizes.items()):
            await self._log.refresh()
            if any(size > self._log.index.position(part) for part, size in sizes.items()):
                await self.views.drop(self.projection)
                return {}
        return sizes

    def _dead_letter(self, row: Row, error: Exception) -> Put:
        stream, reason = row.stream.decode(), type(error).__name__
        _log.warning("%s cannot project %s revision %d: %s", self.projection.name, stream, row.revision, reason)
        fields = {"projection": self.projection.name, "stream": stream, "revision": row.revision, "reason": reason}
        return Put(DEAD_LETTERS, f"{self.projection.name}/{row.commit.hex()}", fields)

    async def rebuild(self) -> str:
        """Forget everything and project anew. Returns the hash of the result."""
        await self.views.drop(self.projection)
        await self.catch_up()
        return await self.views.digest(self.projection)

    async def run(self) -> None:
        """Keep catching up until cancelled."""
        while True:
            try:
                await self.catch_up()
            except StoreError as error:
                _log.warning("%s is set aside: %s", self.projection.name, error)
                await asyncio.sleep(1)
            await self._log.changed(5)
