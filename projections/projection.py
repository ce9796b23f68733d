"""The contract of views: documents, by view and key. See `sink` for what is promised about a projection's writes.

A projection may look at its own documents: they change only with its checkpoint, so what it saw is what the writes are
applied to, or nothing is applied. It can be deleted at any time; rebuilt, it is equal by hash.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from ..eventstore.reading import Commit
from .sink import Checkpoint, Letter, Letters, Named, Sink, Sizes

__all__ = ["Add", "Checkpoint", "Delete", "Named", "Projection", "Put", "Read", "Sizes", "Views", "Write"]
DEAD_LETTERS = "dead-letters"
"""The view of the dead letters of all projections, by projection and stream."""


class Put(NamedTuple):
    """Set fields of a document; the others stay. A field set to None goes."""

    view: str
    key: str
    fields: Mapping[str, Any]


class Add(NamedTuple):
    """Add to a number in a document; a field that is missing is 0."""

    view: str
    key: str
    field: str
    amount: int


class Delete(NamedTuple):
    """Remove a document."""

    view: str
    key: str


Write = Put | Add | Delete
Read = Callable[[str, str], Awaitable[Mapping[str, Any]]]
"""A document of the projection by view and key, after the writes of all commits before; empty if there is none."""


class Projection(Named, Protocol):
    """A projection into views."""

    async def writes(self, commit: Commit, read: Read) -> Iterable[Write]:
        """See `sink.Projection`."""
        ...


class Views(Sink[Write, Read], Protocol):
    """A sink of documents, and what can be asked of it. What is asked is answered from the live sides alone."""

    async def get(self, view: str, key: str) -> dict[str, Any] | None:
        """One document."""
        ...

    async def scan(
        self, view: str, prefix: str = "", limit: int = 10_000, after: str = ""
    ) -> list[tuple[str, dict[str, Any]]]:
        """Documents whose keys have a prefix and come after a key, sorted by key."""
        ...

    async def read(self, projection: Named, view: str, key: str) -> dict[str, Any] | None:
        """One document of a projection, on this side."""
        ...

    async def changed(self, projection: Named, turn: int, timeout: float) -> None:
        """Return soon after this side's turn is another than ``turn``, or after ``timeout`` seconds."""
        ...

    def beside(self) -> "Views": ...


def letter_writes(projection: Named, letters: Letters) -> list[Write]:
    """Dead letters as documents."""
    writes: list[Write] = []
    for stream, letter in letters.items():
        key = f"{projection.name}/{stream}"
        writes.append(Delete(DEAD_LETTERS, key))
        if letter:
            writes.append(Put(DEAD_LETTERS, key, {"projection": projection.name, **letter._asdict()}))
    return writes


def letter_of(fields: Mapping[str, Any]) -> Letter:
    """A dead letter from its document."""
    return Letter(**{name: fields[name] for name in Letter._fields})
