"""A tail that a broker has lost is `LogRolledBack` to whoever had read it, and never a conflict."""

import asyncio
import shutil
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agent_party.cluster import services
from agent_party.cluster.services import Running
from agent_party.cluster.shard_serving import Shard
from agent_party.cluster.shard_tape import ShardTape
from agent_party.eventstore.backends.kafka import KafkaTape
from agent_party.eventstore.backends.kafka_address import KafkaAddress, address
from agent_party.eventstore.errors import LogRolledBack
from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.log import Log, Writer
from tests.eventstore_kit import Site, all_entries, notes
from tests.kafka_kit import name
from tests.shard_kit import Way

COMMITS = 12
_BATCH = struct.Struct(">qi")
"""How a batch begins in a segment: its first offset, and how many bytes follow."""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A broker that may be harmed."""
    running = services.start(tmp_path_factory.mktemp("services"), ["kafka"], brokers=1)
    with running:
        yield running


@pytest.fixture
def where(broker: Running) -> KafkaAddress:
    return address(f"kafka://{broker.addresses['kafka']}/{name()}?partitions=1")


@pytest.fixture
async def site(tmp_path: Path, where: KafkaAddress) -> AsyncIterator[Site]:
    site = Site(tmp_path, "kafka", lambda: KafkaTape(where))
    yield site
    await site.close()


async def written(log: Log, writer: Writer, count: int) -> None:
    for _ in range(count):
        await log.append(writer, notes("x"), expected=(await log.state(writer.stream)).revision)


def cut(running: Running, where: KafkaAddress, batches: int) -> None:
    """Stop the broker, cut the last batches of a topic off, with all that it knows of them, and start it again."""
    broker = running.broker(1)
    broker.stop()
    folder = broker.data / f"{where.topic}-0"
    (segment,) = folder.glob("*.log")
    begins, at, data = list[int](), 0, segment.read_bytes()
    while at < len(data):
        begins.append(at)
        at += _BATCH.size + _BATCH.unpack_from(data, at)[1]
    segment.write_bytes(data[: begins[-batches]])
    for known in folder.iterdir():
        if known != segment and known.name != "partition.metadata":
            known.unlink()
    for checkpoint in broker.data.glob("*checkpoint*"):
        checkpoint.unlink()
    (broker.data / ".kafka_cleanshutdown").unlink(missing_ok=True)
    broker.start()


async def test_a_reader_an_appender_and_a_new_process_are_told(
    site: Site, where: KafkaAddress, broker: Running
) -> None:
    """One that had read all, one that was closed and has an index, and one with no more than its checkpoint."""
    log = await site.open("index.db")
    writer = await Issuer(log).writer("note/a")
    reader, closed = await site.open("reader.db"), await site.open("closed.db")
    await written(log, writer, COMMITS)
    for other in (reader, closed):
        await other.refresh()
    log.remember()
    await closed.close()
    await asyncio.to_thread(cut, broker, where, 3)
    with pytest.raises(LogRolledBack):
        await reader.refresh()
    with pytest.raises(LogRolledBack):
        await log.append(writer, notes("x"), expected=COMMITS, deadline=120)
    with pytest.raises(LogRolledBack):
        await reader.append(writer, notes("x"), expected=COMMITS, deadline=120)
    for index in ("closed.db", "fresh.db"):
        with pytest.raises(LogRolledBack):
            await site.open(index)


async def test_also_when_others_have_written_in_its_place(site: Site, where: KafkaAddress, broker: Running) -> None:
    """By one who knows nothing of what was there: a restored state folder without its checkpoint."""
    log = await site.open("index.db")
    writer = await Issuer(log).writer("note/a")
    await written(log, writer, COMMITS)
    log.remember()
    shards = [Shard(KafkaTape(where)) for _ in range(2)]
    way = Way(shards[0])
    host = ShardTape([way])
    last = (await all_entries(host))[-1].place
    await asyncio.to_thread(cut, broker, where, 4)
    shutil.copytree(site.folder / "state", site.folder / "other" / "state")
    for checkpoint in (site.folder / "other" / "state").rglob("checkpoint"):
        checkpoint.unlink()
    other = Site(site.folder / "other", "kafka", lambda: KafkaTape(where))
    theirs = await other.open()
    assert 0 < (await theirs.state("note/a")).revision < COMMITS
    await written(theirs, writer, 8)
    with pytest.raises(LogRolledBack):
        await log.append(writer, notes("x"), expected=COMMITS, deadline=120)
    with pytest.raises(LogRolledBack):
        await log.refresh()
    await other.close()
    with pytest.raises(LogRolledBack):
        await site.open("fresh.db")
    for way.shard in shards:  # the one that it has read from, and another one that goes on from there
        with pytest.raises(LogRolledBack):
            await host.read(0, last, 10)
        await way.shard.close()
