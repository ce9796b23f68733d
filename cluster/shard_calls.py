"""A client's side of talking to one shard log: requests of one turn go in one call, and few calls are on their way.

While calls are on their way, requests gather; so the more there is to do, the more goes in each call.
"""

import asyncio
from collections import deque
from collections.abc import Iterator
from typing import Protocol

from ..eventstore.errors import StoreError
from .shard_wire import Answer, Append, Ask, Later, Request, packed, said, size

BYTES, REQUESTS = 1 << 20, 256
"""Of records, and requests in number, that one call takes."""


class Lost(Exception):
    """No answer came. ``sent`` is false where the request surely did not reach a shard log, nor will."""

    def __init__(self, message: str, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


class Line(Protocol):
    """A way to a shard log, which may be another one at each call."""

    async def ask(self, message: bytes) -> bytes:
        """What it says, within seconds; `Lost` if nothing."""
        ...


class _Asked:
    """``sent``: it went into a call."""

    def __init__(self, request: Request) -> None:
        self.request, self.sent = request, False
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()


class Calls:
    """Asks over one line. Belongs to one event loop.

    ``client`` is whom it asks for, ``numbers`` what that one's calls are called by; ``most``: calls that are on their
    way at once.
    """

    def __init__(self, line: Line, client: bytes, numbers: Iterator[int], most: int) -> None:
        self.line, self._client, self._numbers, self._most = line, client, numbers, most
        self._queue: deque[_Asked] = deque()
        self._busy, self._flushing = 0, False
        self._carrying: set[asyncio.Task[None]] = set()

    async def ask(self, request: Request, deadline: float) -> Answer:
        """What is answered within ``deadline`` seconds; else, or if it cannot be, `Lost`."""
        loop = asyncio.get_running_loop()
        asked = _Asked(request)
        self._queue.append(asked)
        if not self._flushing:
            self._flushing = True
            loop.call_soon(self._flush)
        try:
            async with asyncio.timeout(deadline):
                return await asked.answer
        except TimeoutError:
            raise Lost(f"no answer came within {deadline:g} s", sent=asked.sent) from None
        finally:
            if not asked.sent and asked in self._queue:
                self._queue.remove(asked)

    def _flush(self) -> None:
        self._flushing = False
        while self._queue and self._busy < self._most:
            task = asyncio.get_running_loop().create_task(self._carry(self._taken()))
            self._busy += 1
            self._carrying.add(task)
            task.add_done_callback(self._carrying.discard)

    def _taken(self) -> list[_Asked]:
        """What goes into the next call."""
        taken = [self._queue.popleft()]
        weight = _weight(taken[0].request)
        while self._queue and len(taken) < REQUESTS and weight + _weight(self._queue[0].request) <= BYTES:
            taken.append(self._queue.popleft())
            weight += _weight(taken[-1].request)
        for asked in taken:
            asked.sent = True
        return taken

    async def _carry(self, batch: list[_Asked]) -> None:
        number, waits = next(self._numbers), True
        message = packed(Ask(self._client, number, [asked.request for asked in batch]))
        try:
            while True:
                answered = said(await self.line.ask(message))
                if waits:
                    waits = False
                    self._freed()
                if not answered.known:
                    raise Lost("another shard log took over")
                for index, answer in answered.answers:
                    if not batch[index].answer.done():
                        batch[index].answer.set_result(answer)
                if not answered.more or all(asked.answer.done() for asked in batch):
                    return
                message = packed(Later(self._client, number))
        except (Lost, StoreError, IndexError) as error:
            lost = Lost(str(error), sent=not waits or not isinstance(error, Lost) or error.sent)
            for asked in batch:
                if not asked.answer.done():
                    asked.answer.set_exception(lost)
        finally:
            if waits:
                self._freed()

    def _freed(self) -> None:
        self._busy -= 1
        self._flush()

    async def close(self) -> None:
        """Wait for nothing any more."""
        for task in list(self._carrying):
            task.cancel()
        await asyncio.gather(*self._carrying, return_exceptions=True)
        for asked in self._queue:
            asked.answer.cancel()
        self._queue.clear()


def _weight(request: Request) -> int:
    return size(request.records) if isinstance(request, Append) else 0
