"""Giving way to others who want the same stream, so that of several each comes to its turn."""

import asyncio

from ..eventstore.ambient import Ambient

TRIES = 20
_FIRST, _LONGEST = 0.004, 0.5


async def give_way(ambient: Ambient, lost: int) -> None:
    """Wait for a random while before another attempt, the longer the more were ``lost``, up to half a second."""
    longest = min(_LONGEST, _FIRST * 2**lost)
    await asyncio.sleep(longest * int.from_bytes(ambient.random(2)) / 0xFFFF)
