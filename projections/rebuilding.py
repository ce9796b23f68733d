"""Projects everything anew beside what stands, and puts it in its place at once."""

import asyncio
from typing import Generic

from ..eventstore.errors import StoreBusyError
from ..eventstore.log import Log
from .checking import CatchUp, beyond
from .sink import Checkpoint, Projection, R, Sink, W

ABANDONED = 60.0
"""Seconds after which a scratch side that does not move is thrown away."""
HELD = "a rebuild takes its place"
"""Why the live side is paused for the moment in which it is replaced."""
_TRIES, _RACES = 100, 3
_HOLDS = 10.0
"""Seconds after which whoever holds the live side, and does not move, is taken for dead."""


class Rebuilding(Generic[W, R]):
    """Of one projection in one sink."""

    def __init__(self, log: Log, projection: Projection[W, R], sink: Sink[W, R]) -> None:
        self._log, self._projection, self._sink = log, projection, sink
        self._scratch: tuple[int, float] = (0, 0.0)

    async def rebuild(self, scratch: Sink[W, R], catch_up: CatchUp) -> str:
        """See `Worker.rebuild`. ``catch_up`` projects into the scratch side, which is thrown away first."""
        projection = self._projection
        await scratch.drop(projection)
        for attempt in range(_TRIES):
            await catch_up(None)
            if attempt >= _RACES:  # the live one is as fast: for a moment it must stand still
                await self._hold()
            await self._log.refresh()
            await catch_up(None)
            live, new = await self._sink.checkpoint(projection), await scratch.checkpoint(projection)
            behind = any(new.sizes.get(part, 0) < size for part, size in live.sizes.items())
            if behind and not beyond(self._log, live.sizes):  # readers must not be taken back
                continue
            if await self._sink.swap(projection, live, new):
                await self._release()
                return await self._digest()
        raise StoreBusyError(f"{projection.name} is being rebuilt by somebody else as well: try again")

    async def _hold(self) -> None:
        if not (await self._sink.checkpoint(self._projection)).paused:
            await self._sink.pause(self._projection, HELD)

    async def _release(self) -> None:
        if (await self._sink.checkpoint(self._projection)).paused == HELD:
            await self._sink.pause(self._projection, "")

    async def _digest(self) -> str:
        try:
            return await self._sink.digest(self._projection)
        except StoreBusyError:
            return ""

    async def released(self, now: Checkpoint) -> Checkpoint:
        """Wait for a rebuild that holds the live side; one that has died meanwhile holds it no longer."""
        clock = asyncio.get_running_loop().time
        turn, until = now.turn, clock() + _HOLDS
        while now.paused == HELD:
            if clock() >= until:
                await self._release()
            await asyncio.sleep(0.02)
            now = await self._sink.checkpoint(self._projection)
            turn, until = (turn, until) if now.turn == turn else (now.turn, clock() + _HOLDS)
        return now

    async def clean(self) -> None:
        """Throw away what a rebuild that came to no end has left: what does not move for a minute."""
        scratch, clock = self._sink.beside(), asyncio.get_running_loop().time
        turn = (
            (await scratch.checkpoint(self._projection)).turn
            if self._projection.name in await scratch.projections()
            else 0
        )
        if not turn or turn != self._scratch[0]:
            self._scratch = turn, clock()
        elif clock() - self._scratch[1] >= ABANDONED:
            await scratch.drop(self._projection)
