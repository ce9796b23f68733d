"""Four hosts on Ray that append to one Kafka topic: a client of Kafka each, one shard log, and that without batches.

Needs a broker, as `benchmarks.kafka` does. Each way has a topic of its own; the same four processes take turns.
"""

import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import ray

from agent_party.cluster import shard_calls, shard_log, shard_tape
from agent_party.cluster.placement import Placement
from agent_party.cluster.settings import Settings, load
from agent_party.eventstore.backends.blob_memory import MemoryBlobs
from agent_party.eventstore.backends.kafka import KafkaTape
from agent_party.eventstore.backends.kafka_address import KafkaAddress, address
from agent_party.eventstore.codec import Codec
from agent_party.eventstore.founding import open_log
from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.keyring import Keyring
from agent_party.eventstore.log import Log
from agent_party.eventstore.tape import Tape

from .kafka import topics
from .measure import ESTABLISHED, Figure, Report, Turn, connections, in_turns, ratios
from .site import Counted, Site, Written, written

HOSTS, PARTITIONS = 4, 12
OWN, SHARED, SINGLE = "a client each", "one shard log", "one shard log, a call an append"
_PART = "shard logs"


async def opened(tape: Tape, journal: str, folder: Path, index: str) -> Log:
    """The log of a topic, as one more process would open it."""
    return await open_log(
        tape, Keyring(folder / "state"), journal=journal, index=folder / index, blobs=MemoryBlobs(),
        codec=Codec([Written, Counted]), slices=1_024,
    )  # fmt: skip


class Host:
    """One of the processes that write. It has one log open at a time."""

    def __init__(self, number: int, folder: str) -> None:
        self._number, self._folder = number, Path(folder)
        self._usual = shard_tape.CALLS, shard_calls.REQUESTS
        self._sites: dict[str, Site] = {}
        self._log: Log | None = None

    async def open(self, way: str, settings: Settings, placement: Placement, streams: int) -> None:
        """Open the log of a way, and make sure of its streams."""
        shard_tape.CALLS, shard_calls.REQUESTS = (1_000, 1) if way == SINGLE else self._usual
        where = address(settings.journal)
        tape: Tape = KafkaTape(where) if way == OWN else shard_log.open_shard_tape(settings, placement)
        name = f"{where.topic}-{self._number}"
        self._log = await opened(tape, where.shown, self._folder, f"{name}.db")
        if way not in self._sites:
            issuer, names = Issuer(self._log), [f"bench/h{self._number}n{number}" for number in range(streams)]
            writers = await asyncio.gather(*(issuer.writer(stream) for stream in names))
            self._sites[way] = Site(self._folder, self._log, list(writers))
        self._sites[way].log = self._log
        self._log.tail()

    async def at_once(self, way: str, each: int) -> None:
        """So many commits on each stream, all streams at once."""
        site = self._sites[way]
        await site.append_to_all(len(site.writers), each, [written()])

    async def one_by_one(self, way: str, count: int) -> float:
        """So many commits on one stream, one after the other: milliseconds each took, in the middle."""
        took = list[float]()
        for _ in range(count):
            began = time.perf_counter()
            await self._sites[way].append(0, 1, [written()])
            took.append((time.perf_counter() - began) * 1_000)
        return statistics.median(took)

    async def connections(self, server: str) -> int:
        """How many connections this process has to the broker."""
        return connections(os.getpid(), server, ESTABLISHED)

    async def close(self) -> dict[str, int]:
        """Close the log. What stands, as far as this host was told: revisions by stream."""
        assert self._log
        last = next(site for site in self._sites.values() if site.log is self._log)
        await self._log.close()
        return {writer.stream: count for writer, count in zip(last.writers, last.revisions, strict=True)}


class Way:
    """One of the three: a topic, and a shard log if it has one."""

    def __init__(self, name: str, where: KafkaAddress) -> None:
        self.name, self.where = name, where
        self.settings = load({"journal": f"{where.shown}?partitions={PARTITIONS}"}, {})
        self.placement = Placement("bench", os.urandom(4).hex(), HOSTS, logs=1)
        self.log: Any = shard_log.make(self.settings.journal, self.placement, 0) if name != OWN else None
        self.connections = list[float]()
        self.one = list[float]()
        self.stands: dict[str, int] = {}

    async def use(self, hosts: list[Any], streams: int, each: int, ones: int) -> float:
        """Have all hosts append at once, and then each a few one by one: commits per second of the former."""
        server = self.where.servers[0]
        for host in hosts:  # the first founds the log
            await host.open.remote(self.name, self.settings, self.placement, streams)
        began = time.perf_counter()
        await asyncio.gather(*(host.at_once.remote(self.name, each) for host in hosts))
        rate = HOSTS * streams * each / (time.perf_counter() - began)
        self.one.append(await hosts[0].one_by_one.remote(self.name, ones))
        counted = sum(await asyncio.gather(*(host.connections.remote(server) for host in hosts)))
        if self.log is not None:
            counted += connections(await self.log.ready.remote(), server, ESTABLISHED)
        self.connections.append(counted)
        for told in await asyncio.gather(*(host.close.remote() for host in hosts)):
            self.stands |= told
        return rate

    async def verify(self, folder: Path) -> int:
        """See that all that a host was told of stands, and nothing more."""
        log = await opened(KafkaTape(self.where), self.where.shown, folder, f"{self.where.topic}-fresh.db")
        try:
            for stream, revision in self.stands.items():
                found = [commit.revision async for commit in log.read(stream)]
                assert found == list(range(1, revision + 1)), f"{stream}: {len(found)} of {revision}"
        finally:
            await log.close()
        return sum(self.stands.values())


async def shard_logs(quick: bool) -> Report:
    """Commits per second of four hosts at once, how long one takes alone, and connections to the broker."""
    rounds, streams, each, ones = (2, 4, 2, 2) if quick else (7, 64, 6, 40)
    ours = not ray.is_initialized()
    if ours:
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        ray.init(include_dashboard=False, num_cpus=HOSTS, log_to_driver=False)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        async with topics() as new:
            ways = {way: Way(way, new(PARTITIONS)) for way in (OWN, SHARED, SINGLE)}
            host = ray.remote(Host).options(num_cpus=0, max_concurrency=100)
            hosts: list[Any] = [host.remote(number, name) for number in range(HOSTS)]

            def turn(way: Way) -> Turn:
                return lambda: way.use(hosts, streams, each, ones)

            try:
                rates = await in_turns(rounds, {way: turn(ways[way]) for way in ways})
                total = sum([await way.verify(folder) for way in ways.values()])
            finally:
                for one in [*hosts, *(way.log for way in ways.values() if way.log is not None)]:
                    ray.kill(one)
    if ours:
        ray.shutdown()
    figures = [
        Figure(_PART, f"{SHARED} / {OWN}", "x", ratios(rates[SHARED], rates[OWN])),
        Figure(_PART, "one shard log, batched / a call an append", "x", ratios(rates[SHARED], rates[SINGLE])),
        *(Figure(_PART, f"{HOSTS} hosts at once: {way}", "commits/s", rates[way]) for way in ways),
        *(Figure(_PART, f"one commit alone: {way.name}", "ms", way.one) for way in ways.values()),
        *(Figure(_PART, f"connections: {way.name}", "", way.connections) for way in ways.values()),
    ]
    return Report(figures, f"{total:,} commits stand, each where its host was told")
