"""Which processes of all nodes live, where the log is on Kafka: each says so every few seconds in a topic beside it.

``TOPIC.hosts`` has one partition and keeps ten minutes. How old a sign of life is, is told by the broker's clock alone,
against the newest sign in the topic: whoever is cut off hears no new one, and so takes nobody for dead. What is
decided by it is only who goes on with a task; that two may believe they do is what grants are for.
"""

import asyncio
import contextlib
import hashlib
import uuid
from pathlib import Path

from ..actors.presence import Presence
from ..eventstore.backends import kafka_topic
from ..eventstore.backends.kafka_address import KafkaAddress
from ..eventstore.backends.kafka_client import Client
from ..eventstore.backends.kafka_fetching import Fetching
from ..eventstore.backends.kafka_producer import Producer
from ..eventstore.errors import StoreError

EVERY, DEAD = 2.0, 10.0
"""Seconds between signs of life; without one for how long a process counts as dead."""
_SETTINGS = {
    "cleanup.policy": "delete",
    "retention.ms": "600000",
    "segment.ms": "300000",
    "message.timestamp.type": "LogAppendTime",
}
_LIVES, _LEAVES = b"\1", b"\0"


class KafkaPresence(Presence):
    """As `Presence` for the processes of this node and party folder; by their signs of life for all others."""

    def __init__(self, folder: Path, holder: bytes, address: KafkaAddress) -> None:
        super().__init__(folder, holder)
        topic = f"{address.topic}.hosts"
        self._client = Client(address._replace(topic=topic, partitions=1))
        self._producer, self._fetching = Producer(self._client), Fetching(self._client)
        self._node = hashlib.sha256(f"{uuid.getnode()}:{folder.absolute()}".encode()).digest()[:16]
        self._last: dict[bytes, tuple[float, bytes]] = {}
        self._now, self._offset = 0.0, 0
        self._beating: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Say that this process lives, learn who else does, and keep both up."""
        if await self._client.topic() is None:
            await kafka_topic.create(self._client, _SETTINGS)
            await self._client.until_there()
        await self._client.learn_topic()
        await self._beat()
        self._beating = asyncio.create_task(self._keep_beating())

    def alive(self, holder: bytes) -> bool:
        """Whether the process of that name lives, on this node or another."""
        last, node = self._last.get(holder, (-DEAD, self._node))
        if node == self._node or super().alive(holder):  # here the kernel knows, and at once
            return super().alive(holder)
        return self._now - last < DEAD

    async def leave(self) -> None:
        """Say that this process ends, so that nobody has to wait for its silence."""
        if self._beating:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
            with contextlib.suppress(StoreError):
                await self._producer.send(0, [self.holder + self._node + _LEAVES])
        await self._client.close()

    async def _keep_beating(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            with contextlib.suppress(StoreError):  # cut off: nothing is heard, so nobody is taken for dead
                await self._beat()

    async def _beat(self) -> None:
        end = await self._producer.send(0, [self.holder + self._node + _LIVES])
        while True:
            offset, values = await self._fetching.stamped(0, self._offset)
            for stamp, value in values:
                self._hear(stamp, value)
            if offset == self._offset or offset >= end:
                self._offset = offset
                return
            self._offset = offset

    def _hear(self, stamp: float, value: bytes) -> None:
        self._now = max(self._now, stamp)
        if len(value) == 33:
            holder, node, sign = value[:16], value[16:32], value[32:]
            self._last[holder] = (stamp if sign == _LIVES else stamp - DEAD, node)
        if len(self._last) > 10_000:
            self._last = {one: sign for one, sign in self._last.items() if self._now - sign[0] < DEAD}
