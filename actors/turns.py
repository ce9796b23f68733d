"""A limit that several share fairly: whoever wants much waits for itself, not the others for it."""

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import AsyncIterator


class Turns:
    """So many places at once. Those who wait are let in by turns, one of each, in the order of their coming."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @contextlib.asynccontextmanager
    async def turn(self, whose: str) -> AsyncIterator[None]:
        """Have a place."""
        await self._take(whose)
        try:
            yield
        finally:
            self._give_back()

    async def _take(self, whose: str) -> None:
        if self._free and not self._waiting:
            self._free -= 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(whose, deque()).append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._give_back()  # it was let in at the moment at which it went away
            raise

    def _give_back(self) -> None:
        while self._waiting:
            whose, places = self._waiting.popitem(last=False)
            place = places.popleft()
            if places:
                self._waiting[whose] = places  # behind the others
            if not place.done():
                place.set_result(None)
                return
        self._free += 1
