"""The Kafka tape beside bare aiokafka: the same bytes, the same batches, the same durability (acks=all, idempotent).

Needs a broker: the one that ``PARTY_BENCH_KAFKA`` (``host:port``) names, else one that is started for the run. Each
part uses topics of its own, and deletes them.
"""

import asyncio
import contextlib
import os
import secrets
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
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
from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.keyring import Keyring
from agent_party.eventstore.log import Log
from agent_party.eventstore.tape import START, Entry

from .measure import Figure, Report, Turn, in_turns, ratios
from .site import Counted, Site, Written, written

RECORD, GROUP = 830, 256
"""Bytes of a record whose one event has 500; records of a group."""


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
    """aiokafka's own producer: a batch for each group, whose acknowledgement is awaited."""

    def __init__(self, where: KafkaAddress, transactional: bool = False) -> None:
        options: dict[str, Any] = {"transactional_id": where.topic} if transactional else {"enable_idempotence": True}
        self.where = where
        servers = list(where.servers)
        self.producer = AIOKafkaProducer(bootstrap_servers=servers, acks="all", max_batch_size=MAX_BATCH, **options)

    async def append(self, records: Sequence[bytes]) -> None:
        batch = self.producer.create_batch()
        for record in records:
            assert batch.append(key=None, value=record, timestamp=None) is not None
        batch.close()
        await (await self.producer.send_batch(batch, self.where.topic, partition=0))

    async def commit(self, record: bytes) -> None:
        async with self.producer.transaction():
            await self.producer.send_and_wait(self.where.topic, record, partition=0)


async def kafka_append(quick: bool) -> Report:
    """Groups and single records on the tape, beside aiokafka's producer and beside a transaction for each commit."""
    rounds, groups, ones, commits = (2, 4, 8, 2) if quick else (15, 40, 60, 8)
    records = [secrets.token_bytes(RECORD) for _ in range(GROUP)]
    async with topics() as new:
        ours, bare, transacting = Ours(new(1)), Bare(new(1)), Bare(new(1), transactional=True)
        for where in (ours, Ours(bare.where), Ours(transacting.where)):
            await where.tape.append(0, [b"first"], START)
            await (where.tape.read(0, 0, 1) if where is ours else where.tape.close())
        ours.seen = (await ours.tape.read(0, 0, 1))[-1]
        for producer in (bare.producer, transacting.producer):
            await producer.start()

        def several(append: Callable[[Sequence[bytes]], Any], times: int, of: Sequence[bytes]) -> Turn:
            async def turn() -> float:
                began = time.perf_counter()
                for _ in range(times):
                    await append(of)
                return times * len(of) / (time.perf_counter() - began)

            return turn

        turns = {
            "groups": several(ours.append, groups, records),
            "bare groups": several(bare.append, groups, records),
            "one": several(ours.append, ones, records[:1]),
            "bare one": several(bare.append, ones, records[:1]),
            "transaction": several(lambda of: transacting.commit(of[0]), commits, records[:1]),
        }
        values = await in_turns(rounds, turns)
        for producer in (bare.producer, transacting.producer):
            await producer.stop()
        await ours.tape.close()
    part = "kafka append"
    figures = [
        Figure(
            part, "groups of 256, read back / bare aiokafka", "x", ratios(values["groups"], values["bare groups"]), 0.7
        ),
        Figure(part, "one record, read back / bare aiokafka", "x", ratios(values["one"], values["bare one"]), 0.7),
        Figure(
            part, "groups of 256 / a transaction a commit", "x", ratios(values["groups"], values["transaction"]), 20
        ),
        *(Figure(part, name, "records/s", rates) for name, rates in values.items()),
    ]
    total = rounds * (groups * GROUP + ones)
    return Report(figures, f"{total:,} records read back, each the bytes that were sent")


