"""Time, randomness and ids, through one small door, so that a run can be simulated from a seed."""

import os
import random
import time
from typing import Protocol


class Ambient(Protocol):
    """Where a process gets what is not in its inputs."""

    def now(self) -> int:
        """Microseconds since 1970, as this machine claims them. May jump back; nothing is decided by it."""
        ...

    def random(self, size: int) -> bytes:
        """Random bytes, fit for keys."""
        ...


class System:
    """The real thing: the machine's clock and its random source."""

    def now(self) -> int:
        return time.time_ns() // 1000

    def random(self, size: int) -> bytes:
        return os.urandom(size)


class Seeded:
    """A simulation: the same seed gives the same bytes, and time moves a millisecond a look. Not for real keys."""

    def __init__(self, seed: int, start: int = 1_700_000_000_000_000) -> None:
        self._random = random.Random(seed)
        self._now = start

    def now(self) -> int:
        self._now += 1000
        return self._now

    def random(self, size: int) -> bytes:
        return self._random.randbytes(size)


_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def readable_id(data: bytes) -> str:
    """Bytes as lower-case Crockford base 32, five bits a letter: 10 bytes make 16 letters."""
    bits = len(data) * 8
    number = int.from_bytes(data) << (-bits % 5)
    return "".join(_ALPHABET[number >> shift & 31] for shift in range((bits + 4) // 5 * 5 - 5, -1, -5))
