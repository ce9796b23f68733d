"""The client that both sides of views in Redis share, and what they know of the last turn, so as not to ask again."""

import asyncio
from typing import NamedTuple

import msgspec
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

from ..sink import Checkpoint
from .redis_scripts import APPLY, GET, SCAN, SWAP

DEADLINE = 10.0
"""Seconds for a call."""
_KEPT = 20_000
_CONNECTIONS = 16
Known = dict[tuple[str, str], bytes | None]


class Side(NamedTuple):
    """What stands in one field of the hash of sides. ``raw``: its bytes."""

    raw: bytes
    generation: int
    checkpoint: Checkpoint


Stored = tuple[int, dict[int, int], int, int, str]
STORED = msgspec.msgpack.Decoder(Stored)
NOTHING = Side(b"", 0, Checkpoint())


class Shared:
    """What both sides of one store share: the client, and what is known about each side at its last turn."""

    def __init__(self, address: str) -> None:
        pool = BlockingConnectionPool.from_url(
            address,
            max_connections=_CONNECTIONS,
            timeout=DEADLINE,
            socket_timeout=DEADLINE,
            socket_connect_timeout=DEADLINE,
            health_check_interval=30,
            retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), 2),  # what it repeats is fenced
        )
        self.client = Redis(connection_pool=pool)
        self.apply, self.swap = self.client.register_script(APPLY), self.client.register_script(SWAP)
        self.get, self.scan = self.client.register_script(GET), self.client.register_script(SCAN)
        self.ready, self.opening = False, asyncio.Lock()
        self.sides: dict[str, Side] = {}
        self._documents: dict[str, tuple[bytes, Known]] = {}

    def meet(self, field: str, side: Side) -> None:
        """A side was read."""
        if self.sides.get(field) != side:
            self.forget(field)
            self.sides[field] = side

    def known(self, field: str, side: Side) -> Known:
        """Documents of a side that are known as of this turn."""
        raw, documents = self._documents.get(field, (b"", {}))
        return documents if raw == side.raw else {}

    def learn(self, field: str, side: Side, documents: Known) -> None:
        """Documents of a side were read, and nothing has moved it since, as far as is known here."""
        if self.sides.get(field) == side:
            known = self.known(field, side)
            known = {} if len(known) > _KEPT else known
            known.update(documents)
            self._documents[field] = side.raw, known

    def move(
        self,
        field: str,
        was: Side,
        side: Side,
        new: Known,
        *,
        empty: bool,
    ) -> None:
        """A side was moved on by us: what was known of it is known now, but for what is new."""
        documents = {} if empty else self.known(field, was)
        self.sides[field], self._documents[field] = side, (side.raw, documents)
        self.learn(field, side, new)

    def forget(self, *fields: str) -> None:
        """Somebody else moved these sides on."""
        for field in fields:
            self.sides.pop(field, None)
            self._documents.pop(field, None)

    async def close(self) -> None:
        """Close the connections."""
        await self.client.aclose()
        await self.client.connection_pool.disconnect()
