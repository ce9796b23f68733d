"""The contract of blobs: large ciphertexts beside the log, by the SHA-256 of their bytes.

Durability: a blob is on disk (or in the object store) when `put` returns, and only then may a record name it.
Consistency: content-addressed, so a blob never changes; putting it again is nothing, but that a damaged one is
replaced while the right bytes are at hand. `get` verifies what it read.
Concurrency: any number of processes may put, get and sweep.
Retries: everything here may be done again; a `put` that was given up may still happen.

What `sweeping` needs stands beside it: blobs can be set aside, where `get` still finds them and `put` does not, and
notes can be left in the store for other processes.
"""

from collections.abc import AsyncIterator
from typing import NamedTuple, Protocol

from .errors import BlobError

MAX_BLOB = 64 * 1024 * 1024
"""Largest blob, in bytes; a larger artifact is a list of blobs (see `parts`)."""
MAX_NOTE = 16 * 1024 * 1024


class Stored(NamedTuple):
    """A blob that is here. ``size``: bytes; ``age``: seconds since it was put, both ends by the store's own clock."""

    name: bytes
    size: int
    age: float


class Blobs(Protocol):
    """See the module's text for what is guaranteed. Everything raises `StoreError` where the store fails."""

    async def put(self, name: bytes, content: bytes) -> None:
        """Store content under its SHA-256."""
        ...

    async def get(self, name: bytes) -> bytes:
        """The content; `BlobError` if it is missing or is not what its name says."""
        ...

    async def has(self, name: bytes) -> bool:
        """Whether the blob is here and not set aside."""
        ...

    def names(self) -> AsyncIterator[bytes]:
        """The names of all blobs that are not set aside, in no order."""
        ...

    def stored(self) -> AsyncIterator[Stored]:
        """The same with sizes and ages."""
        ...

    async def set_aside(self, name: bytes, run: str) -> None:
        """Move a blob to where only `get` finds it, under the name of a sweep. Nothing if it is not here."""
        ...

    def aside(self) -> AsyncIterator[tuple[bytes, str]]:
        """The blobs that were set aside, each with its sweep."""
        ...

    async def bring_back(self, name: bytes, run: str) -> None:
        """Undo `set_aside`. At every moment `get` finds it here or there."""
        ...

    async def drop(self, name: bytes, run: str) -> None:
        """Delete for good what this sweep set aside."""
        ...

    async def note(self, key: str, content: bytes, *, new: bool = False) -> bool:
        """Leave a note for other processes. ``new``: only if there is none, and whether that was so."""
        ...

    async def notes(self, prefix: str) -> dict[str, bytes]:
        """The notes whose keys begin so."""
        ...

    async def remove_note(self, key: str) -> None:
        """Take a note away. Nothing if it is not there."""
        ...

    async def close(self) -> None:
        """Let go of the store."""
        ...


def checked_size(content: bytes) -> bytes:
    """The content, if it may be a blob."""
    if len(content) > MAX_BLOB:
        raise BlobError(f"a blob of {len(content):,} bytes, over the limit of {MAX_BLOB:,}: store it in parts")
    return content
