"""A shard log that was stopped with appends in flight, and woken when its streams were another's: told the truth."""

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent_party.eventstore.backends.kafka import KafkaTape
from agent_party.eventstore.backends.kafka_address import KafkaAddress, address
from tests.eventstore_kit import Site
from tests.faults.clients import Client
from tests.faults.histories import Recorder
from tests.faults.proxies import Proxy
from tests.faults.shard import Config
from tests.faults.shards import Shard
from tests.faults.zombies import Zombies
from tests.kafka_kit import delete, name
from tests.services_kit import Services

STREAMS = [f"note/taken{number}" for number in range(16)]
ROUNDS, PARTITIONS = 4, 4


@pytest.fixture
async def proxy(services: Services) -> AsyncIterator[Proxy]:
    """The zombie's way to the broker."""
    async with Proxy(int(services.kafka.rpartition(":")[2])) as before:
        yield before


@pytest.fixture
async def where(services: Services) -> AsyncIterator[KafkaAddress]:
    where = address(f"{services.journal(name())}?partitions={PARTITIONS}")
    yield where
    await delete(where)


async def zombies(folder: Path, where: KafkaAddress, proxy: Proxy, bug: str = "") -> Zombies:
    """Some rounds of it, reckoned."""
    site = Site(folder, "kafka", lambda: KafkaTape(where))
    log = await site.open("successor.db")
    history = folder / "successor.jsonl"
    successor = Client(log, Recorder.to(history), random.Random(1), shared={}, taken=STREAMS)
    await successor.touch()
    shard = Shard(
        Config(
            folder=str(folder),
            index="zombie.db",
            history="",
            seed=1,
            shared=[],
            taken=STREAMS,
            journal=where.shown,
            at_once=16,
            deadlines=(20.0,),
            proxies={proxy.target: proxy.port},
            bug=bug,
        )
    )
    played = Zombies(shard, log, successor, history)
    try:
        await shard.start()
        await played.rounds(ROUNDS, proxy.hold, proxy.mend)
    finally:
        await shard.over()
    await played.reckoned()
    await site.close()
    return played


async def test_a_zombie_is_never_told_that_a_stale_append_stands(
    tmp_path: Path, where: KafkaAddress, proxy: Proxy
) -> None:
    played = await zombies(tmp_path, where, proxy)
    assert played.found == []
    assert played.counts["in flight"] >= 4 * ROUNDS
    assert played.counts["landed too late"] > 0, played.counts
    assert played.counts["ended"] >= ROUNDS, played.counts


async def test_one_that_believes_the_tape_is_noticed(tmp_path: Path, where: KafkaAddress, proxy: Proxy) -> None:
    played = await zombies(tmp_path, where, proxy, "ack on tape ack")
    assert played.found, played.counts
