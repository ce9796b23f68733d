"""The contract of a projection: a pure function from accepted commits to writes.

The sink applies the writes and moves the projection's checkpoint in one transaction, and only if the stored checkpoint
is the one the writes were made after: so each commit counts exactly once, whoever crashes when, however many workers
there are. A projection may look at its own documents: they change only with its checkpoint, so what it saw is what the
writes are applied to, or nothing is applied. It can be deleted at any time; rebuilt, it is equal by hash.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from ..eventstore.reading import Commit

Sizes = dict[int, int]
"""A checkpoint: for each slice, how many accepted commits were projected."""


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


class Projection(Protocol):
    """``version`` goes up when `writes` changes: then everything is projected anew."""

    name: str
    version: int

    async def writes(self, commit: Commit, read: Read) -> Iterable[Write]:
        """What a commit changes; depends on the commit and on what ``read`` gives, and on nothing else.

        An error here makes a dead letter of the commit, and the projection goes on.
        """
        ...


class Views(Protocol):
    """Where documents lie, by view and key. See the module's text for what `apply` guarantees."""

    async def checkpoint(self, projection: Projection) -> Sizes:
        """How far a projection has come; empty if it never ran or is of another version."""
        ...

    async def apply(self, projection: Projection, before: Sizes, after: Sizes, writes: Iterable[Write]) -> bool:
        """Apply writes and move the checkpoint, at once. False, and nothing done, if it is not at ``before``."""
        ...

    async def get(self, view: str, key: str) -> dict[str, Any] | None:
        """One document."""
        ...

    async def scan(
        self, view: str, prefix: str = "", limit: int = 10_000, after: str = ""
    ) -> list[tuple[str, dict[str, Any]]]:
        """Documents whose keys have a prefix and come after a key, sorted by key."""
        ...

    async def digest(self, projection: Projection) -> str:
        """SHA-256, hex, over all documents of a projection and its checkpoint."""
        ...

    async def drop(self, projection: Projection) -> None:
        """Forget everything about a projection."""
        ...

    async def close(self) -> None:
        """Let go of the store."""
        ...