@contextlib.asynccontextmanager
async def _site(where: KafkaAddress, streams: int, slices: int) -> AsyncIterator[Site]:
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        log: Log = await open_log(
            KafkaTape(where), Keyring(folder / "state"), journal=where.shown, index=folder / "index.db",
            blobs=MemoryBlobs(), codec=Codec([Written, Counted]), slices=slices,
        )  # fmt: skip
        try:
            issuer = Issuer(log)
            writers = await asyncio.gather(*(issuer.writer(f"bench/n{number}") for number in range(streams)))
            yield Site(folder, log, writers)
        finally:
            await log.close()


async def kafka_log(quick: bool) -> Report:
    """Signed and encrypted appends through the log: many at once, and at a steady rate whatever the log does."""
    rounds, streams, each, rate, seconds = (2, 16, 2, 50, 1.0) if quick else (9, GROUP, 8, 200, 20.0)
    event, part = written(), "kafka log"
    async with topics() as new, _site(new(12), streams, 1_024) as place:

        async def at_once() -> float:
            began = time.perf_counter()
            await place.append_to_all(streams, each, [event])
            return streams * each / (time.perf_counter() - began)

        values = await in_turns(rounds, {"at once": at_once})
        took = await _open_loop(place, event, rate, seconds)
        for number in range(streams):
            stand = [commit.revision async for commit in place.log.read(place.writers[number].stream)]
            assert stand == list(range(1, place.revisions[number] + 1))
    points = statistics.quantiles(took, n=100)
    figures = [
        Figure(part, f"{streams} streams at once", "commits/s", values["at once"]),
        Figure(part, f"open loop, {rate} commits/s: p50", "ms", [points[49]]),
        Figure(part, f"open loop, {rate} commits/s: p99", "ms", [points[98]]),
    ]
    return Report(figures, f"{sum(place.revisions):,} commits stand, each where it was acknowledged")


async def _open_loop(place: Site, event: Written, rate: int, seconds: float) -> list[float]:
    """Milliseconds from when each commit was due, on streams in turn, whether or not the ones before are done."""
    loop, took, busy = asyncio.get_running_loop(), list[float](), set[int]()
    began = loop.time()

    async def commit(number: int, due: float) -> None:
        busy.add(number)
        await place.append(number, 1, [event])
        busy.discard(number)
        took.append((loop.time() - due) * 1000)

    async with asyncio.TaskGroup() as group:
        for count in range(int(rate * seconds)):
            due = began + count / rate
            await asyncio.sleep(max(0.0, due - loop.time()))
            free = next(n for k in range(len(place.writers)) if (n := (count + k) % len(place.writers)) not in busy)
            group.create_task(commit(free, due))
            busy.add(free)
    return took


async def kafka_reading(quick: bool) -> Report:
    """One stream's 1,000 commits, out of a slice of ten thousand and out of one of many more."""
    of, small, large, rounds = (50, 200, 400, 2) if quick else (1_000, 10_000, 1_000_000, 7)
    part, event = "kafka reading", written()
    async with topics() as new, contextlib.AsyncExitStack() as stack:
        logs = {}
        for size in (small, large):
            place = await stack.enter_async_context(_site(new(1), GROUP + 1, 1))
            for number in range(of):
                rest = (size - of) * (number + 1) // of - (size - of) * number // of
                await asyncio.gather(
                    place.append(0, 1, [event]),
                    *(place.append(1 + k, rest // GROUP + (k < rest % GROUP), [event]) for k in range(GROUP)),
                )
            logs[size] = place.log

        def reading(log: Log) -> Turn:
            async def turn() -> float:
                began = time.perf_counter()
                found = [commit.revision async for commit in log.read("bench/n0")]
                assert found == list(range(1, of + 1))
                return (time.perf_counter() - began) * 1000

            return turn

        values = await in_turns(rounds, {"small": reading(logs[small]), "large": reading(logs[large])})
    return Report(
        [
            Figure(part, f"out of {large:,} / out of {small:,}", "x", ratios(values["large"], values["small"]), most=2),
            Figure(part, f"{of:,} commits out of {small:,}", "ms", values["small"]),
            Figure(part, f"{of:,} commits out of {large:,}", "ms", values["large"]),
        ],
        f"all {of:,} commits of the stream read, decrypted and in order, {2 * rounds} times",
    )
