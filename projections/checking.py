"""What stands in a sink, compared with what the log gives."""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from ..eventstore.errors import StoreBusyError
from ..eventstore.log import Log
from .sink import Id, Named, R, Sink, Sizes, W

SHOWN = 10
_TRIES = 100
_PAGE = 500


class Difference(NamedTuple):
    """One thing that is not what the log gives. ``expected`` or ``found`` is None where there is none.

    Projections hold no payload, so neither does this.
    """

    id: Id
    expected: Any
    found: Any


class Check(NamedTuple):
    """What stands, compared with what the log gives: ``ok`` if the hashes are equal; else the first differences."""

    ok: bool
    commits: int
    expected: str
    found: str
    differences: list[Difference]


CatchUp = Callable[[Sizes | None], Awaitable[Sizes]]
"""`Worker.catch_up` of a worker that fills another sink."""


def beyond(log: Log, sizes: Sizes) -> bool:
    """Whether a checkpoint is of more than the log has been read to."""
    return any(size > log.index.position(part) for part, size in sizes.items())


async def check(log: Log, projection: Named, sink: Sink[W, R], reference: Sink[W, R], catch_up: CatchUp) -> Check:
    """Compare what stands with what ``catch_up`` projects as far into ``reference``, an empty sink of the same kind."""
    for _ in range(_TRIES):
        before = await sink.checkpoint(projection)
        if beyond(log, before.sizes):
            await log.refresh()
        if await catch_up(before.sizes) != before.sizes:
            await reference.drop(projection)
            reached = await catch_up(before.sizes)
            if reached != before.sizes:
                return _elsewhere(before.sizes, reached)
        expected, found = await reference.digest(projection), await sink.digest(projection)
        told = await differences(projection, reference, sink) if expected != found else []
        if (await sink.checkpoint(projection)).turn == before.turn:
            return Check(expected == found, sum(before.sizes.values()), expected, found, told)
    raise StoreBusyError(f"{projection.name} is written all the time: pause it first, then check it")


def _elsewhere(found: Sizes, reached: Sizes) -> Check:
    """The checkpoint itself is none that the log can lead to."""
    parts = [part for part in sorted(found.keys() | reached.keys()) if found.get(part) != reached.get(part)]
    told = [Difference(("checkpoint", str(part)), reached.get(part), found.get(part)) for part in parts[:SHOWN]]
    return Check(False, sum(found.values()), "", "", told)


async def differences(projection: Named, expected: Sink[W, R], found: Sink[W, R]) -> list[Difference]:
    """The first `SHOWN` things that are not the same, by id."""
    told: list[Difference] = []
    one, two = _Pages(projection, expected), _Pages(projection, found)
    while len(told) < SHOWN:
        left, right = await one.peek(), await two.peek()
        if left is None and right is None:
            break
        if right is None or (left is not None and left[0] < right[0]):
            assert left is not None
            told.append(Difference(left[0], left[1], None))
            one.next()
        elif left is None or right[0] < left[0]:
            told.append(Difference(right[0], None, right[1]))
            two.next()
        else:
            if left[1] != right[1]:
                told.append(Difference(left[0], left[1], right[1]))
            one.next()
            two.next()
    return told


class _Pages:
    """The items of a sink one after the other, read in pages."""

    def __init__(self, projection: Named, sink: Sink[W, R]) -> None:
        self._projection, self._read = projection, sink.items
        self._page: list[tuple[Id, Any]] = []
        self._at, self._last = 0, False

    async def peek(self) -> tuple[Id, Any] | None:
        if self._at == len(self._page) and not self._last:
            after = self._page[-1][0] if self._page else ()
            self._page, self._at = await self._read(self._projection, after, _PAGE), 0
            self._last = not self._page
        return None if self._last else self._page[self._at]

    def next(self) -> None:
        self._at += 1
