"""What the Kafka tape alone promises: topics that are fit for a log, and what others do to them without effect."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent_party.eventstore.audit import MATCHES, verify_log
from agent_party.eventstore.backends.kafka import KafkaTape
from agent_party.eventstore.backends.kafka_address import address
from agent_party.eventstore.backends.kafka_founding import founding
from agent_party.eventstore.codec import Codec
from agent_party.eventstore.commit import SigningKey
from agent_party.eventstore.errors import (
    EventStoreError,
    LogRolledBack,
    StoreBusyError,
    StoreError,
    WrongLogError,
)
from agent_party.eventstore.founding import open_log
from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.log import Log
from agent_party.eventstore.tape import START, Entry
from agent_party.eventstore.verify import identity, parse, slice_of
from tests.eventstore_kit import Note, Site, all_entries, notes, until
from tests.faults.foreign import own_findings
from tests.kafka_kit import Place, name
from tests.logs.making import joined, packed
from tests.services_kit import Services

LOG = identity(bytes(32), 16, bytes(32))


@pytest.fixture
async def wide(services: Services) -> AsyncIterator[Place]:
    """A topic of two partitions."""
    topic = Place(address(f"{services.journal(name())}?partitions=2"))
    yield topic
    await topic.close()


@pytest.fixture
async def site(tmp_path: Path, wide: Place) -> AsyncIterator[Site]:
    site = Site(tmp_path, "kafka", wide)
    yield site
    await site.close()


async def texts(log: Log, stream: str) -> list[str]:
    return [event.text async for commit in log.read(stream) for event in commit.events]


# A topic that grew


async def test_partitions_that_were_added_stay_unused(site: Site, wide: Place) -> None:
    """Kafka never takes one away again, so a refusal could not be mended; the number at the founding holds."""
    from aiokafka.admin import NewPartitions

    log = await site.open()
    writer = await Issuer(log).writer("note/a")
    async with wide.admin() as admin:
        await admin.create_partitions({wide.where.topic: NewPartitions(5)})
    await wide.until(lambda found: found is not None and found.partitions == 5)
    other = await site.open("other.db")
    assert other.tape.lanes == 2
    await other.append(writer, notes("x"), expected=0)
    await log.refresh()
    assert await texts(log, "note/a") == ["x"]


# Whose topic it is


async def test_a_topic_of_another_party(tmp_path: Path, topic: Place) -> None:
    mine, theirs = Site(tmp_path / "mine", "kafka", topic), Site(tmp_path / "theirs", "kafka", topic)
    await theirs.open()
    with pytest.raises(WrongLogError, match="whose keys are not in"):
        await mine.open()
    await theirs.close()


async def test_a_topic_of_something_else(topic: Place) -> None:
    await topic.create({"retention.ms": "-1"})
    await topic.send(b"an order", b"another order")
    tape = topic()
    assert await tape.identity() is None
    with pytest.raises(WrongLogError, match="records of something else"):
        await tape.found(LOG)
    assert len(await all_entries(tape)) == 2


async def test_the_first_who_founds_holds_and_all_founding_messages_are_passed_over(topic: Place) -> None:
    tape = topic()
    await tape.found(LOG)
    await topic.send(founding(identity(bytes([1]) * 32, 16, bytes(32)), 1, bytes(16)))
    await tape.append(0, [b"record"], START)
    assert await topic().identity() == LOG
    assert [entry.raw for entry in await all_entries(topic())] == [b"record"]


async def test_what_is_only_like_a_founding_message_is_an_entry(topic: Place) -> None:
    await topic().found(LOG)
    like = founding(LOG, 1, bytes(16))
    await topic.send(like[:-1], like + b"x", b"x" + like[1:])
    assert len(await all_entries(topic())) == 3


# Nobody there, or not as expected


async def test_nobody_listens() -> None:
    held = socket.socket()  # so that nobody else has the port
    held.bind(("127.0.0.1", 0))
    tape = KafkaTape(address(f"kafka://127.0.0.1:{held.getsockname()[1]}/agent.events"))
    tape.client.deadline = 0.5
    try:
        with pytest.raises(StoreBusyError, match="see that its brokers run"):
            await tape.identity()
        async with asyncio.timeout(120):
            await tape.wait(0, 0, 0.2)
    finally:
        await tape.close()
        held.close()


async def test_somebody_listens_and_never_answers() -> None:
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    tape = KafkaTape(address(f"kafka://127.0.0.1:{port}/agent.events"))
    tape.client.deadline = tape.client.patience = 0.5
    try:
        async with asyncio.timeout(120):
            with pytest.raises(StoreBusyError):
                await tape.append(0, [b"record"], START)
    finally:
        await tape.close()
        server.close()


async def test_tls_where_there_is_none(services: Services) -> None:
    tape = KafkaTape(address(f"kafka+ssl://{services.kafka}/{name()}"))
    tape.client.deadline = 0.5
    with pytest.raises(StoreError, match=r"no TLS there|did not answer"):
        await tape.identity()
    await tape.close()


# A prefix that changed or shrank


async def test_a_beginning_that_was_deleted(site: Site, wide: Place) -> None:
    log = await site.open()
    lane = log._lanes.of(b"note/a").lane
    writer = await Issuer(log).writer("note/a")
    await log.append(writer, notes("x"), expected=0)
    await wide.delete_before(lane, 2)
    with pytest.raises(LogRolledBack, match="begins at offset 2"):
        await log.refresh()
    with pytest.raises(LogRolledBack, match="begins at offset"):
        await site.open("other.db")


async def test_a_topic_that_was_made_anew(site: Site, wide: Place) -> None:
    """The checkpoint says that commits were there; the topic is empty, and no conflict is told to anybody."""
    log = await site.open()
    writer = await Issuer(log).writer("note/a")
    await log.append(writer, notes("x"), expected=0)
    await log.close()
    await wide.delete()
    await wide.until(lambda found: found is None)
    with pytest.raises(LogRolledBack, match="is empty"):
        await site.open("other.db")


async def test_what_was_read_and_is_other_bytes_now(topic: Place) -> None:
    tape = topic()
    await tape.append(0, [b"one", b"two"], START)
    with pytest.raises(LogRolledBack, match="has changed"):
        await tape.append(0, [b"three"], Entry(2, b"TWO"))
    assert len(await all_entries(tape)) == 2


# Foreign bytes


async def test_foreign_bytes_change_nothing_and_are_counted(site: Site, wide: Place, tmp_path: Path) -> None:
    log = await site.open()
    lane = log._lanes.of(b"note/a").lane
    writer = await Issuer(log).writer("note/a")
    await log.append(writer, notes("one"), expected=0)
    stand = [entry.raw for entry in await all_entries(log.tape, lane)]
    mine, before, own = parse(stand[-1]), log.index.sizes(), own_findings(log).total()
    stranger = SigningKey.from_seed(bytes(32))
    forged = joined(packed(mine.header), stranger.sign(b"x"), mine.body)
    other = joined(packed(mine.header), mine.signature, mine.body[:-1] + bytes([mine.body[-1] ^ 1]))
    unknown = bytes([stand[-1][0], stand[-1][1], 9]) + stand[-1][3:]
    elsewhere = identity(bytes([1]) * 32, log.identity.slices, bytes(32))
    of_another = joined(packed(mine.header._replace(log_id=elsewhere.log_id)), mine.signature, mine.body)
    await wide.send(b"garbage", None, b"", stand[-1], forged, other, unknown, of_another, partition=lane)
    await wide.send(stand[-1], partition=1 - lane)  # in the wrong partition
    await wide.send(b"squeezed " * 50, partition=lane, compression_type="gzip")
    await wide.in_a_transaction([stand[-1], b"aborted"], partition=lane, end="abort")
    await wide.in_a_transaction([b"in the air"], partition=lane, end="open")
    await log.refresh()
    assert log.index.sizes() == before
    found = log.index.findings
    assert (found["gap"], found["elsewhere"]) == (0, 1)
    assert found["malformed"] >= 6
    assert found.total() == own + 13
    await log.append(writer, notes("two"), expected=1)
    assert await texts(log, "note/a") == ["one", "two"]
    fresh = await site.open("fresh.db")
    await log.refresh()
    assert (fresh.index.sizes(), fresh.index.findings) == (log.index.sizes(), log.index.findings)
    audit = await verify_log(fresh)
    assert (audit.ok, sum(audit.findings.values())) == (True, fresh.index.findings.total())


async def test_a_record_in_the_wrong_partition_is_not_accepted_where_it_would_come_next(
    site: Site, wide: Place
) -> None:
    """Its prev, grant and signature are right; but readers of two partitions meet at different moments."""
    log = await site.open()
    lane = log._lanes.of(b"note/a").lane
    writer = await Issuer(log).writer("note/a")
    caught, placed = list[bytes](), list["asyncio.Task[int]"]()
    tape = wide.opened[0]
    send = tape.producer.send

    async def astray(to: int, records: list[bytes], _: Any) -> int:
        """The first time; what is sent again stays here."""
        if caught:
            return 0
        caught.extend(records)
        placed.append(asyncio.create_task(send(1 - to, records)))
        return await asyncio.shield(placed[0])

    tape.producer.send = astray  # type: ignore[method-assign,assignment]
    with pytest.raises(EventStoreError):
        await log.append(writer, notes("astray"), expected=0, deadline=3)
    await until(lambda: bool(placed), "it was sent")
    await placed[0]
    tape.producer.send = send  # type: ignore[method-assign]
    other = await site.open("other.db")
    assert other.index.findings["elsewhere"] == len(caught)
    assert await texts(other, "note/a") == []
    await wide.send(caught[0], partition=lane)  # the very bytes, at last where they belong
    await other.refresh()
    assert await texts(other, "note/a") == ["astray"]


async def test_a_record_counts_whatever_kafka_says_around_it(site: Site, wide: Place) -> None:
    """In a transaction, committed or aborted or hanging; with a key and headers; in 1970."""
    log = await site.open()
    lane = log._lanes.of(b"note/a").lane
    writer = await Issuer(log).writer("note/a")
    caught: list[bytes] = []
    tape = wide.opened[0]
    send = tape.producer.send

    async def keep(to: int, records: list[bytes], _: Any) -> int:
        caught.extend(records)
        return 0

    for number, how in enumerate(("commit", "abort", "open", "1970")):
        tape.producer.send = keep  # type: ignore[method-assign,assignment]
        appending = asyncio.create_task(log.append(writer, notes(how), expected=number))
        await until(lambda expected=number: len(set(caught)) > expected, "it was built")  # type: ignore[misc]
        if how == "1970":
            async with wide.producer() as producer:
                headers = [("traceparent", b"x")]
                await producer.send_and_wait(
                    wide.where.topic, caught[-1], key=b"k", partition=lane, timestamp_ms=0, headers=headers
                )
        else:
            await wide.in_a_transaction([caught[-1]], partition=lane, end=how)
        assert (await appending).revision == number + 1
    tape.producer.send = send  # type: ignore[method-assign]
    assert await texts(await site.open("other.db"), "note/a") == ["commit", "abort", "open", "1970"]


async def test_a_flood_is_read_page_by_page_and_counted_once(site: Site, wide: Place) -> None:
    log = await site.open()
    lane = log._lanes.of(b"note/a").lane
    writer = await Issuer(log).writer("note/a")
    async with wide.producer(max_batch_size=900_000) as producer:
        sent = [await producer.send(wide.where.topic, bytes(9_000), partition=lane) for _ in range(3_000)]
        await asyncio.gather(*sent)
    await log.append(writer, notes("through it"), expected=0)
    assert log.index.findings["malformed"] == 3_000
    for cursors in wide.opened[0].reader._cursors.values():
        assert sum(len(entry.raw) for cursor in cursors for entry in cursor.ready) < 4 << 20
    again = await site.open()  # over the same index: the flood is not read again
    assert again.index.findings == log.index.findings
    assert await texts(again, "note/a") == ["through it"]


async def test_an_index_of_another_log_is_not_believed(tmp_path: Path, topic: Place, wide: Place) -> None:
    one, two = Site(tmp_path, "kafka", topic), Site(tmp_path, "kafka", wide)
    first = await one.open()
    writer = await Issuer(first).writer("note/a")
    await first.append(writer, notes("one"), expected=0)
    await first.close()
    second = await open_log(
        wide(), two.keyring, journal=wide.where.shown, index=tmp_path / "party" / "index.db", blobs=two.blobs,
        codec=Codec([Note]),
    )  # fmt: skip
    assert second.identity != first.identity
    assert await texts(second, "note/a") == []
    assert second.index.sizes()[slice_of(second.identity, b"keys/0")]
    await second.close()


async def test_an_audit_over_all_partitions(site: Site, wide: Place) -> None:
    log = await site.open()
    writers = await asyncio.gather(*(Issuer(log).writer(f"note/n{n}") for n in range(20)))
    await asyncio.gather(*(log.append(w, notes("x"), expected=0) for w in writers))
    log.remember()
    audit = await verify_log(log)
    assert (audit.ok, audit.checkpoint.status, audit.checkpoint.tail) == (True, MATCHES, 0)
    assert audit.commits == 16 + 40
    assert {log._lanes.of(w.stream.encode()).lane for w in writers} == {0, 1}
