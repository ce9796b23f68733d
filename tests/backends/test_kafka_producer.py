"""What becomes of an append when the brokers' answer is lost, late, or that they have lost track of the producer."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from agent_party.eventstore.backends import kafka_batch
from agent_party.eventstore.backends import kafka_errors as codes
from agent_party.eventstore.backends.kafka import KafkaTape
from agent_party.eventstore.backends.kafka_batch import MAX_BATCH
from agent_party.eventstore.errors import StoreBusyError, StoreError
from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.log import Log, Writer
from agent_party.eventstore.tape import START, Indefinite
from agent_party.eventstore.verify import MAX_RECORD
from tests.eventstore_kit import Site, all_entries, notes, truth_of
from tests.kafka_kit import Place

Harm = Callable[[KafkaTape, int], None]


@pytest.fixture
def tape(topic: Place) -> KafkaTape:
    return topic()


@pytest.fixture
async def site(tmp_path: Path, topic: Place) -> AsyncIterator[Site]:
    site = Site(tmp_path, "kafka", topic)
    yield site
    await site.close()


@pytest.fixture
async def log(site: Site) -> Log:
    return await site.open()


@pytest.fixture
async def writer(log: Log) -> Writer:
    return await Issuer(log).writer("note/a")


def of(log: Log) -> KafkaTape:
    assert isinstance(log.tape, KafkaTape)
    return log.tape


def answer_lost(tape: KafkaTape, times: int) -> None:
    """The records are placed, and nobody hears of it."""
    send, left = tape.client.send, [times]

    async def lossy(node: int, request: Any, channel: Any) -> Any:
        answer = await send(node, request, channel)
        if channel[0] == "produce" and left[0] > 0:
            left[0] -= 1
            raise TimeoutError
        return answer

    tape.client.send = lossy  # type: ignore[method-assign]


def request_lost(tape: KafkaTape, times: int) -> None:
    """The records never arrive, and nobody knows."""
    send, left = tape.client.send, [times]

    async def lossy(node: int, request: Any, channel: Any) -> Any:
        if channel[0] == "produce" and left[0] > 0:
            left[0] -= 1
            raise TimeoutError
        return await send(node, request, channel)

    tape.client.send = lossy  # type: ignore[method-assign]


def answered(tape: KafkaTape, code: int, times: int, *, placed: bool, after: int = 0) -> None:
    """A broker answers with an error, ``after`` so many right answers, having placed the records or not."""
    sent, left = tape.producer._sent, [after + times]

    async def wrong(lane: int, batch: bytes, until: float) -> tuple[int, int]:
        left[0] -= 1
        if not 0 <= left[0] < times:
            return await sent(lane, batch, until)
        if placed:
            await sent(lane, batch, until)
        return code, -1

    tape.producer._sent = wrong  # type: ignore[method-assign]


@pytest.mark.parametrize(("harm", "stand"), [(answer_lost, 1), (request_lost, 0)], ids=["the answer", "the request"])
async def test_an_answer_that_does_not_come_is_indefinite_and_the_producer_is_given_up(
    tape: KafkaTape, harm: Harm, stand: int
) -> None:
    await tape.append(0, [b"before"], START)
    harm(tape, 1)
    with pytest.raises(Indefinite):
        await tape.append(0, [b"doubtful"], START)
    assert tape.producer.made == 1
    await tape.append(0, [b"after"], START)
    assert tape.producer.made == 2
    raws = [entry.raw for entry in await all_entries(tape)]
    assert raws == [b"before", *[b"doubtful"] * stand, b"after"]


@pytest.mark.parametrize("harm", [answer_lost, request_lost])
@pytest.mark.parametrize("times", [1, 2])
async def test_the_log_finds_out_and_acknowledges_once(log: Log, writer: Writer, harm: Harm, times: int) -> None:
    harm(of(log), times)
    assert (await log.append(writer, notes("x"), expected=0)).revision == 1
    assert (await log.append(writer, notes("y"), expected=1)).revision == 2
    assert len((await truth_of(log)).data("note/a")) == 2


async def test_brokers_that_lost_track_of_the_numbers(tape: KafkaTape) -> None:
    """aiokafka #1017: a producer whose numbers have a gap is refused for ever. Here a new one goes on."""
    await tape.append(0, [b"one"], START)
    assert tape.producer._producer
    tape.producer._producer.numbers[0] = 1_000
    await tape.append(0, [b"two"], START)
    assert tape.producer.made == 2
    assert [entry.raw for entry in await all_entries(tape)] == [b"one", b"two"]


