"""Blobs as files of a folder: written aside, synced, then renamed, so that a name never shows half a blob."""

import asyncio
import errno
import hashlib
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

from ..blobs import checked_size
from ..errors import BlobError, StoreError, StoreFullError, StoreReadOnlyError


class FolderBlobs:
    """``folder/ab/cdef…``, named in hex."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: bytes) -> Path:
        """The file of a blob."""
        return self.folder / name.hex()[:2] / name.hex()[2:]

    async def put(self, name: bytes, content: bytes) -> None:
        checked_size(content)
        if hashlib.sha256(content).digest() != name:
            raise BlobError(f"these {len(content):,} bytes are not blob {name.hex()}")
        await asyncio.to_thread(self._put, self.path(name), content)

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

    def _put(self, path: Path, content: bytes) -> None:
        try:
            if not _holds(path, content):
                self._write(path, content)
            _sync_folder(path.parent)
        except OSError as error:
            kind = {errno.ENOSPC: StoreFullError, errno.EDQUOT: StoreFullError}.get(error.errno or 0, StoreError)
            kind = StoreReadOnlyError if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM) else kind
            raise kind(f"blob {path} cannot be written: {error.strerror}") from error

    def _write(self, path: Path, content: bytes) -> None:
        if not path.parent.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            _sync_folder(self.folder)
        scratch = path.with_name(f".{secrets.token_hex(8)}")
        try:
            with scratch.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            scratch.rename(path)
        except OSError:
            scratch.unlink(missing_ok=True)
            raise


def _holds(path: Path, content: bytes) -> bool:
    """Whether the file is there, whole: a damaged one is written again while the right bytes are at hand."""
    try:
        return path.read_bytes() == content
    except OSError:
        return False


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
