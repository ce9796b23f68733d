"""The checks of `party doctor` for a log on Kafka: can the brokers be reached, and is the topic as it must be."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from .doctor import FINE, NOTE, PROBLEM, Finding

if TYPE_CHECKING:
    from ..cluster.settings import Settings


async def look(settings: "Settings") -> AsyncIterator[Finding]:
    """Nothing is made that is not there."""
    from ..cluster.settings import kafka_address
    from ..eventstore.backends import kafka_topic
    from ..eventstore.backends.kafka_client import Client
    from ..eventstore.errors import EventStoreError

    address = kafka_address(settings.journal)
    client = Client(address)
    try:
        brokers, topic = await client.brokers(), await client.topic()
        yield Finding("brokers", FINE, f"{brokers} at {', '.join(address.servers)}")
        if topic is None:
            yield Finding("topic", NOTE, f"there is no topic {address.topic}", "the first party makes it")
            return
        checked = await kafka_topic.check(client, *topic)
        for name, why in checked.wrong.items():
            advice = kafka_topic.command({name: why}, address)
            yield Finding("topic", PROBLEM, f"{name}={checked.settings[name]}: {why}", advice)
        for warning in checked.warnings:
            yield Finding("topic", NOTE, warning)
        if not checked.wrong:
            said = f"{address.topic}: partitions: {checked.partitions}, replicas: {checked.replicas}; kept for ever"
            yield Finding("topic", FINE, said)
    except EventStoreError as error:
        yield Finding("brokers", PROBLEM, f"{type(error).__name__}: {error}")
    finally:
        await client.close()
