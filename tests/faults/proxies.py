"""A TCP proxy before a broker, whose connections can be cut, held up, or refused."""

import asyncio
import contextlib
from typing import Self

HOST = "127.0.0.1"
_CHUNK = 1 << 16


class Proxy:
    """Passes bytes on between whoever connects and a port of this machine. Belongs to one event loop."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.cuts = 0
        self._server: asyncio.Server | None = None
        self._flows = asyncio.Event()
        self._refuses = False
        self._open: set[asyncio.StreamWriter] = set()
        self._passing: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._flows.set()
        self._server = await asyncio.start_server(self._connected, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._server
        self._server.close()
        self._flows.set()
        self.cut()
        for task in self._passing:
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)

    def cut(self) -> int:
        """Reset every connection, whatever is on its way in it. How many there were."""
        for writer in self._open:
            writer.transport.abort()
        count = len(self._open)
        self._open.clear()
        self.cuts += count
        return count

    def hold(self) -> None:
        """Pass nothing on, in connections that stay open and in new ones."""
        self._flows.clear()

    def refuse(self) -> None:
        """Cut, and end every new connection at once."""
        self._refuses = True
        self.cut()

    def mend(self) -> None:
        """Pass on what was held up, and take connections again."""
        self._refuses = False
        self._flows.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuses:
            writer.transport.abort()
            return
        try:
            there, back = await asyncio.open_connection(HOST, self.target)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, back}
        both = {asyncio.ensure_future(self._passed(reader, back)), asyncio.ensure_future(self._passed(there, writer))}
        self._passing |= both
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for end in (writer, back):
            end.transport.abort()
            self._open.discard(end)
        await asyncio.wait(both)
        self._passing -= both

    async def _passed(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(_CHUNK):
                await self._flows.wait()
                sink.write(data)
                await sink.drain()
