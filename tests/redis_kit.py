"""Redis in tests: keys of a test's own in the shared server, gone when it ends."""

import asyncio
import contextlib
import socket
import subprocess
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

from redis.asyncio import Redis

from agent_party.cluster.services import ports
from agent_party.projections.backends.views_redis import RedisViews
from tests.services_kit import Services


def own_url(services: Services) -> str:
    """The URL of views that nobody else uses."""
    return f"{services.redis}?prefix=test-{uuid.uuid4().hex}"


class Server:
    """A Redis of a test's own, to be broken."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = ports.free()
        self._command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", *options]
        self._folder = folder
        self._running: subprocess.Popen[bytes] | None = None
        self.url = f"redis://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._begin()
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)

    def _begin(self) -> None:
        self._running = subprocess.Popen(self._command, cwd=self._folder, stdout=subprocess.DEVNULL)

    def stop(self) -> None:
        if self._running:
            self._running.kill()
            self._running.wait()


@contextlib.asynccontextmanager
async def own_server(folder: Path, *options: str) -> AsyncIterator[Server]:
    """A running server of a test's own."""
    server = Server(folder, *options)
    await server.start()
    try:
        yield server
    finally:
        server.stop()


@contextlib.asynccontextmanager
async def redis_views(services: Services, log: bytes = b"log") -> AsyncIterator[RedisViews]:
    """Empty views, whose keys are deleted at the end."""
    views = RedisViews(own_url(services), log)
    try:
        yield views
    finally:
        await forget(services, views)
        await views.close()


async def forget(services: Services, views: RedisViews) -> None:
    """Delete the keys of views."""
    async with Redis.from_url(services.redis) as redis:
        async for key in redis.scan_iter(match=f"{views.prefix}*", count=1_000):
            await redis.unlink(key)
