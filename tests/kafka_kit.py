"""What tests of Kafka share: topics of their own, and what others may do to them."""

import secrets

from agent_party.eventstore.backends.kafka_address import KafkaAddress
from agent_party.eventstore.backends.kafka_client import Client


def name() -> str:
    """A topic's name that no other test has."""
    return f"test.{secrets.token_hex(8)}"


async def delete(where: KafkaAddress) -> None:
    """Delete a topic, if it is there."""
    from aiokafka.protocol.admin import DeleteTopicsRequest

    client = Client(where)
    try:
        await client.controller(lambda: DeleteTopicsRequest([where.topic], 4_000))
    finally:
        await client.close()
