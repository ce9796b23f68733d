"""Moments as of which the graph is asked: a vector of positions, a time, or a revision of a stream.

A time is a claim of whoever wrote, and a stream's order is proved by its chain: so the order is the base. At a time, a
stream has come to its last commit before the first one that claims a later time. A fact therefore counts with the
latest time that its stream had claimed by then, and nothing is ever there before what came before it in its stream.
Between streams only their clocks decide: who needs more asks by positions, which are proved.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from .graph_errors import MomentError

FOREVER = 2**62
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_VECTOR = re.compile(r"\d{1,6}:\d{1,18}(,\d{1,6}:\d{1,18})*")
_AGO = re.compile(r"(\d{1,9})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class Moment(NamedTuple):
    """What is there at a moment: of these slices, the commits before a position; of all others, those whose stream had
    claimed no later time. ``time``: microseconds since 1970; -1 for none of them."""

    sizes: Mapping[int, int]
    time: int = -1

    def holds(self, slice: int, position: int, time: int) -> bool:  # noqa: A002
        """Whether a commit is in it."""
        size = self.sizes.get(slice)
        return time <= self.time if size is None else position < size

    def vector(self, slices: int) -> list[int]:
        """The sizes by slice, -1 where time decides."""
        return [self.sizes.get(number, -1) for number in range(slices)]


NOW = Moment({}, FOREVER)
"""All there is."""


def at_time(time: datetime) -> Moment:
    """The moment of a time; one without a zone is of this machine's."""
    return Moment({}, (time.astimezone(UTC) - _EPOCH) // timedelta(microseconds=1))


def at_commit(slice: int, position: int, time: int) -> Moment:  # noqa: A002
    """The moment when a commit stood: its slice up to it, and the others by the time that its stream had claimed."""
    return Moment({slice: position + 1}, time)


def stream_at(text: str) -> tuple[str, int] | None:
    """Stream and revision of ``stream@revision``."""
    stream, found, revision = text.rpartition("@")
    return (stream, int(revision)) if found and stream and revision.isascii() and revision.isdigit() else None


def parsed(text: str, now: int) -> Moment:
    """The moment of ``now``, ``2h`` (ago), an ISO time, or ``slice:size,slice:size``, where what is not named is empty.

    ``now``: microseconds since 1970. `MomentError` says what can be given.
    """
    if text == "now":
        return NOW
    if _VECTOR.fullmatch(text):
        pairs = [pair.split(":") for pair in text.split(",")]
        return Moment({int(number): int(size) for number, size in pairs})
    if ago := _AGO.fullmatch(text):
        return Moment({}, now - int(ago[1]) * _SECONDS[ago[2]] * 1_000_000)
    try:
        return at_time(datetime.fromisoformat(text))
    except (ValueError, OverflowError, OSError) as error:
        raise MomentError(
            f"{text!r} is no moment: give a time (2026-03-31T12:00, 2h for two hours ago), positions (0:17,5:3), "
            "a revision (task/ID@4), or now"
        ) from error
