"""Slices shared out among several owners: each part is a projection of its own to the sink, with its own checkpoint.

Only where each document is about one stream, so that no two parts ever write the same one: a stream lies in one slice.
"""

import re
from typing import Generic, NamedTuple

from .sink import Projection, R, W

_NAME = re.compile(r"(?P<whole>.+):(?P<index>\d+)/(?P<of>\d+)")


class Part(NamedTuple):
    """One of ``of`` parts of a projection; the only one is the whole."""

    number: int = 0
    of: int = 1

    def slices(self, slices: int) -> range:
        """Its share of a log's slices."""
        return range(slices * self.number // self.of, slices * (self.number + 1) // self.of)

    def name(self, whole: str) -> str:
        """What the part of a projection is called."""
        return whole if self.of == 1 else f"{whole}:{self.number}/{self.of}"


class PartOf(Generic[W, R]):
    """A projection, for the commits of some slices."""

    def __init__(self, whole: Projection[W, R], part: Part) -> None:
        self.whole, self.part = whole, part
        self.name, self.version = part.name(whole.name), whole.version
        self.writes = whole.writes


def by_stream(projection: object) -> bool:
    """Whether each document is about one stream, so that the projection may be shared out.

    It is, where a projection says ``by_stream = True``. One that looks across streams or counts over them is not.
    """
    return bool(getattr(projection, "by_stream", False))


def split(name: str) -> tuple[str, Part]:
    """The projection and the part that a name in a sink stands for."""
    if found := _NAME.fullmatch(name):
        return found["whole"], Part(int(found["index"]), int(found["of"]))
    return name, Part()
