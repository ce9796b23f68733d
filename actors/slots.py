"""Limits on tasks at once, of an agent and of its capabilities, which a task that waits durably does not count against.

A task takes its capability's place before its agent's, and holds neither while all that it does is to wait durably: so
whoever has both runs on and gives them back. A task that awaits another of its agent cannot hang, however low the
limit is.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from .errors import MailboxFullError


class Limit:
    """So many at once. ``waiting``: how many wait for a place; ``free``: how many places nobody has."""

    def __init__(self, most: int) -> None:
        self._places = asyncio.Semaphore(most)
        self.waiting, self.free = 0, most

    async def take(self) -> None:
        """Have a place, in the order of asking."""
        self.waiting += 1
        try:
            await self._places.acquire()
            self.free -= 1
        finally:
            self.waiting -= 1

    def give_back(self) -> None:
        """Let another task have the place."""
        self.free += 1
        self._places.release()


class Limits:
    """The limits of one agent in one process. ``queue``: how many of its tasks may be live and wait for a place."""

    def __init__(self, agent: str, concurrency: int, queue: int, capabilities: dict[str, int]) -> None:
        self._name, self._agent, self._queue = agent, Limit(concurrency), queue
        self._capabilities = {name: Limit(most) for name, most in capabilities.items()}
        self._coming: set[str] = set()

    def slot(self, task: str, capability: str) -> "Slot":
        """The place of a task."""
        limits = [self._capabilities[capability]] if capability in self._capabilities else []
        return Slot(*limits, self._agent, first=lambda: self._coming.discard(task))

    @property
    def waiting(self) -> int:
        """How many tasks wait for a place, those included that were let in and have not come to it yet."""
        return len(self._coming) + sum(limit.waiting for limit in (self._agent, *self._capabilities.values()))

    def let_in(self, task: str) -> None:
        """Count a new task; `MailboxFullError` where too many wait already."""
        if task not in self._coming and self.waiting >= self._queue:
            raise MailboxFullError(
                f"{self.waiting:,} tasks wait for agent {self._name} here already, as many as its queue takes: "
                "ask again later, with the same id"
            )
        self._coming.add(task)

    @property
    def free(self) -> int:
        """How many more of the agent's tasks could run."""
        return self._agent.free

    def turn_away(self, task: str) -> None:
        """A task that was let in does not come."""
        self._coming.discard(task)


class Slot:
    """One task's places under its limits. They are free while all that the task does is to wait durably.

    ``first`` is called when the task begins to wait for them.
    """

    def __init__(self, *limits: Limit, first: Callable[[], None] = lambda: None) -> None:
        self._limits, self._first = limits, first
        self._held: list[Limit] = []
        self._working = self._parked = 0
        self._turn = asyncio.Lock()

    async def take(self) -> None:
        """Have the places, waiting for them if need be."""
        self._first()
        async with self._turn:
            try:
                for limit in self._limits[len(self._held) :]:
                    await limit.take()
                    self._held.append(limit)
            except BaseException:
                self.let_go()
                raise

    @property
    def at_rest(self) -> bool:
        """Whether all that the task does is to wait durably: it has no place, and waits for none."""
        return bool(self._parked) and not (self._working or self._held or self._turn.locked())

    def let_go(self) -> None:
        """Give the places to other tasks."""
        while self._held:
            self._held.pop().give_back()

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Something runs that takes the places."""
        self._working += 1
        try:
            await self.take()
            yield
        finally:
            self._working -= 1
            self._let_go_if_idle()

    @contextlib.asynccontextmanager
    async def parked(self) -> AsyncIterator[None]:
        """Something is awaited that may take days. Who is cancelled meanwhile does not queue for the places again."""
        self._parked += 1
        self._let_go_if_idle()
        try:
            yield
        finally:
            self._parked -= 1
        await self.take()
        # What comes now may be the end of one of several things that the handler does, and the others still wait.
        asyncio.get_running_loop().call_soon(self._let_go_if_idle)

    def _let_go_if_idle(self) -> None:
        if self._parked and not self._working and not self._turn.locked():
            self.let_go()
