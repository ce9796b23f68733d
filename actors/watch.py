"""Waiting for a stream to grow, whoever writes it."""

import asyncio
from collections.abc import Callable

from ..eventstore.log import Log


class Watch:
    """One for each open log. Wakes those who wait for a stream when a commit on it was read."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._events: dict[str, asyncio.Event] = {}
        self._inboxes: Callable[[str], None] = lambda stream: None
        log.listen(self._grown)

    def on_inbox(self, receive: Callable[[str], None]) -> None:
        """Call ``receive(stream)`` with the owner's stream when its inbox grew; empty: any inbox may have."""
        self._inboxes = receive

    def _grown(self, name: bytes) -> None:
        stream = name.decode()
        if stream.startswith("inbox/") or not stream:
            self._inboxes(stream.removeprefix("inbox/"))
        for event in [self._events.get(stream)] if stream else list(self._events.values()):
            if event:
                event.set()

    async def beyond(self, stream: str, revision: int, timeout: float) -> bool:
        """Wait until the stream has gone beyond a revision; False if ``timeout`` seconds pass before."""
        self._log.tail()
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        while (await self._log.state(stream)).revision <= revision:
            event = self._events.setdefault(stream, asyncio.Event())
            event.clear()
            if (await self._log.state(stream)).revision > revision:
                break
            try:
                async with asyncio.timeout(until - loop.time()):
                    await event.wait()
            except TimeoutError:
                return False
        return True
