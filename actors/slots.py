"""An agent's limit on tasks at once, which a task that waits durably does not count against."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Slot:
    """One task's place under its agent's limit. It is free while all that the task does is to wait durably."""

    def __init__(self, limit: asyncio.Semaphore) -> None:
        self._limit = limit
        self._held = False
        self._working = self._parked = 0
        self._turn = asyncio.Lock()

    async def take(self) -> None:
        """Have the place, waiting for it if need be."""
        async with self._turn:
            if not self._held:
                await self._limit.acquire()
                self._held = True

    def let_go(self) -> None:
        """Give the place to another task."""
        if self._held:
            self._held = False
            self._limit.release()

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Something runs that takes the place."""
        self._working += 1
        try:
            await self.take()
            yield
        finally:
            self._working -= 1
            self._let_go_if_idle()

    @contextlib.asynccontextmanager
    async def parked(self) -> AsyncIterator[None]:
        """Something is awaited that may take days. Who is cancelled meanwhile does not queue for the place again."""
        self._parked += 1
        self._let_go_if_idle()
        try:
            yield
        finally:
            self._parked -= 1
        await self.take()

    def _let_go_if_idle(self) -> None:
        if self._parked and not self._working:
            self.let_go()
