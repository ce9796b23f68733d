"""What two sinks of one projection differ in."""

from typing import Any, NamedTuple

from .sink import Id, Named, R, Sink, W

SHOWN = 10
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
