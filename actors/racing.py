"""Giving way to others who want the same stream, so that of several each comes to its turn."""

import asyncio
from collections.abc import Iterator

from ..eventstore.ambient import Ambient
from ..eventstore.log import Log

_STILL, _SHARE, _PATIENCE = 0.02, 0.2, 2.0
"""Seconds: of silence, after which somebody who writes is taken to have finished; which each owner has, or half of it;
and after which it is our turn whoever has come."""
PATIENCE = 20.0
"""Seconds for which what others stand in the way of is tried again."""


def patiently() -> Iterator[None]:
    """At least once, and again as long as one is patient."""
    clock = asyncio.get_running_loop().time
    until = clock() + PATIENCE
    yield
    while clock() < until:
        yield


async def let_finish(log: Log, stream: str) -> None:
    """Wait while others write a stream that we want, until it is still, or its owner has had a share.

    What a process has to write, it writes while the stream is its own. If each took it back at once, all would only
    take.
    """
    clock, head, grants = asyncio.get_running_loop().time, b"", None
    late = until = clock() + _PATIENCE
    while clock() < until:
        await log.refresh()
        now = await log.state(stream)
        if now.head == head:
            return
        if now.grants.keys() != grants:
            until = min(late, clock() + _SHARE * (1 + _chance(log.ambient)) / 2)
        head, grants = now.head, now.grants.keys()
        await asyncio.sleep(_STILL * (0.5 + _chance(log.ambient)))


def _chance(ambient: Ambient) -> float:
    return int.from_bytes(ambient.random(2)) / 0xFFFF
