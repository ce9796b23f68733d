"""Who lives on other nodes: by signs of life in a topic, aged by the broker's clock."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent_party.cluster import kafka_presence
from agent_party.cluster.kafka_presence import KafkaPresence
from agent_party.eventstore.errors import StoreBusyError
from tests.kafka_kit import Place

Nodes = list[KafkaPresence]
DEAD = 600.0
"""Seconds here, so that nobody is silent for so long because the machine is slow."""


@pytest.fixture
async def nodes(tmp_path: Path, topic: Place, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Nodes]:
    """Two processes on two nodes."""
    monkeypatch.setattr(kafka_presence, "DEAD", DEAD)
    nodes = [KafkaPresence(tmp_path / name, os.urandom(16), topic.where) for name in ("one", "two")]
    for node in nodes:
        await node.start()
    yield nodes
    for node in nodes:
        await node.leave()
        node.close()


async def test_a_process_on_another_node_lives_until_it_leaves(nodes: Nodes) -> None:
    one, two = nodes
    await one._beat()
    assert one.alive(two.holder)
    assert two.alive(one.holder)
    assert not one.alive(os.urandom(16))
    await two.leave()
    await one._beat()
    assert not one.alive(two.holder)


async def test_silence_counts_by_the_brokers_clock(nodes: Nodes) -> None:
    one, two = nodes
    await one._beat()
    node = one._last[two.holder][1]
    one._last[two.holder] = one._now - DEAD + 0.1, node
    assert one.alive(two.holder)
    one._last[two.holder] = one._now - DEAD, node
    assert not one.alive(two.holder)


async def test_who_is_cut_off_takes_nobody_for_dead(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = nodes
    await one._beat()

    async def cut_off(lane: int, records: list[bytes]) -> int:
        raise StoreBusyError("nobody answers")

    monkeypatch.setattr(one._producer, "send", cut_off)
    with pytest.raises(StoreBusyError):
        await one._beat()
    assert one.alive(two.holder)


async def test_on_ones_own_node_the_kernel_knows_at_once(nodes: Nodes, tmp_path: Path, topic: Place) -> None:
    third = KafkaPresence(tmp_path / "one", os.urandom(16), topic.where)
    await third.start()
    await nodes[0]._beat()
    assert nodes[0].alive(third.holder)
    third.close()  # it dies, and says nothing
    assert not nodes[0].alive(third.holder)
    await third.leave()


async def test_a_new_process_knows_at_once_who_lives(nodes: Nodes, tmp_path: Path, topic: Place) -> None:
    late = KafkaPresence(tmp_path / "late", os.urandom(16), topic.where)
    await late.start()
    assert all(late.alive(node.holder) for node in nodes)
    await late.leave()
    late.close()
