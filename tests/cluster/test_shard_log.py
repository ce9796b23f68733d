"""Shard logs on a real Ray and a real Kafka: the contract of a tape, and what becomes of them when they die or hang."""

import os
import random
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from agent_party import Party
from agent_party.cluster import shard_log
from agent_party.cluster.placement import Placement
from agent_party.cluster.ray_runtime import RayRuntime
from agent_party.cluster.settings import Settings, load
from agent_party.cluster.shard_log import ShardLogActor
from agent_party.cluster.shard_tape import ShardTape
from agent_party.eventstore.backends.kafka_address import address
from benchmarks.measure import ESTABLISHED, connections
from benchmarks.shard_logs import shard_logs
from tests.cluster.conftest import Head, move_to, turn_to
from tests.cluster.killing import count, counter, executed
from tests.conformance.test_tape import Open, TapeContract, UnconditionalTapeContract
from tests.eventstore_kit import Site, until
from tests.faults.sharing import Hosts
from tests.kafka_kit import Place, name
from tests.services_kit import Services

PARTITIONS = 3
SIGNS = 3
"""Connections of a host to one broker, for its signs of life."""


@pytest.fixture(scope="module")
def cluster(head: Head) -> Iterator[str]:
    """This process is on the cluster, as a host would be; its namespace."""
    with pytest.MonkeyPatch.context() as patch:
        turn_to(head, patch)
        ray.init(address=head.address, namespace="shard-logs", log_to_driver=False)
        yield "shard-logs"
        ray.shutdown()


class Logs:
    """The shard logs of a party, as its hosts see them: called, it opens one more tape over them."""

    def __init__(self, settings: Settings, placement: Placement) -> None:
        self.settings, self.placement = settings, placement
        self.opened: list[ShardTape] = []
        self.made: list[Any] = []

    def __call__(self) -> ShardTape:
        """Open a tape, as another host would."""
        self.opened.append(shard_log.open_shard_tape(self.settings, self.placement))
        return self.opened[-1]

    def pid(self, number: int = 0, generation: int = 0) -> int:
        """The process of a shard log."""
        handle: Any = ray.get_actor(self.placement.log(number, generation), namespace=self.placement.namespace)
        return int(ray.get(handle.ready.remote(), timeout=300))

    def generations(self) -> set[int]:
        """Which generations there are of the first one."""
        listed: list[str] = ray.util.list_named_actors()
        return {int(one.rpartition(":")[2]) for one in listed if one.startswith(self.placement.log(0, 0)[:-1])}


async def of(namespace: str, services: Services, partitions: int) -> AsyncIterator[Logs]:
    """A party's shard logs over a new topic; they end with the test."""
    journal = f"{services.journal(name())}?partitions={partitions}"
    logs = Logs(load({"journal": journal}, {}), Placement(namespace, os.urandom(4).hex(), 1, logs=1))
    yield logs
    for tape in logs.opened:
        await tape.close()
    shard_log.end(logs.placement)
    await Place(address(journal)).delete()


@pytest.fixture
async def logs(cluster: str, services: Services) -> AsyncIterator[Logs]:
    async for logs in of(cluster, services, PARTITIONS):
        logs.made.append(shard_log.make(logs.settings.journal, logs.placement, 0))
        yield logs


class Several:
    """One process for the shard logs of several tests, for a process takes a second to begin."""

    def __init__(self) -> None:
        self.actors: dict[str, ShardLogActor] = {}

    async def ready(self) -> int:
        return os.getpid()

    async def ask(self, journal: str, message: bytes) -> bytes:
        return await self.actors.setdefault(journal, ShardLogActor(journal)).ask(message)


@pytest.fixture(scope="module")
def several(cluster: str) -> Any:
    return ray.remote(Several).options(max_concurrency=1_000, num_cpus=0).remote()


