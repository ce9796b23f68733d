"""Topics that are fit for a log: made as they must be, waited for, refused where they would lose what was written."""

import logging
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from agent_party.eventstore.backends.kafka import KafkaTape
from agent_party.eventstore.backends.kafka_address import address
from agent_party.eventstore.errors import StoreError
from agent_party.eventstore.tape import START
from agent_party.eventstore.verify import identity
from tests.eventstore_kit import all_entries
from tests.kafka_kit import Place, name
from tests.services_kit import Services

LOG = identity(bytes(32), 16, bytes(32))


async def test_a_topic_is_made_as_it_must_be(topic: Place, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        await topic().found(LOG)
    made = await topic.settings()
    assert {n: made[n] for n in ("cleanup.policy", "retention.ms", "retention.bytes", "max.message.bytes")} == {
        "cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1", "max.message.bytes": "1048588"
    }  # fmt: skip
    assert made["unclean.leader.election.enable"] == "false"
    assert made["compression.type"] == "producer"
    assert "1 replica of each partition" in caplog.text


async def test_looking_makes_no_topic(topic: Place) -> None:
    tape = topic()
    assert await tape.identity() is None
    assert await tape.read(0, 0, 10) == []
    assert await tape.client.topic() is None


@pytest.mark.parametrize(
    ("setting", "value", "why"),
    [
        ("retention.ms", "604800000", "records are deleted after 604,800,000 milliseconds"),
        ("retention.bytes", "1000000", "records are deleted after 1,000,000 bytes"),
        ("cleanup.policy", "compact", "compacted"),
        ("cleanup.policy", "compact,delete", "compacted"),
        ("unclean.leader.election.enable", "true", "acknowledged records go"),
        ("max.message.bytes", "1000", "do not fit into 1,000 bytes"),
        ("compression.type", "gzip", "rewrite"),
    ],
)
async def test_a_topic_that_would_lose_what_was_written_is_refused(
    topic: Place, setting: str, value: str, why: str
) -> None:
    await topic.create({"retention.ms": "-1"} | {setting: value})
    tape = topic()
    with pytest.raises(StoreError, match=why) as caught:
        await tape.found(LOG)
    assert f"--entity-name {topic.where.topic} --add-config {setting}=" in str(caught.value)
    with pytest.raises(StoreError, match="cannot hold a log"):
        await tape.append(0, [b"record"], START)
    assert await all_entries(tape) == []


async def test_a_topic_with_the_seeds_retention_of_seven_days_is_refused(topic: Place) -> None:
    await topic.create({})
    with pytest.raises(StoreError, match=r"retention\.ms=604800000"):
        await topic().found(LOG)


async def test_more_replicas_than_brokers(services: Services) -> None:
    tape = KafkaTape(address(f"{services.journal(name())}?replicas=3"))
    try:
        with pytest.raises(StoreError, match="3 replicas need as many brokers, and there are 1"):
            await tape.found(LOG)
    finally:
        await tape.close()


async def test_a_new_topic_that_some_brokers_do_not_know_yet(topic: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    tape = topic()
    tape.client.deadline, ask, seen = 10, tape.client.ask, Counter[str]()

    async def asked(request: Callable[[], Any], node: int | None = None) -> Any:
        seen[kind := type(request()).__name__] += 1
        answer = await ask(request, node)
        if kind == "MetadataRequest" and answer.topics[0][0] == 0 and seen["found"]:
            return SimpleNamespace(topics=[(3, topic.where.topic, False, [])])
        seen["found"] += kind == "MetadataRequest" and answer.topics[0][0] == 0
        if kind == "DescribeConfigsRequest" and seen[kind] == 1:
            return SimpleNamespace(resources=[(3, "", 2, topic.where.topic, [])])
        return answer

    monkeypatch.setattr(tape.client, "ask", asked)
    await tape.found(LOG)
    assert seen["found"] == 1
    assert seen["DescribeConfigsRequest"] == 2
    assert await topic().identity() == LOG
