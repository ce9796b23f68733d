"""Blobs in memory: the reference."""

import hashlib
import time
from collections.abc import AsyncIterator, Callable

from ..blobs import Stored, checked_size
from ..errors import BlobError


class MemoryBlobs:
    """Durable as long as the object lives. ``clock``: seconds, the store's own."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.contents: dict[bytes, bytes] = {}
        self.times: dict[bytes, float] = {}
        self.set_apart: dict[tuple[bytes, str], tuple[bytes, float]] = {}
        self.left: dict[str, bytes] = {}
        self.clock = clock

    async def put(self, name: bytes, content: bytes) -> None:
        if hashlib.sha256(checked_size(content)).digest() != name:
            raise BlobError(f"these {len(content):,} bytes are not blob {name.hex()}")
        if self.contents.get(name) != content:
            self.contents[name], self.times[name] = content, self.clock()

    async def get(self, name: bytes) -> bytes:
        content = self.contents.get(name)
        if content is None:
            content = next((kept for (other, _), (kept, _) in self.set_apart.items() if other == name), None)
        if content is None:
            raise BlobError(f"blob {name.hex()} is missing")
        if hashlib.sha256(content).digest() != name:
            raise BlobError(f"blob {name.hex()} is damaged")
        return content

    async def has(self, name: bytes) -> bool:
        return name in self.contents

    async def names(self) -> AsyncIterator[bytes]:
        for name in list(self.contents):
            yield name

    async def stored(self) -> AsyncIterator[Stored]:
        for name, content in list(self.contents.items()):
            yield Stored(name, len(content), self.clock() - self.times.get(name, 0.0))

    async def set_aside(self, name: bytes, run: str) -> None:
        if name in self.contents:
            self.set_apart[name, run] = self.contents.pop(name), self.times.pop(name, 0.0)

    async def aside(self) -> AsyncIterator[tuple[bytes, str]]:
        for name, run in list(self.set_apart):
            yield name, run

    async def bring_back(self, name: bytes, run: str) -> None:
        if (name, run) in self.set_apart:
            content, put = self.set_apart.pop((name, run))
            if name not in self.contents:
                self.contents[name], self.times[name] = content, put

    async def drop(self, name: bytes, run: str) -> None:
        self.set_apart.pop((name, run), None)

    async def note(self, key: str, content: bytes, *, new: bool = False) -> bool:
        if new and key in self.left:
            return False
        self.left[key] = content
        return True

    async def notes(self, prefix: str) -> dict[str, bytes]:
        return {key: content for key, content in self.left.items() if key.startswith(prefix)}

    async def remove_note(self, key: str) -> None:
        self.left.pop(key, None)

    async def close(self) -> None:
        return
