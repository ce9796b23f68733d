"""Blobs as files of a folder: written aside, synced, then renamed, so that a name never shows half a blob.

ab/cdef…                   a blob, named in hex
aside/SWEEP/abcdef…        one that a sweep has set aside
notes/KEY                  a note; not synced, for it concerns only processes that live
"""

import asyncio
import contextlib
import errno
import hashlib
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TypeVar

from ..blobs import Stored, checked_size
from ..errors import BlobError, StoreError, StoreFullError, StoreReadOnlyError

T = TypeVar("T")


class FolderBlobs:
    """See the module's text."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: bytes) -> Path:
        """The file of a blob."""
        return self.folder / name.hex()[:2] / name.hex()[2:]

    async def put(self, name: bytes, content: bytes) -> None:
        checked_size(content)
        if hashlib.sha256(content).digest() != name:
            raise BlobError(f"these {len(content):,} bytes are not blob {name.hex()}")
        await self._do(f"blob {self.path(name)} cannot be written", lambda: self._put(self.path(name), content))

    async def get(self, name: bytes) -> bytes:
        try:
            content = await asyncio.to_thread(self._read, name)
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

    async def stored(self) -> AsyncIterator[Stored]:
        now = await asyncio.to_thread(self._clock)
        for path in await asyncio.to_thread(lambda: list(self.folder.glob("??/*"))):
            with contextlib.suppress(FileNotFoundError):
                if len(path.name) == 62:
                    stat = path.stat()
                    yield Stored(bytes.fromhex(path.parent.name + path.name), stat.st_size, now - stat.st_mtime)

    async def set_aside(self, name: bytes, run: str) -> None:
        def move() -> None:
            target = self._aside(name, run)
            target.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                self.path(name).rename(target)

        await self._do(f"blob {name.hex()} cannot be set aside", move)

    async def aside(self) -> AsyncIterator[tuple[bytes, str]]:
        for path in await asyncio.to_thread(lambda: list(self.folder.glob("aside/*/*"))):
            yield bytes.fromhex(path.name), path.parent.name

    async def bring_back(self, name: bytes, run: str) -> None:
        def move() -> None:
            self.path(name).parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                self._aside(name, run).rename(self.path(name))

        await self._do(f"blob {name.hex()} cannot be brought back", move)

    async def drop(self, name: bytes, run: str) -> None:
        def delete() -> None:
            self._aside(name, run).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # it is not empty yet
                self._aside(name, run).parent.rmdir()

        await self._do(f"blob {name.hex()} cannot be deleted", delete)

    async def note(self, key: str, content: bytes, *, new: bool = False) -> bool:
        def write() -> bool:
            path = self.folder / "notes" / key
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch = path.with_name(f".{secrets.token_hex(8)}")
            try:
                scratch.write_bytes(content)
                if not new:
                    scratch.rename(path)
                    return True
                with contextlib.suppress(FileExistsError):
                    path.hardlink_to(scratch)
                    return True
                return False
            finally:
                scratch.unlink(missing_ok=True)

        return await self._do(f"note {key} cannot be left in {self.folder}", write)

    async def notes(self, prefix: str) -> dict[str, bytes]:
        def read() -> dict[str, bytes]:
            found = {}
            for path in (self.folder / "notes").rglob("*"):
                key = path.relative_to(self.folder / "notes").as_posix()
                if key.startswith(prefix) and not path.name.startswith("."):
                    with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                        found[key] = path.read_bytes()
            return found

        return await self._do(f"the notes in {self.folder} cannot be read", read)

    async def remove_note(self, key: str) -> None:
        path = self.folder / "notes" / key
        await self._do(f"note {key} cannot be removed", lambda: path.unlink(missing_ok=True))

    async def close(self) -> None:
        return

    async def _do(self, failed: str, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except OSError as error:
            kind = {errno.ENOSPC: StoreFullError, errno.EDQUOT: StoreFullError}.get(error.errno or 0, StoreError)
            kind = StoreReadOnlyError if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM) else kind
            raise kind(f"{failed}: {error.strerror}") from error

    def _aside(self, name: bytes, run: str) -> Path:
        return self.folder / "aside" / run / name.hex()

    def _set_aside(self, name: bytes) -> Path | None:
        return next(self.folder.glob(f"aside/*/{name.hex()}"), None)

    def _read(self, name: bytes) -> bytes:
        for path in self._places(name):
            with contextlib.suppress(FileNotFoundError):
                return path.read_bytes()
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    def _places(self, name: bytes) -> Iterator[Path]:
        """Where a blob may lie; looked at twice, for it may be on its way back."""
        for _ in range(2):
            yield self.path(name)
            if aside := self._set_aside(name):
                yield aside

    def _clock(self) -> float:
        """The time that the file system gives to what is written now; this machine's where nothing can be."""
        scratch = self.folder / f".{secrets.token_hex(8)}"
        try:
            scratch.touch()
            return scratch.stat().st_mtime
        except OSError:
            return time.time()
        finally:
            with contextlib.suppress(OSError):
                scratch.unlink(missing_ok=True)

    def _put(self, path: Path, content: bytes) -> None:
        if not _holds(path, content):
            self._write(path, content)
        _sync_folder(path.parent)

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
        return path.stat().st_size == len(content) and path.read_bytes() == content
    except OSError:
        return False


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