async def test_a_number_that_was_used_is_no_acknowledgement(log: Log, writer: Writer) -> None:
    """A broker that takes a new batch for an old one says that all is well, and has not written it."""
    for number in range(8):
        await log.append(writer, notes(str(number)), expected=number)
    producer = of(log).producer._producer
    assert producer
    producer.numbers[0] = 0
    assert (await log.append(writer, notes("new"), expected=8)).revision == 9
    assert len((await truth_of(log)).data("note/a")) == 9


@pytest.mark.parametrize("code", sorted(codes.UNSURE & codes.AGAIN))
@pytest.mark.parametrize("placed", [True, False], ids=["placed", "not placed"])
async def test_a_leader_that_changes_is_sent_the_same_batch_again(tape: KafkaTape, code: int, placed: bool) -> None:
    """With the same numbers, so that whoever leads now sees whether it has it."""
    await tape.append(0, [b"before"], START)
    answered(tape, code, 2, placed=placed)
    await tape.append(0, [b"once"], START)
    assert tape.producer.made == 1
    assert [entry.raw for entry in await all_entries(tape)] == [b"before", b"once"]


async def test_too_few_replicas_are_waited_for_and_then_nothing_was_written(tape: KafkaTape) -> None:
    await tape.append(0, [b"before"], START)
    tape.client.deadline = 0.3
    answered(tape, codes.NOT_ENOUGH_REPLICAS, 1_000, placed=False)
    with pytest.raises(StoreBusyError) as caught:
        await tape.append(0, [b"never"], START)
    assert not isinstance(caught.value, Indefinite)


async def test_a_refusal_after_doubt_is_doubt(tape: KafkaTape) -> None:
    """The first attempt may have been placed, whatever is said to the second."""
    await tape.append(0, [b"before"], START)
    said = iter([codes.NOT_LEADER, 29])

    async def sent(lane: int, batch: bytes, until: float) -> tuple[int, int]:
        return next(said), -1

    tape.producer._sent = sent  # type: ignore[method-assign]
    with pytest.raises(Indefinite):
        await tape.append(0, [b"doubtful"], START)


async def test_a_refusal_at_once_says_what_to_do(tape: KafkaTape) -> None:
    await tape.append(0, [b"before"], START)
    answered(tape, 29, 1, placed=False)
    with pytest.raises(StoreError, match=r"grant READ, WRITE and DESCRIBE with kafka-acls\.sh") as caught:
        await tape.append(0, [b"never"], START)
    assert not isinstance(caught.value, Indefinite)


async def test_whoever_is_cancelled_leaves_the_tape_usable(tape: KafkaTape) -> None:
    await tape.append(0, [b"before"], START)
    appending = asyncio.create_task(tape.append(0, [b"cancelled"], START))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    appending.cancel()
    await asyncio.gather(appending, return_exceptions=True)
    await tape.append(0, [b"after"], START)
    raws = [entry.raw for entry in await all_entries(tape)]
    assert [raw for raw in raws if raw != b"cancelled"] == [b"before", b"after"]


async def test_the_largest_records_and_more_than_a_batch_holds(tape: KafkaTape) -> None:
    largest = [bytes([n]) * MAX_RECORD for n in range(3)]
    many = [n.to_bytes(4) * 2_000 for n in range(400)]
    await tape.append(0, largest + many, START)
    assert [entry.raw for entry in await all_entries(tape)] == largest + many


# Several batches

