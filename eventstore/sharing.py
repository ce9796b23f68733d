"""Work that many ask for at the same moment, done once for all of them."""

import asyncio
from collections.abc import Awaitable, Callable

from .errors import StoreError


class Shared:
    """Calls that come while ``work`` is under way share the next one, which begins when that is done.

    So each call's work begins after the call, however many there are. A caller that is cancelled takes it from nobody.
    """

    def __init__(self, work: Callable[[], Awaitable[None]]) -> None:
        self._work = work
        self._now: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    async def __call__(self) -> None:
        """Have the work done; raises what it raises, `StoreError` once this is closed."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._after(self._now))
            self._next.add_done_callback(_looked_at)
        work = self._next
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            if work.cancelled():
                raise StoreError("the log is closed") from None
            raise

    async def _after(self, before: asyncio.Task[None] | None) -> None:
        if before:
            await asyncio.wait([before])
        self._now, self._next = self._next, None
        await self._work()

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """What is under way, and what waits for it."""
        return [task for task in (self._now, self._next) if task and not task.done()]


def _looked_at(task: asyncio.Task[None]) -> None:
    """Nobody may be left who wants to know what went wrong."""
    if not task.cancelled():
        task.exception()
