"""Waiting for a stream to grow, whoever writes it."""

import asyncio
from collections.abc import Callable

from ..eventstore.log import Log

_LOOK = 5.0
"""Seconds after which one who waits sees whether the log is still being read."""


class Watch:
    """One for each open log. Wakes those who wait for a stream when a commit on it was read."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._waiting: dict[str, dict[asyncio.Event, None]] = {}
        self._inboxes: Callable[[str], None] = lambda stream: None
        log.listen(self._grown)

    def on_inbox(self, receive: Callable[[str], None]) -> None:
        """Call ``receive(stream)`` with the owner's stream when its inbox grew; empty: any inbox may have."""
        self._inboxes = receive

    def _grown(self, name: bytes) -> None:
        stream = name.decode()
        if stream.startswith("inbox/") or not stream:
            self._inboxes(stream.removeprefix("inbox/"))
        for events in [self._waiting.get(stream, {})] if stream else self._waiting.values():
            for event in list(events):
                event.set()

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

    async def wait(self) -> None:
        """Let some changes come together."""
        await asyncio.sleep(self._seconds)
        self._seconds = min(0.02, self._seconds * 2 + 0.001)