BURST = [n.to_bytes(2) * (MAX_BATCH // 8) for n in range(14)]
"""Records of which a batch takes three: five batches."""


async def batches(tape: KafkaTape, lane: int = 0) -> list[tuple[int, int]]:
    """How many records each batch of a lane holds, and how many bytes it has, as they lie in the topic."""
    found, offset = list[tuple[int, int]](), 0
    while True:
        node = await tape.client.leader(lane, asyncio.get_running_loop().time() + 5)
        raw = (await tape.reader.fetching.ask(node, {lane: offset}, 1 << 20, 0, "test"))[lane].raw
        if not raw:
            return found
        at = 0
        while at < len(raw) and at + 12 + (size := int.from_bytes(raw[at + 8 : at + 12])) <= len(raw):
            count = int.from_bytes(raw[at + 23 : at + 27]) + 1
            found.append((count, 12 + size))
            at, offset = at + 12 + size, offset + count


async def test_a_burst_lies_in_batches_of_bounded_size(log: Log, site: Site) -> None:
    """Whoever wants one record of a stream gets the whole batch in which it lies."""
    writers = [await Issuer(log).writer(f"note/{n}") for n in range(40)]
    await asyncio.gather(*(log.append(writer, notes("x" * 8_000), expected=0) for writer in writers))
    lying = await batches(of(log))
    assert sum(size for _, size in lying) > 4 * MAX_BATCH
    assert all(size <= MAX_BATCH for count, size in lying if count > 1)
    assert max(count for count, size in lying if size > MAX_BATCH // 2) > 1
    fresh = await site.open("fresh.db")
    assert [len((await truth_of(fresh)).data(f"note/{n}")) for n in range(40)] == [1] * 40


async def test_a_commit_that_is_larger_than_a_batch_has_one_of_its_own(tape: KafkaTape) -> None:
    records = [b"small", bytes(MAX_BATCH + 1), b"small too"]
    await tape.append(0, records, START)
    assert [count for count, _ in await batches(tape)] == [1, 1, 1]
    assert [entry.raw for entry in await all_entries(tape)] == records


@pytest.mark.parametrize("code", sorted(codes.AGAIN))
@pytest.mark.parametrize("after", [0, 1, 3])
@pytest.mark.parametrize("placed", [True, False], ids=["placed", "not placed"])
async def test_one_batch_of_several_is_sent_again(tape: KafkaTape, code: int, after: int, placed: bool) -> None:
    """With the same numbers, and the others only after it."""
    await tape.append(0, [b"before"], START)
    answered(tape, code, 1, placed=placed, after=after)
    await tape.append(0, BURST, START)
    assert tape.producer.made == 1
    assert [entry.raw for entry in await all_entries(tape)] == [b"before", *BURST]


@pytest.mark.parametrize("harm", [answer_lost, request_lost])
async def test_one_answer_of_several_that_does_not_come_is_indefinite(tape: KafkaTape, harm: Harm) -> None:
    await tape.append(0, [b"before"], START)
    harm(tape, 1)
    with pytest.raises(Indefinite):
        await tape.append(0, BURST, START)
    await tape.append(0, [b"after"], START)
    assert tape.producer.made == 2
    raws = [entry.raw for entry in await all_entries(tape)]
    assert (raws[0], raws[-1]) == (b"before", b"after")
    assert raws[1:-1] == (BURST[:3] if harm is answer_lost else [])


async def test_several_batches_whose_numbers_were_lost(tape: KafkaTape) -> None:
    await tape.append(0, [b"one"], START)
    assert tape.producer._producer
    tape.producer._producer.numbers[0] = 1_000
    await tape.append(0, BURST, START)
    assert tape.producer.made == 2
    assert [entry.raw for entry in await all_entries(tape)] == [b"one", *BURST]


@pytest.mark.parametrize("after", [0, 2])
async def test_a_refusal_of_one_of_several_is_doubt_if_others_stand(tape: KafkaTape, after: int) -> None:
    await tape.append(0, [b"before"], START)
    answered(tape, 29, 1, placed=False, after=after)
    with pytest.raises(StoreError) as caught:
        await tape.append(0, BURST, START)
    assert isinstance(caught.value, Indefinite) == (after > 0)
    assert [entry.raw for entry in await all_entries(tape)] == [b"before", *BURST[: after * 3]]


async def test_large_batches_of_before_are_read_as_ever(topic: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(kafka_batch, "MAX_BATCH", 1_000_000)
        await topic().append(0, BURST, START)
    tape = topic()
    await tape.append(0, BURST[::-1], START)
    assert (await batches(tape))[0][0] == len(BURST)
    found = await all_entries(tape)
    assert [entry.raw for entry in found] == [*BURST, *BURST[::-1]]
    wanted = found[1::4]
    assert await topic().fetch(0, [entry.place for entry in wanted]) == wanted
