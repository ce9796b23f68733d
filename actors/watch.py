"""Waiting for a stream to grow, whoever writes it."""

import asyncio
import contextlib
from collections.abc import Callable

from ..eventstore.log import Log

ENDINGS = frozenset({b"task.completed", b"task.failed", b"task.cancelled"})
"""Types of the events with which a task ends."""
_LOOK = 5.0
"""Seconds after which one who waits sees whether the log is still being read."""


class Watch:
    """One for each open log. Wakes those who wait for a stream when a commit on it was read."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._waiting: dict[str, dict[asyncio.Event, None]] = {}
        self._calm: dict[str, dict[asyncio.Event, None]] = {}
        self._inboxes: Callable[[str], None] = lambda stream: None
        log.listen(self._grown)

    def on_inbox(self, receive: Callable[[str], None]) -> None:
        """Call ``receive(stream)`` with the owner's stream when its inbox grew; empty: any inbox may have."""
        self._inboxes = receive

    def _grown(self, name: bytes) -> None:
        stream = name.decode()
        if (calm := self._calm.get(stream)) and self.may_have_ended(stream):
            for event in calm:
                event.set()
        if stream.startswith("inbox/") or not stream:
            self._inboxes(stream.removeprefix("inbox/"))
        for events in [self._waiting.get(stream, {})] if stream else self._waiting.values():
            for event in list(events):
                event.set()

    def may_have_ended(self, stream: str) -> bool:
        """Whether a task's newest commit may be its last: what it says is known from the records as they were read."""
        types = self._log.newest_types(stream)
        return types is None or not ENDINGS.isdisjoint(types)

    async def calmly(self, stream: str, calm: "Calm") -> None:
        """Let some changes of a task come together, but for its end."""
        ended = asyncio.Event()
        self._calm.setdefault(stream, {})[ended] = None
        try:
            await calm.wait(ended)
        finally:
            del self._calm[stream][ended]
            if not self._calm[stream]:
                del self._calm[stream]

    async def beyond(self, stream: str, revision: int, timeout: float) -> bool:
        """Wait until the stream has gone beyond a revision; False if ``timeout`` seconds pass before.

        Raises what stopped the reading of the log, such as `LogRolledBack`.
        """
        loop, grown = asyncio.get_running_loop(), asyncio.Event()
        until = loop.time() + timeout
        self._waiting.setdefault(stream, {})[grown] = None
        try:
            while True:
                self._log.tail()
                grown.clear()
                if (await self._log.state(stream)).revision > revision:
                    return True
                if (left := until - loop.time()) <= 0:
                    return False
                try:
                    async with asyncio.timeout(min(left, _LOOK)):
                        await grown.wait()
                except TimeoutError:
                    continue
        finally:
            del self._waiting[stream][grown]
            if not self._waiting[stream]:
                del self._waiting[stream]


class Calm:
    """A pause between looks at something that changes all the time: none at first, then longer, up to 20 ms."""

    def __init__(self) -> None:
        self._seconds = 0.0

    async def wait(self, sooner: asyncio.Event | None = None) -> None:
        """Let some changes come together, unless the event says that it is time."""
        if sooner is None or not self._seconds:
            await asyncio.sleep(self._seconds)
        else:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._seconds):
                    await sooner.wait()
        self._seconds = min(0.02, self._seconds * 2 + 0.001)
