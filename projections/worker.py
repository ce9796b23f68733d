"""Carries commits from the log into views: the embedded worker."""

import asyncio
import logging

from ..eventstore.errors import StoreError
from ..eventstore.log import Log
from .projection import Projection, Put, Sizes, Views, Write

BATCH = 500
DEAD_LETTERS = "dead-letters"
_log = logging.getLogger("agent_party")


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
                commits = await self._log.commits(rows, lenient=True)
                after = dict(sizes)
                writes: list[Write] = []
                for commit in commits:
                    after[commit.slice] = commit.position + 1
                    try:
                        writes += self.projection.writes(commit)
                    except Exception as error:  # a poisoned commit must not stop the projection
                        writes.append(self._dead_letter(commit.stream, commit.revision, commit.hash, error))
                done = await self.views.apply(self.projection, sizes, after, writes)
                sizes = after if done else await self._start()
            return sizes

    async def _start(self) -> Sizes:
        """The stored checkpoint; of a log that is shorter than that, everything is projected anew."""
        sizes = await self.views.checkpoint(self.projection)
        if any(size > self._log.index.position(part) for part, size in sizes.items()):
            await self._log.refresh()
            if any(size > self._log.index.position(part) for part, size in sizes.items()):
                await self.views.drop(self.projection)
                return {}
        return sizes

    def _dead_letter(self, stream: str, revision: int, commit: bytes, error: Exception) -> Put:
        reason = f"{type(error).__name__}"
        _log.warning("%s cannot project %s revision %d: %s", self.projection.name, stream, revision, reason)
        fields = {"projection": self.projection.name, "stream": stream, "revision": revision, "reason": reason}
        return Put(DEAD_LETTERS, f"{self.projection.name}/{commit.hex()}", fields)

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
