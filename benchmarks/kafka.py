"""The Kafka tape beside bare aiokafka: the same bytes, the same batches, the same durability (acks=all, idempotent).

Needs a broker: the one that ``PARTY_BENCH_KAFKA`` (``host:port``) names, else one that is started for the run. Each
part uses topics of its own, and deletes them.
"""

import asyncio
import contextlib
import os
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from agent_party.eventstore.backends.blob_memory import MemoryBlobs
from agent_party.eventstore.backends.kafka import KafkaTape
from agent_party.eventstore.backends.kafka_address import KafkaAddress, address
from agent_party.eventstore.backends.kafka_batch import MAX_BATCH
from agent_party.eventstore.codec import Codec
from agent_party.eventstore.founding import open_log
from agent_party.eventstore.keyring import Keyring
from agent_party.eventstore.log import Log
from agent_party.eventstore.tape import START, Entry

from .measure import Figure, Report, Turn, in_turns, ratios
from .site import Counted, Site, Written, granted

RECORD, GROUP = 830, 256
"""Bytes of a record whose one event has 500; records of a group."""
WHOLE = 1_000_000
"""Bytes of a batch that holds a group whole."""


@contextlib.asynccontextmanager
async def topics() -> AsyncIterator[Callable[[int], KafkaAddress]]:
    """Makes addresses of new topics, by their number of partitions; the topics are deleted at the end."""
    made: list[KafkaAddress] = []
    async with _broker() as servers:

        def new(partitions: int) -> KafkaAddress:
            made.append(address(f"kafka://{servers}/bench.{secrets.token_hex(6)}?partitions={partitions}"))
            return made[-1]

        try:
            yield new
        finally:
            admin = AIOKafkaAdminClient(bootstrap_servers=servers)
            await admin.start()
            await admin.delete_topics([where.topic for where in made])
            await admin.close()


@contextlib.asynccontextmanager
async def _broker() -> AsyncIterator[str]:
    if named := os.environ.get("PARTY_BENCH_KAFKA"):
        yield named
        return
    from agent_party.cluster import services

    with tempfile.TemporaryDirectory(prefix="bench-services-") as folder:
        running = await asyncio.to_thread(services.start, Path(folder), ["kafka"], brokers=1)
        try:
            yield running.addresses["kafka"]
        finally:
            await asyncio.to_thread(running.stop)


@contextlib.asynccontextmanager
async def kafka_site(where: KafkaAddress, streams: int, slices: int) -> AsyncIterator[Site]:
    """A new log on a topic, with granted streams."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        log: Log = await open_log(
            KafkaTape(where), Keyring(folder / "state"), journal=where.shown, index=folder / "index.db",
            blobs=MemoryBlobs(), codec=Codec([Written, Counted]), slices=slices,
        )  # fmt: skip
        async with granted(folder, log, streams) as made:
            yield made


class Ours:
    """A tape on one lane: an append counts when its records were read back."""

    def __init__(self, where: KafkaAddress) -> None:
        self.tape, self.seen = KafkaTape(where), START

    async def append(self, records: Sequence[bytes]) -> None:
        await self.tape.append(0, records, self.seen)
        found: list[Entry] = []
        while len(found) < len(records):
            found += await self.tape.read(0, self.seen.place, 2_000)
            self.seen = found[-1]
        assert [entry.raw for entry in found] == list(records)


class Bare:
    """aiokafka's own producer: each group in batches of at most so many bytes, whose acknowledgements are awaited."""

    def __init__(self, where: KafkaAddress, *, transactional: bool = False, batch: int = MAX_BATCH) -> None:
        options: dict[str, Any] = {"transactional_id": where.topic} if transactional else {"enable_idempotence": True}
        self.where = where
        servers = list(where.servers)
        self.producer = AIOKafkaProducer(bootstrap_servers=servers, acks="all", max_batch_size=batch, **options)

    async def start(self) -> None:
        """Make the topic as a log would have it, and be ready to send."""
        tape = KafkaTape(self.where)
        await tape.append(0, [b"first"], START)
        await tape.close()
        await self.producer.start()

    async def append(self, records: Sequence[bytes], partition: int = 0) -> None:
        batches = [self.producer.create_batch()]
        for record in records:
            if batches[-1].append(key=None, value=record, timestamp=None) is None:
                batches.append(self.producer.create_batch())
                assert batches[-1].append(key=None, value=record, timestamp=None) is not None
        for batch in batches:
            batch.close()
        sent = [await self.producer.send_batch(batch, self.where.topic, partition=partition) for batch in batches]
        await asyncio.gather(*sent)

    async def append_to_all(self, records: Mapping[int, Sequence[bytes]]) -> None:
        """A batch for each partition, all at once."""
        await asyncio.gather(*(self.append(of, partition) for partition, of in records.items()))

    async def commit(self, record: bytes) -> None:
        async with self.producer.transaction():
            await self.producer.send_and_wait(self.where.topic, record, partition=0)


def several(append: Callable[[Sequence[bytes]], Any], times: int, of: Sequence[bytes]) -> Turn:
    """A turn of appends, each of these records, one after the other. Records a second."""

    async def turn() -> float:
        began = time.perf_counter()
        for _ in range(times):
            await append(of)
        return times * len(of) / (time.perf_counter() - began)

    return turn


async def kafka_append(quick: bool) -> Report:
    """Groups and single records on the tape, beside aiokafka's producer and beside a transaction for each commit."""
    rounds, groups, ones, commits = (2, 4, 8, 2) if quick else (15, 40, 60, 8)
    records = [secrets.token_bytes(RECORD) for _ in range(GROUP)]
    async with topics() as new:
        ours, bare, transacting = Ours(new(1)), Bare(new(1)), Bare(new(1), transactional=True)
        whole = Bare(new(1), batch=WHOLE)
        await ours.append(records)
        for peer in (bare, whole, transacting):
            await peer.start()
        turns = {
            "groups": several(ours.append, groups, records),
            "bare groups": several(bare.append, groups, records),
            "whole groups": several(whole.append, groups, records),
            "one": several(ours.append, ones, records[:1]),
            "bare one": several(bare.append, ones, records[:1]),
            "transaction": several(lambda of: transacting.commit(of[0]), commits, records[:1]),
        }
        values = await in_turns(rounds, turns)
        for peer in (bare, whole, transacting):
            await peer.producer.stop()
        await ours.tape.close()
    part = "kafka append"

    def beside(name: str, ours: str, theirs: str, least: float | None) -> Figure:
        return Figure(part, name, "x", ratios(values[ours], values[theirs]), least)

    figures = [
        beside("groups of 256, read back / bare aiokafka", "groups", "bare groups", 0.7),
        beside("groups of 256, read back / bare aiokafka, a batch each", "groups", "whole groups", None),
        beside("one record, read back / bare aiokafka", "one", "bare one", 0.7),
        beside("groups of 256 / a transaction a commit", "groups", "transaction", 20),
        beside("one record / a transaction a commit", "one", "transaction", 20),
        *(Figure(part, name, "records/s", rates) for name, rates in values.items()),
    ]
    total = rounds * (groups * GROUP + ones) + GROUP
    return Report(figures, f"{total:,} records read back, each the bytes that were sent")
