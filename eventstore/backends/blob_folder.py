"""Blobs as files of a folder: written aside, synced, then renamed, so that a name never shows half a blob."""

import asyncio
import hashlib
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

from ..blobs import checked_size
from ..errors import BlobError, StoreFullError


class FolderBlobs:
    """``folder/ab/cdef…``, named in hex."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: bytes) -> Path:
        """The file of a blob."""
        return self.folder / name.hex()[:2] / name.hex()[2:]

    async def put(self, name: bytes, content: bytes) -> None:
        checked_size(content)
        if not await self.has(name):
            await asyncio.to_thread(self._write, self.path(name), content)

    async def get(self, name: bytes) -> bytes:
        try:
            content = await asyncio.to_thread(self.path(name).read_bytes)
        except OSError as error:
            raise BlobError(f"blob {name.hex()} cannot be read ({error.strerror}): restore {self.folder}") from error
        if hashlib.sha256(content).digest() != name:
            raise BlobError(f"blob {name.hex()} is damaged: restore {self.path(name)} from a copy")
        return content

    async def has(self, name: bytes) -> bool:
        return await asyncio.to_thread(self.path(name).exists)

    async def names(self) -> AsyncIterator[bytes]:
        for path in await asyncio.to_thread(lambda: list(self.folder.glob("??/*"))):
            if len(path.name) == 62:
                yield bytes.fromhex(path.parent.name + path.name)

    async def close(self) -> None:
        return

    def _write(self, path: Path, content: bytes) -> None:
        scratch = path.with_name(f".{secrets.token_hex(8)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with scratch.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            scratch.rename(path)
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            scratch.unlink(missing_ok=True)
            raise StoreFullError(f"{path} cannot be written: {error.strerror}") from error
