"""The projections of a party: which there are, and the workers that carry commits into their sinks.

A projection is carried by whoever opens the party when it is asked for, or by `party projection run`, in one process or
on Ray. Where it was shared out, its parts are what stands in the sink, and are carried and looked at one by one.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..actors.errors import ConfigurationError
from ..projections.backends.graph_memory import MemoryGraph
from ..projections.backends.views_memory import MemoryViews
from ..projections.catalogue import PROJECTIONS
from ..projections.parts import Part, PartOf, by_stream, split
from ..projections.relationships import Relationships
from ..projections.sink import Checkpoint, Projection, Sink
from ..projections.worker import Lag, Limits, Worker

if TYPE_CHECKING:
    from .wiring import Stack

AnyWorker = Worker[Any, Any]
LIMITS = Limits(rows=1_000, bytes=4 << 20, seconds=0.5)
"""Of a worker that has a process to itself."""
MOST_PARTS = 64
_SHARED = "shared out among"


class Status(NamedTuple):
    """How a projection, or a part of one, does. ``scratch``: commits in a rebuild that is under way or given up."""

    name: str
    version: int
    stands: Checkpoint
    lag: Lag
    letters: int
    scratch: int


def names() -> list[str]:
    """The projections that this program has; the graph is called ``relationships``."""
    return sorted([*PROJECTIONS, Relationships.name])


def projection_of(name: str) -> Projection[Any, Any]:
    """A projection by its name; `ConfigurationError` if there is none."""
    if name == Relationships.name:
        return Relationships()
    if name not in PROJECTIONS:
        raise ConfigurationError(f"there is no projection {name}: there are {', '.join(names())}")
    return PROJECTIONS[name]()


def sink_of(stack: "Stack", name: str) -> Sink[Any, Any]:
    """Where a projection's writes lie."""
    return stack.graph if name == Relationships.name else stack.views


def reference_of(name: str) -> Sink[Any, Any]:
    """An empty sink of the same kind, in memory, to compare with."""
    return MemoryGraph() if name == Relationships.name else MemoryViews()


def part_worker(stack: "Stack", name: str, part: Part, limits: Limits | None = None) -> AnyWorker:
    """The worker of a part of a projection."""
    whole = projection_of(name)
    if part.of == 1:
        return Worker(stack.log, whole, sink_of(stack, name), limits)
    if not by_stream(whole):
        raise ConfigurationError(f"{name} looks across streams, so it has one owner: it cannot be shared out")
    if not 1 <= part.of <= min(MOST_PARTS, stack.log.identity.slices):
        most = min(MOST_PARTS, stack.log.identity.slices)
        raise ConfigurationError(f"{name} can be shared out among 1 to {most} owners, not {part.of}")
    slices = part.slices(stack.log.identity.slices)
    return Worker(stack.log, PartOf(whole, part), sink_of(stack, name), limits, slices)


async def workers(stack: "Stack", name: str, limits: Limits | None = None) -> list[AnyWorker]:
    """The workers of a projection: one, or one for each part where it was shared out."""
    parts = await _standing(stack, name)
    return [part_worker(stack, name, part, limits) for part in sorted(parts)]


async def _standing(stack: "Stack", name: str) -> Sequence[Part]:
    sink, whole = sink_of(stack, name), projection_of(name)
    stands = [part for other, part in map(split, await sink.projections()) if other == name]
    of = max((part.of for part in stands), default=1)
    if not stands and (paused := (await sink.checkpoint(whole)).paused).startswith(_SHARED):
        of = int(paused.removeprefix(_SHARED))  # it was shared out, and nobody has begun
    return [Part(index, of) for index in range(of)]


async def share_out(stack: "Stack", name: str, of: int) -> list[Part]:
    """The parts of a projection among ``of`` owners. What stood for another number of them goes, and is paused, so
    that a worker which does not know yet brings nothing back."""
    parts, sink, whole = [Part(number, of) for number in range(of)], sink_of(stack, name), projection_of(name)
    wanted = [part_worker(stack, name, part).projection for part in parts]
    standing = [part for other, part in map(split, await sink.projections()) if other == name and part.of != of]
    for part in {*standing, *([Part()] if of > 1 else [])}:
        await sink.pause(PartOf(whole, part), f"{_SHARED} {of}")
        await sink.drop(PartOf(whole, part))
    for projection in wanted:
        if (await sink.checkpoint(projection)).paused.startswith(_SHARED):
            await sink.pause(projection, "")
    return parts


async def status(worker: AnyWorker) -> Status:
    """How a projection does now."""
    sink, projection = worker.sink, worker.projection
    stands, lag, letters = await sink.checkpoint(projection), await worker.lag(), await sink.letters(projection)
    scratch = sum((await sink.beside().checkpoint(projection)).sizes.values())
    return Status(projection.name, projection.version, stands, lag, len(letters), scratch)
