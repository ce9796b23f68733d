"""Foreign values in a topic, put there by Kafka's own means: classified, counted, and changing nothing."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from agent_party.eventstore import appending, index, log
from agent_party.eventstore.audit import verify_log
from agent_party.eventstore.backends.kafka import KafkaTape
from agent_party.eventstore.errors import EventStoreError
from tests.eventstore_kit import Site
from tests.faults.book import RULE_BUGS, planted
from tests.faults.foreign import STALE, Stage, changes_nothing, own_findings, picture

FLOOD = 100_000
REQUESTS = 300_000
"""Milliseconds for which the driver waits before it sends once more, which would be counted twice."""
TRANSACTIONS = 300_000
"""Milliseconds after which a broker ends a transaction that hangs."""


class Intruder:
    """Somebody who may write to the topic."""

    def __init__(self, tape: KafkaTape) -> None:
        self.topic, self._servers = tape.address.topic, list(tape.address.servers)

    async def put(self, raws: list[bytes], **more: Any) -> None:
        """Values without keys, in order, in the first partition."""
        await self.send([(None, raw) for raw in raws], **more)

    async def send(self, messages: list[tuple[bytes | None, bytes | None]], **more: Any) -> None:
        """Keys and values, with a header and a time of their own."""
        async with AIOKafkaProducer(
            bootstrap_servers=self._servers, acks="all", request_timeout_ms=REQUESTS, **more
        ) as producer:
            sent = [
                await producer.send(
                    self.topic,
                    value,
                    key=key,
                    partition=0,
                    timestamp_ms=1 + 1_000 * number,
                    headers=[("kind", b"data")],
                )
                for number, (key, value) in enumerate(messages)
            ]
            await asyncio.gather(*sent)

    async def transaction(self, raws: list[bytes], *, ends: bool) -> AIOKafkaProducer:
        """Values in a transaction that is aborted, or left hanging until the producer is stopped."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self._servers,
            transactional_id=f"intruder-{os.urandom(4).hex()}",
            transaction_timeout_ms=TRANSACTIONS,
        )
        await producer.start()
        await producer.begin_transaction()
        for raw in raws:
            await (await producer.send(self.topic, raw, partition=0))
        if ends:
            await producer.abort_transaction()
            await producer.stop()
        return producer


@pytest.fixture
async def site(tmp_path: Path, topic: Callable[[], KafkaTape]) -> AsyncIterator[Site]:
    site = Site(tmp_path, "kafka", topic)
    yield site
    await site.close()


@pytest.fixture
def intruder(topic: Callable[[], KafkaTape]) -> Intruder:
    return Intruder(topic())


async def test_foreign_values_change_nothing(site: Site, intruder: Intruder) -> None:
    findings = (await changes_nothing(site, intruder.put)).findings
    assert findings["stale"] > 10
    assert findings["foreign"] > 20


@pytest.mark.parametrize("bug", ["ignoring prev", "body not checked", "accepting an overtaken grant"])
async def test_a_bug_planted_in_the_rule_is_noticed(
    bug: str, site: Site, intruder: Intruder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bug in RULE_BUGS
    for module in (appending, index):
        monkeypatch.setattr(module, "judge", planted(bug))
    monkeypatch.setattr(log, "DEADLINE", 2.0)
    with pytest.raises((AssertionError, EventStoreError)):
        await changes_nothing(site, intruder.put)


async def test_what_only_a_broker_can_do_changes_nothing(site: Site, intruder: Intruder) -> None:
    """Tombstones, keys, headers, times, compressed batches, transactions that are aborted or hang."""
    opened = await site.open("open.db")
    stage = Stage(opened)
    await stage.build()
    before, own = await picture(opened), own_findings(opened).total()
    raws = [each.raw for each in await stage.foreign()]
    messages: list[tuple[bytes | None, bytes | None]] = [(b"", None), (b"note/open", None), (b"note/open", raws[0])]
    await intruder.send(messages)
    await intruder.put(raws[:20], compression_type="gzip")
    await intruder.transaction(raws, ends=True)
    hanging = await intruder.transaction(raws, ends=False)
    await opened.refresh()
    fresh = await site.open("fresh.db")
    assert await picture(opened) == await picture(fresh) == before
    batches = 1  # what is compressed is not looked into
    assert fresh.index.findings.total() == own + len(messages) + batches + 2 * len(raws)
    assert fresh.index.findings == opened.index.findings
    await stage.write(stage.open, 3)  # while the transaction hangs: nothing waits for its end
    await hanging.stop()
    audit = await verify_log(opened)
    assert audit.ok
    await opened.refresh()
    assert sum(audit.findings.values()) == opened.index.findings.total()


async def test_a_record_counts_whatever_its_transaction_comes_to(site: Site, intruder: Intruder) -> None:
    """The tape's order is all that counts: another reader cannot know what became of a transaction."""
    opened = await site.open("open.db")
    stage = Stage(opened)
    await stage.build()
    await intruder.transaction([await stage.next(stage.open)], ends=True)
    await opened.refresh()
    assert (await opened.state("note/open")).revision == 4
    await stage.write(stage.open, 1)
    fresh = await site.open("fresh.db")
    assert await picture(fresh) == await picture(opened)


async def test_a_flood(site: Site, intruder: Intruder) -> None:
    opened = await site.open("open.db")
    stage = Stage(opened)
    await stage.build()
    before = await picture(opened)
    flood = asyncio.create_task(intruder.put([b"garbage"] * FLOOD, linger_ms=5))
    await stage.write(stage.open, 5)  # in the midst of it
    await flood
    await opened.refresh()
    assert opened.index.findings["malformed"] == FLOOD
    assert sum(opened.index.sizes().values()) == before.export.count(b"note.written") + 5 + _controls(before.export)
    audit = await verify_log(opened)
    assert audit.ok
    assert audit.findings["foreign"] == FLOOD
    assert set(audit.findings) <= {"foreign", *STALE}, "besides, what was sent again because it was not seen in time"


def _controls(export: bytes) -> int:
    """Control commits, by the types that stand in them."""
    return sum(export.count(kind) for kind in (b"\5grant", b"\7certify", b"\5fence"))
