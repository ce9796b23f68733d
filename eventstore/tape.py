"""The contract of a tape: where record bytes lie, in order. All that differs between stores is here.

A tape has one or more *lanes*; each slice lies in one lane, whole. A *place* is a positive number that grows along a
lane; what a place is (a row, an offset) is the store's business and nothing keeps it but disposable caches.

Durability: what `append` placed is on disk (SQLite: fsync; Kafka: the in-sync replicas' memory) when it returns.
Consistency: `read` from a place gives every record after it, in the one order all readers see.
Concurrency: any number of processes may append and read.
Retries: an append that ended in `Indefinite` may have happened, may happen later, may happen twice: read on.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from .errors import StoreError
from .verify import Identity


class Entry(NamedTuple):
    """Record bytes at a place."""

    place: int
    raw: bytes


START = Entry(0, b"")


class Seen(NamedTuple):
    """What a reader has read last, told to a tape that does not know it: the place, the SHA-256 of what stands there,
    and the epoch it was written under (-1: not known)."""

    place: int
    digest: bytes = b""
    epoch: int = -1

    @classmethod
    def of(cls, entry: Entry) -> "Seen":
        """That this entry was read last."""
        return cls(entry.place, hashlib.sha256(entry.raw).digest() if entry.place else b"")


class Attempt(NamedTuple):
    """What an append came to. ``entries``: what the tape now holds after the writer's last read entry.

    ``placed`` on a conditional tape: the entries are exactly the writer's own records, there for good. Not placed:
    the entries lie between (not necessarily all of them), and nothing was written. An unconditional tape answers
    ``placed`` without entries: the records are on their way, and only reading shows where they landed.
    """

    placed: bool
    entries: list[Entry]


class Indefinite(StoreError):
    """The store cannot say whether an append happened (a time-out, a failed fsync)."""


class Tape(Protocol):
    """See the module's text for what is guaranteed."""

    lanes: int
    conditional: bool

    async def identity(self) -> Identity | None:
        """What the store says it holds; only ever compared with what the configuration says. None: empty."""
        ...

    async def found(self, log: Identity) -> None:
        """Make the store ready for this new log. On a store that holds one already: `WrongLogError`."""
        ...

    async def append(self, lane: int, records: Sequence[bytes], after: Entry) -> Attempt:
        """Add records at the lane's end. ``after``: the last entry this writer has read.

        Raises `LogRolledBack` if that entry is gone or changed, `Indefinite` if nobody knows, other `StoreError`
        if nothing was written.
        """
        ...

    def append_at_once(self, lane: int, records: Sequence[bytes], after: Entry) -> Attempt | None:
        """The same without waiting for anything or anybody, if that is possible now. None: nothing was done."""
        ...

    async def read(self, lane: int, after: int, limit: int) -> list[Entry]:
        """Up to ``limit`` entries after a place, in order; empty at the end of the lane."""
        ...

    async def fetch(self, lane: int, places: Sequence[int]) -> list[Entry]:
        """The entries at these places, in the order asked; a place that is gone raises `LogRolledBack`."""
        ...

    async def wait(self, lane: int, after: int, timeout: float) -> None:
        """Return soon after something stands behind ``after``, or when ``timeout`` seconds have passed."""
        ...

    async def close(self) -> None:
        """Let go of the store."""
        ...
