"""What every projection and every store of one must promise, whatever is written there: the contract of a sink.

A projection is a pure function from accepted commits to writes. Its sink keeps what was written together with how far
the projection has come, and moves both in one transaction, and only if nothing has moved since the writes were made:
so each commit counts exactly once, whoever crashes when, however many workers there are. What the writes are (of
documents, of a graph) and what can be asked is the sink's own; the worker does not look at it.

A sink has two sides. The live one is what readers see. The scratch one is where a rebuild writes, from zero, while the
live one goes on; `swap` puts it in the live one's place at once, so that no reader sees a mix. The worker decides when.
"""

from collections.abc import Awaitable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeVar

from ..eventstore.reading import Commit

W = TypeVar("W")
R = TypeVar("R")
W_co = TypeVar("W_co", covariant=True)
R_co = TypeVar("R_co", covariant=True)
R_contra = TypeVar("R_contra", contravariant=True)

Sizes = dict[int, int]
"""How far a projection has come: for each slice, how many accepted commits were projected."""
Id = tuple[str, ...]
"""What one thing in a sink is called; sorted by code points."""


class Named(Protocol):
    """By what a sink knows a projection. ``version`` goes up when `writes` changes: then all is projected anew."""

    name: str
    version: int


class Projection(Named, Protocol[W_co, R_contra]):
    """The order of commits in two streams may differ from one run to the next: what they come to must not."""

    def writes(self, commit: Commit, read: R_contra) -> Awaitable[Iterable[W_co]]:
        """What a commit changes; depends on the commit and on what ``read`` gives, and on nothing else.

        An error here makes a dead letter of the commit; its stream stands there, and the projection goes on.
        """
        ...


class Checkpoint(NamedTuple):
    """What a sink knows about a projection, of one moment.

    ``turn`` is another one after whatever was changed, for ever: what stands at a turn is what stood at it before.
    ``version``: of the projection that wrote what stands; 0 where nothing does. ``paused``: why, or empty.
    """

    sizes: Sizes = {}  # noqa: RUF012
    turn: int = 0
    version: int = 0
    paused: str = ""


class Letter(NamedTuple):
    """A stream's first commit that could not be projected. What follows it in its stream waits behind it.

    It holds no payload: ``reason`` is the kind of the error.
    """

    stream: str
    revision: int
    slice: int
    position: int
    commit: str
    reason: str


Letters = Mapping[str, Letter | None]
"""Dead letters by stream; None for one that is no more."""
NO_LETTERS: Letters = MappingProxyType({})
MOST_LETTERS = 10_000
"""Of how many streams of a projection there may be dead letters before it is set aside as a whole."""


class Ahead(Protocol[W, R_co]):
    """What a projection reads while a batch is made: the sink as the writes so far will leave it."""

    @property
    def read(self) -> R_co:
        """What is given to the projection's `writes`."""
        ...

    async def expect(self, streams: Iterable[str]) -> None:
        """Commits of these streams come next, or follow from them: what they will ask for may be looked up at once."""
        ...

    def add(self, writes: Iterable[W]) -> list[W]:
        """These come next."""
        ...

    @property
    def writes(self) -> Iterable[W]:
        """All that was added, or fewer that come to the same; what the sink would have to work out first it may have
        worked out here, while it applied the batch before."""
        ...

    def following(self) -> "Ahead[W, R_co] | None":
        """The same for the batch after this one, while this one may or may not be applied yet, and the one before it
        is. None where that cannot be told until it is."""
        ...


class Sink(Protocol[W, R_co]):
    """Where a projection's writes lie.

    Durable: what `apply` and `swap` have answered stands. Atomic: each changes everything or nothing, at any crash.
    Concurrent: any number of processes may call anything; of those who change a projection after the same turn, one
    succeeds. Errors of the store are `StoreError`, after which it is not known whether the change was made: read the
    checkpoint. Every call has a deadline.
    """

    async def checkpoint(self, projection: Named) -> Checkpoint:
        """How far a projection has come."""
        ...

    async def apply(
        self, projection: Named, before: Checkpoint, after: Sizes, writes: Iterable[W], letters: Letters = NO_LETTERS
    ) -> Checkpoint | None:
        """Apply writes and dead letters and move the checkpoint, at once; the new checkpoint.

        None, and nothing done, if the turn is not ``before``'s. What stood there at a ``before`` with no sizes goes.
        """
        ...

    def ahead(self, projection: Named, before: Checkpoint) -> Ahead[W, R_co]:
        """For a batch that will be applied after this checkpoint."""
        ...

    async def letters(self, projection: Named) -> dict[str, Letter]:
        """The dead letters by stream, up to `MOST_LETTERS` of them."""
        ...

    async def digest(self, projection: Named) -> str:
        """SHA-256, hex, over all that was projected, with dead letters and the checkpoint's sizes, and no more."""
        ...

    async def items(self, projection: Named, after: Id = (), limit: int = 1_000) -> list[tuple[Id, Any]]:
        """All that the digest covers but the sizes, sorted by id, from the first one after ``after`` on."""
        ...

    async def drop(self, projection: Named) -> None:
        """Forget everything about a projection but its turn and whether it is paused."""
        ...

    async def pause(self, projection: Named, reason: str) -> None:
        """Note that nothing more is to be applied, or with no reason that it is. It moves the turn."""
        ...

    def beside(self) -> "Sink[W, R_co]":
        """The scratch side: the same contract, seen by nobody who reads."""
        ...

    async def swap(self, projection: Named, live: Checkpoint, scratch: Checkpoint) -> bool:
        """Put the scratch side in the live one's place and forget the latter. On the live side only.

        False, and nothing done, if either turn is not the one given. A live one that is paused stays so.
        """
        ...

    async def projections(self) -> list[str]:
        """Names of the projections of which something stands here, sorted."""
        ...

    async def close(self) -> None:
        """Let go of the store."""
        ...