class TestTapeOnRay(TapeContract, UnconditionalTapeContract):
    @pytest.fixture
    async def open_tape(
        self, cluster: str, several: Any, services: Services, monkeypatch: pytest.MonkeyPatch
    ) -> AsyncIterator[Open]:
        def one(journal: str, placement: Placement, number: int, generation: int) -> SimpleNamespace:
            ask = SimpleNamespace(remote=lambda message: several.ask.remote(journal, message))
            return SimpleNamespace(ask=ask, ready=several.ready)

        monkeypatch.setattr(shard_log, "make", one)
        async for logs in of(cluster, services, 1):
            yield logs


async def test_one_that_is_killed_loses_nothing_and_doubles_nothing(
    tmp_path: Path, logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    for patience in ("QUIET", "_RESTART"):  # however long it takes until it runs again
        monkeypatch.setattr(shard_log, patience, 100.0)
    async with Hosts(Site(tmp_path, "kafka", logs), random.Random(1)) as hosts:
        for _ in range(3):
            await hosts.get_on(30)
            os.kill(logs.pid(), signal.SIGKILL)
        await hosts.get_on(30)
    assert hosts.found == []
    assert logs.generations() == {0}, "Ray starts it again"
    assert hosts.counts["acknowledged"] >= 3 * 30


async def test_one_that_was_paused_and_wakes_acknowledges_nothing_stale(
    tmp_path: Path, logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_log, "QUIET", 60.0)  # so that nobody gives it up before
    async with Hosts(Site(tmp_path, "kafka", logs), random.Random(2)) as hosts:
        await hosts.get_on(30)
        zombie = logs.pid()
        monkeypatch.setattr(shard_log, "QUIET", 1.5)
        await hosts.get_on(10)  # what is asked from now on is given up soon
        os.kill(zombie, signal.SIGSTOP)
        await until(lambda: max(logs.generations()) > 0, "another one took over")
        monkeypatch.setattr(shard_log, "QUIET", 60.0)
        await hosts.get_on(60)
        os.kill(zombie, signal.SIGCONT)
        await hosts.get_on(60)
    assert hosts.found == []
    assert hosts.counts["landed too late"] > 0, hosts.counts


@pytest.mark.parametrize("of", [1, 2])
async def test_the_hosts_of_a_party_share_them_and_outlive_them(
    of: int, cluster: str, services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    move_to(tmp_path, monkeypatch)
    journal, trace = f"{services.journal(name())}?partitions={PARTITIONS}", tmp_path / "trace"
    monkeypatch.setenv("PARTY_SHARD_LOGS", str(of))
    async with Party.open(agents=[counter], runtime="ray", hosts=2, journal=journal, name=f"sharing{of}") as party:
        assert isinstance(party.runtime, RayRuntime)
        placement = party.runtime.placement
        shared = Logs(party.settings, placement)
        tasks = [await party.ask(count, trace=str(trace), to=10) for _ in range(4)]
        await until(lambda: trace.exists() and executed(trace).total() > 4, "they are at work", 300)
        for number in range(of):
            os.kill(shared.pid(number), signal.SIGKILL)
        assert [await task.result(300) for task in tasks] == [45] * 4
        hosts = [await placement.call(placement.pooled(number), "ready", deadline=300) for number in range(2)]
        await until(
            lambda: max(connections(pid, services.kafka, ESTABLISHED) for pid in hosts) <= SIGNS, "they share them"
        )
        logs = [shared.pid(number) for number in range(of)]
        await until(lambda: min(connections(pid, services.kafka, ESTABLISHED) for pid in logs) > 0, "each has a client")
    assert executed(trace).total() == 40, "a step was done again, or left out"
    assert shared.generations() == set(), "they end with the party"
    await Place(address(journal)).delete()


async def test_the_benchmark_runs_and_verifies_what_it_wrote(
    cluster: str, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARTY_BENCH_KAFKA", services.kafka)
    report = await shard_logs(quick=True)
    assert "commits stand" in report.verified
    counted = {figure.name: figure.median for figure in report.figures if figure.name.startswith("connections")}
    assert counted["connections: one shard log"] < counted["connections: a client each"]
