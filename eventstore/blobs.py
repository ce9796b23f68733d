"""The contract of blobs: large ciphertexts beside the log, by the SHA-256 of their bytes.

Durability: a blob is on disk (or in the object store) when `put` returns, and only then may a record name it.
Consistency: content-addressed, so a blob never changes; putting it again is nothing. `get` verifies what it read.
"""

from collections.abc import AsyncIterator
from typing import Protocol

from .errors import BlobError

MAX_BLOB = 64 * 1024 * 1024
"""Largest blob that is handled in one piece, in bytes; a larger artifact is a list of blobs."""


class Blobs(Protocol):
    """See the module's text for what is guaranteed."""

    async def put(self, name: bytes, content: bytes) -> None:
        """Store content under its SHA-256."""
        ...

    async def get(self, name: bytes) -> bytes:
        """The content; `BlobError` if it is missing or is not what its name says."""
        ...

    async def has(self, name: bytes) -> bool:
        """Whether the blob is here."""
        ...

    def names(self) -> AsyncIterator[bytes]:
        """The names of all blobs, in no order."""
        ...

    async def close(self) -> None:
        """Let go of the store."""
        ...


def checked_size(content: bytes) -> bytes:
    """The content, if it may be a blob."""
    if len(content) > MAX_BLOB:
        raise BlobError(f"a blob of {len(content):,} bytes, over the limit of {MAX_BLOB:,}: store it in parts")
    return content
