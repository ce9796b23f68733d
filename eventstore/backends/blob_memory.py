"""Blobs in memory: the reference."""

import hashlib
from collections.abc import AsyncIterator

from ..blobs import checked_size
from ..errors import BlobError


class MemoryBlobs:
    """Durable as long as the object lives."""

    def __init__(self) -> None:
        self.contents: dict[bytes, bytes] = {}

    async def put(self, name: bytes, content: bytes) -> None:
        if hashlib.sha256(checked_size(content)).digest() != name:
            raise BlobError(f"these {len(content):,} bytes are not blob {name.hex()}")
        self.contents[name] = content

    async def get(self, name: bytes) -> bytes:
        content = self.contents.get(name)
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

    async def close(self) -> None:
        return
