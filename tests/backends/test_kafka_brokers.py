"""Ten faults on three brokers, while two shard logs write the same streams: the short piece of `campaigns.brokers`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_party.cluster.services import Running
from tests.campaigns.brokers import journal, three_brokers
from tests.faults.arena import BAD, Arena

FAULTS = [
    "a broker is killed",
    "connections are cut",
    "a broker is paused",
    "a writer is killed",
    "two brokers are paused",
    "every connection is cut",
    "connections are held up",
    "a writer is paused",
    "connections are refused",
    "a broker is killed while a writer is paused",
]


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with three_brokers(tmp_path_factory.mktemp("services")) as running:
        yield running


async def test_ten_faults(tmp_path: Path, brokers: Running) -> None:
    arena = Arena(tmp_path / "site", 5, journal=journal(brokers), brokers=brokers.brokers)
    counts = await arena.fight(FAULTS)
    assert arena.found == []
    assert [counts[bad] for bad in BAD] == [0] * len(BAD)
    assert counts["faults"] == len(FAULTS)
    assert counts["acknowledged"] > 100


async def test_writers_that_believe_the_brokers_are_noticed(tmp_path: Path, brokers: Running) -> None:
    arena = Arena(tmp_path / "site", 6, journal=journal(brokers), brokers=brokers.brokers, bug="ack on tape ack")
    await arena.fight([], 500)
    assert arena.found
