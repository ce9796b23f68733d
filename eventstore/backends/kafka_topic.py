"""The topic of a log: made as it must be, and refused where it would lose or change what was written."""

import asyncio
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..errors import StoreError
from . import kafka_errors as codes
from .kafka_address import PARTITIONS, KafkaAddress
from .kafka_batch import MAX_BYTES
from .kafka_client import Client

REPLICAS = 3
WANTED = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "unclean.leader.election.enable": "false",
    "max.message.bytes": str(MAX_BYTES),
    "compression.type": "producer",
}
"""With three replicas also ``min.insync.replicas=2``. Everything else is the brokers' default."""


class Checked(NamedTuple):
    """A topic that was looked at. ``wrong``: settings it must not keep; ``warnings``: what makes it less safe."""

    partitions: int
    replicas: int
    settings: Mapping[str, str]
    wrong: Mapping[str, str]
    warnings: tuple[str, ...]


async def create(client: Client, wanted: Mapping[str, str] = WANTED) -> None:
    """Make the topic with these settings, unless it is there by now."""
    from aiokafka.protocol.admin import CreateTopicsRequest

    address, brokers = client.address, await client.brokers()
    replicas = address.replicas or min(REPLICAS, brokers)
    if replicas > brokers:
        raise StoreError(f"{address.shown}: {replicas} replicas need as many brokers, and there are {brokers}")
    settings = {**wanted} | ({"min.insync.replicas": str(replicas - 1)} if replicas >= REPLICAS else {})
    asked: list[tuple[Any, ...]] = [
        (address.topic, address.partitions or PARTITIONS, replicas, [], list(settings.items()))
    ]
    answer = await client.controller(
        lambda: CreateTopicsRequest(create_topic_requests=asked, timeout=4_000, validate_only=False)
    )
    for _, code, *message in answer.topic_errors:
        if code not in (0, codes.TOPIC_EXISTS):
            raise StoreError(f"{codes.refused(code, address.shown)} {' '.join(filter(None, message))}".rstrip())


async def check(client: Client, partitions: int, replicas: int) -> Checked:
    """Look at a topic's settings. Raises nothing for what is wrong with them."""
    settings = await _settings(client)
    wrong = {}
    if "compact" in settings.get("cleanup.policy", ""):
        wrong["cleanup.policy"] = "a compacted topic keeps the newest record of a key only"
    for name, lost in (("retention.ms", "milliseconds"), ("retention.bytes", "bytes a partition")):
        if (kept := settings.get(name, "-1")) != "-1":
            wrong[name] = f"records are deleted after {int(kept):,} {lost}"
    if settings.get("unclean.leader.election.enable", "false") != "false":
        wrong["unclean.leader.election.enable"] = "a broker that is behind may take over, and acknowledged records go"
    if int(settings.get("max.message.bytes", MAX_BYTES)) < MAX_BYTES:
        wrong["max.message.bytes"] = f"the largest records do not fit into {int(settings['max.message.bytes']):,} bytes"
    if settings.get("compression.type", "producer") not in ("producer", "uncompressed"):
        wrong["compression.type"] = "the brokers would rewrite the batches"
    return Checked(partitions, replicas, settings, wrong, tuple(_warnings(settings, replicas)))


def refuse(checked: Checked, address: KafkaAddress) -> None:
    """Raise for a topic that must not hold a log."""
    if checked.wrong:
        said = "; ".join(f"{name}={checked.settings[name]}: {why}" for name, why in checked.wrong.items())
        raise StoreError(f"{address.shown} cannot hold a log: {said}. Run: {command(checked.wrong, address)}")


def command(names: Mapping[str, object], address: KafkaAddress) -> str:
    """The command that mends these settings."""
    config = ",".join(f"{name}={WANTED.get(name, '2')}" for name in names)
    return (
        f"kafka-configs.sh --bootstrap-server {address.servers[0]} --alter --entity-type topics "
        f"--entity-name {address.topic} --add-config {config}"
    )


def _warnings(settings: Mapping[str, str], replicas: int) -> list[str]:
    insync = int(settings.get("min.insync.replicas", "1"))
    if replicas < REPLICAS:
        said = f"{replicas} replica{'s' * (replicas > 1)} of each partition: a lost disk may lose acknowledged commits"
        return [f"{said}; {REPLICAS} on as many brokers are safe"]
    if insync < 2:
        return [f"min.insync.replicas={insync}: an acknowledged commit may be on one broker only; set it to 2"]
    return []


async def _settings(client: Client) -> dict[str, str]:
    from aiokafka.protocol.admin import DescribeConfigsRequest

    name, topic = client.address.topic, 2
    until = asyncio.get_running_loop().time() + client.deadline
    while True:
        answer: Any = await client.ask(lambda: DescribeConfigsRequest([(topic, name, None)], False))
        ((code, message, _, _, entries),) = answer.resources
        if code == 0:
            return {entry[0]: entry[1] for entry in entries if entry[1] is not None}
        if code not in codes.AGAIN:
            raise StoreError(f"{codes.refused(code, client.address.shown)} {message or ''}".rstrip())
        await client.pause(until, code, client.address.shown)  # a new topic is not known to every broker at once
