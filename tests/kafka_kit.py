"""What tests of Kafka share: topics of their own, and what others, with any client, may do to them."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.structs import TopicPartition

from agent_party.eventstore.backends.kafka import KafkaTape
from agent_party.eventstore.backends.kafka_address import KafkaAddress
from agent_party.eventstore.backends.kafka_client import Topic


def name() -> str:
    """A topic's name that no other test has."""
    return f"test.{secrets.token_hex(8)}"


class Place:
    """A topic and the tapes that were opened on it. Whoever is not a tape uses aiokafka's own clients."""

    def __init__(self, where: KafkaAddress) -> None:
        self.where = where
        self.opened: list[KafkaTape] = []

    def __call__(self) -> KafkaTape:
        """Open a tape, as another process would. It gives brokers that are slow all the time they need."""
        tape = KafkaTape(self.where)
        tape.client.deadline, tape.client.patience = 120.0, 60.0
        self.opened.append(tape)
        return tape

    async def close(self) -> None:
        """Close the tapes, and delete the topic."""
        for tape in self.opened:
            await tape.close()
        await self.delete()

    @contextlib.asynccontextmanager
    async def admin(self) -> AsyncIterator[Any]:
        """The brokers' administrator."""
        admin = AIOKafkaAdminClient(**self.where.options())
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()

    async def create(self, settings: Mapping[str, str], partitions: int = 1) -> None:
        """Make the topic as somebody else would, and wait until it is there."""
        async with self.admin() as admin:
            await admin.create_topics([NewTopic(self.where.topic, partitions, 1, topic_configs=dict(settings))])
        await self.until(lambda found: found is not None)

    async def until(self, condition: Callable[[Topic | None], bool]) -> None:
        """Wait until what the brokers say of the topic is so."""
        client = self().client
        async with asyncio.timeout(120):
            while not condition(await client.topic()):  # noqa: ASYNC110 (nobody tells when it is)
                await asyncio.sleep(0.01)

    async def delete(self) -> None:
        """Delete the topic, if it is there."""
        async with self.admin() as admin:
            await admin.delete_topics([self.where.topic, f"{self.where.topic}.hosts"])

    async def delete_before(self, partition: int, offset: int) -> None:
        """Delete a partition's beginning."""
        async with self.admin() as admin:
            await admin.delete_records({TopicPartition(self.where.topic, partition): RecordsToDelete(offset)})

    @contextlib.asynccontextmanager
    async def producer(self, **options: Any) -> AsyncIterator[Any]:
        """Somebody else's producer."""
        producer = AIOKafkaProducer(**self.where.options(), **options)
        await producer.start()
        try:
            yield producer
        finally:
            await producer.stop()

    async def send(self, *values: bytes | None, partition: int = 0, **options: Any) -> None:
        """Put values there, each a batch of its own; None is a tombstone."""
        async with self.producer(**options) as producer:
            for value in values:
                await producer.send_and_wait(self.where.topic, value, key=b"key", partition=partition)

    async def in_a_transaction(self, values: Sequence[bytes], *, partition: int = 0, end: str) -> None:
        """Put values there in a transaction, and ``commit`` or ``abort`` it, or leave it ``open``."""
        producer = AIOKafkaProducer(**self.where.options(), transactional_id=name(), transaction_timeout_ms=300_000)
        await producer.start()
        await producer.begin_transaction()
        for value in values:
            await producer.send_and_wait(self.where.topic, value, partition=partition)
        if end == "commit":
            await producer.commit_transaction()
        elif end == "abort":
            await producer.abort_transaction()
        await producer.stop()

    async def settings(self) -> Mapping[str, str]:
        """The topic's settings, as the brokers tell them."""
        from agent_party.eventstore.backends import kafka_topic

        tape = self()
        return (await kafka_topic.check(tape.client, 0, 0)).settings


async def delete(where: KafkaAddress) -> None:
    """Delete a topic, if it is there."""
    await Place(where).delete()
