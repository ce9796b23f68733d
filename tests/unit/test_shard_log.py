"""Shard logs without Ray and Kafka: what goes together, what is told, and what a host makes of silence."""

import asyncio
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from agent_party.cluster import shard_lane, shard_serving, shard_tape
from agent_party.cluster.shard_serving import Shard
from agent_party.cluster.shard_tape import ShardTape
from agent_party.cluster.shard_wire import Append, Ask, Failed, Identify, Later, asked, packed, said
from agent_party.eventstore import appending
from agent_party.eventstore.backends.memory import UnconditionalMemoryTape
from agent_party.eventstore.errors import (
    LogMovedError,
    LogRolledBack,
    StoreBusyError,
    StoreError,
    StoreReadOnlyError,
    WrongLogError,
)
from agent_party.eventstore.tape import START, Entry, Indefinite, Seen
from tests.eventstore_kit import Site, all_entries, until
from tests.faults.sharing import Hosts
from tests.shard_kit import MemorySource, Way


class Lanes(MemorySource):
    """Several lanes, each a tape in memory; what goes to the lanes of ``held`` waits."""

    def __init__(self, lanes: int) -> None:
        super().__init__()
        self.lanes = lanes
        self.tapes = [UnconditionalMemoryTape() for _ in range(lanes)]
        self.held: dict[int, asyncio.Event] = {}
        self.waiting: set[int] = set()

    async def send(self, lane: int, records: Sequence[bytes], after: int) -> int:
        if lane in self.held:
            self.waiting.add(lane)
            await self.held[lane].wait()
        self.sent.append(len(records))
        await self.tapes[lane].append(0, records, START)
        return len(self.tapes[lane].records)

    async def read_behind(self, lane: int, seen: Seen, limit: int) -> tuple[list[Entry], Seen]:
        entries = await self.tapes[lane].read(0, seen.place, limit)
        return entries, Seen.of(entries[-1]) if entries else seen


async def seen_by(tape: ShardTape, lane: int = 0) -> list[bytes]:
    return [entry.raw for entry in await all_entries(tape, lane)]


async def test_appends_of_one_turn_go_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_serving, "PROMPT", 60.0)  # it is answered in one answer, however slow the machine is
    way = Way(Shard(Lanes(8)))
    tape = ShardTape([way])
    await tape.identity()
    before = way.messages
    await asyncio.gather(*(tape.append(lane, [bytes([lane])], START) for lane in range(8)))
    assert way.messages == before + 1
    assert [await seen_by(tape, lane) for lane in range(8)] == [[bytes([lane])] for lane in range(8)]


async def test_whoever_waits_is_not_sent_again_what_it_has_just_written() -> None:
    shard = Shard(MemorySource())
    tape, other = ShardTape([Way(shard)]), ShardTape([Way(shard)])
    assert await tape.read(0, 0, 10) == await other.read(0, 0, 10) == []
    messages: list[bytes] = []
    answer = shard.answer

    async def listening(message: bytes) -> bytes:
        messages.append(await answer(message))
        return messages[-1]

    shard.answer = listening  # type: ignore[method-assign]
    waiting = [asyncio.create_task(one.wait(0, 0, 600)) for one in (tape, other)]
    await until(lambda: bool(shard._lanes[0]._waiting), "they wait")
    await tape.append(0, [b"payload"], START)
    await asyncio.wait_for(asyncio.gather(*waiting), 60)
    assert [entry.raw for entry in await tape.read(0, 0, 10) + await other.read(0, 0, 10)] == [b"payload"] * 2
    assert sum(message.count(b"payload") for message in messages) == 2, "once to each"


async def test_a_wait_does_not_hold_up_what_is_asked_beside_it() -> None:
    source = MemorySource()
    tape = ShardTape([Way(Shard(source))])
    assert await tape.read(0, 0, 10) == []
    waiting = asyncio.create_task(tape.wait(0, 0, 600))
    await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.wait_for(tape.fetch(0, [1]) if source.tape.records else tape.append(0, [b"x"], START), 60)
    await asyncio.wait_for(waiting, 60)


async def test_what_was_sent_needs_no_second_call_to_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_serving, "PROMPT", 60.0)
    way = Way(Shard(MemorySource()))
    tape = ShardTape([way])
    assert await tape.read(0, 0, 10) == []
    before = way.messages
    await tape.append(0, [b"one"], START)
    assert [entry.raw for entry in await tape.read(0, 0, 10)] == [b"one"]
    assert way.messages == before + 1


async def test_appends_of_several_hosts_are_sent_together() -> None:
    source = Lanes(1)
    shard, source.held[0] = Shard(source), asyncio.Event()
    hosts = [ShardTape([Way(shard)]) for _ in range(5)]
    first = asyncio.create_task(hosts[0].append(0, [b"0"], START))
    await until(lambda: 0 in source.waiting, "the first is sent")
    others = [asyncio.create_task(host.append(0, [bytes([n])], START)) for n, host in enumerate(hosts[1:], 1)]
    await until(lambda: len(shard._lanes[0]._queue) == 4, "four wait behind the first")
    source.held[0].set()
    await asyncio.gather(first, *others)
    assert source.sent == [1, 4]


async def test_a_lane_that_hangs_holds_up_no_other() -> None:
    source = Lanes(2)
    source.held[1] = asyncio.Event()
    tape = ShardTape([Way(Shard(source))])
    await tape.identity()
    hanging = asyncio.create_task(tape.append(1, [b"hangs"], START))
    for number in range(10):
        await asyncio.wait_for(tape.append(0, [bytes([number])], START), 60)
    assert not hanging.done()
    source.held[1].set()
    assert (await asyncio.wait_for(hanging, 60)).placed
    assert len(await seen_by(tape)) == 10


async def test_an_answer_that_is_lost_makes_an_append_unknown_and_reading_tells() -> None:
    shard = Shard(MemorySource())
    tape = ShardTape([Way(shard, lambda number: "back" if number == 1 else "pass")])
    with pytest.raises(Indefinite):
        await tape.append(0, [b"stands"], START)
    assert await seen_by(tape) == [b"stands"]


async def test_a_silent_one_makes_an_append_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_tape, "DEADLINE", 0.05)
    tape = ShardTape([Way(Shard(MemorySource()), lambda number: "hang")])
    with pytest.raises(Indefinite):
        await tape.append(0, [b"x"], START)


async def test_what_never_left_was_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_tape, "DEADLINE", 0.05)
    monkeypatch.setattr(shard_tape, "CALLS", 1)
    tape = ShardTape([Way(Shard(MemorySource()), lambda number: "hang")])
    first = asyncio.create_task(tape.append(0, [b"x"], START))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    with pytest.raises(StoreBusyError, match="nothing of this was written"):
        await tape.append(1, [b"y"], START)
    with pytest.raises(Indefinite):
        await first


async def test_who_was_not_reached_has_written_nothing() -> None:
    tape = ShardTape([Way(Shard(MemorySource()), lambda number: "reached")])
    with pytest.raises(StoreBusyError, match="nothing of this was written"):
        await tape.append(0, [b"x"], START)


async def test_who_is_not_reached_any_more_may_have_written() -> None:
    source = Lanes(1)
    source.held[0] = asyncio.Event()
    tape = ShardTape([Way(Shard(source), lambda number: "pass" if number == 1 else "reached")])
    with pytest.raises(Indefinite):
        await tape.append(0, [b"x"], START)


async def test_reading_is_asked_for_again() -> None:
    source = MemorySource()
    await source.tape.append(0, [b"one"], START)
    tape = ShardTape([Way(Shard(source), lambda number: "lose" if number < 4 else "pass")])
    assert await seen_by(tape) == [b"one"]


async def test_reading_ends_when_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_tape, "PATIENCE", 0.1)
    tape = ShardTape([Way(Shard(MemorySource()), lambda number: "lose")])
    with pytest.raises(StoreBusyError, match="no shard log answered"):
        await tape.read(0, 0, 1)


class Slow(MemorySource):
    """Its reading takes until it is let go; what it found, it found before."""

    def __init__(self) -> None:
        super().__init__()
        self.go, self.reading = asyncio.Event(), 0

    async def read_behind(self, lane: int, seen: Seen, limit: int) -> tuple[list[Entry], Seen]:
        found = await super().read_behind(lane, seen, limit)
        self.reading += 1
        await self.go.wait()
        return found


async def test_the_end_is_asked_for_after_the_question_came() -> None:
    source = Slow()
    shard = Shard(source)
    early, late = ShardTape([Way(shard)]), ShardTape([Way(shard)])
    first = asyncio.create_task(early.read(0, 0, 10))
    await until(lambda: source.reading == 1, "the first reads")
    await source.tape.append(0, [b"by another way"], START)
    second = asyncio.create_task(late.read(0, 0, 10))
    await until(lambda: len(shard._calls) == 2, "the second has asked")
    source.go.set()
    assert await first == []
    assert [entry.raw for entry in await second] == [b"by another way"]


async def test_many_that_ask_for_the_end_at_once_are_answered_by_few_readings() -> None:
    source = MemorySource()
    shard = Shard(source)
    hosts = [ShardTape([Way(shard)]) for _ in range(20)]
    assert await asyncio.gather(*(host.read(0, 0, 10) for host in hosts)) == [[]] * 20
    assert source.asked.count("read") <= 3


@pytest.mark.parametrize("place", [1, 2])
async def test_who_has_read_something_else_is_told(place: int) -> None:
    source = MemorySource()
    shard = Shard(source)
    other = ShardTape([Way(shard)])
    await other.append(0, [b"one", b"two", b"three"], START)
    await other.read(0, 0, 10)
    tape = ShardTape([Way(shard)])
    with pytest.raises(LogRolledBack):
        await tape.append(0, [b"new"], Entry(place, b"something else"))
    assert len(source.tape.records) == 3


async def test_where_one_came_to_is_told_to_the_next_shard_log(monkeypatch: pytest.MonkeyPatch) -> None:
    source, told = MemorySource(), list[Seen]()
    read = source.read_behind

    async def listening(lane: int, seen: Seen, limit: int) -> tuple[list[Entry], Seen]:
        told.append(seen)
        return await read(lane, seen, limit)

    monkeypatch.setattr(source, "read_behind", listening)
    way = Way(Shard(source))
    tape = ShardTape([way])
    await tape.append(0, [b"one", b"two"], START)
    entries = await tape.read(0, 0, 10)
    way.shard = Shard(source)
    assert await tape.read(0, entries[-1].place, 10) == []
    assert told[-1] == Seen(2, Seen.of(entries[-1]).digest, 7), "the epoch too, as its store told it"


async def test_a_call_is_not_known_to_the_next_shard_log() -> None:
    source = Lanes(1)
    source.held[0] = asyncio.Event()
    way = Way(Shard(source))
    tape = ShardTape([way])
    waiting = asyncio.create_task(tape.append(0, [b"x"], START))
    await until(lambda: 0 in source.waiting, "it is sent")
    way.shard = Shard(Lanes(1))
    with pytest.raises(Indefinite, match="another shard log took over"):
        await waiting


async def test_what_is_kept_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_lane, "KEPT", 1_000)
    monkeypatch.setattr(shard_lane, "GROUP", 500)
    source = MemorySource()
    shard = Shard(source)
    tape, raws = ShardTape([Way(shard)]), [bytes([n]) * 100 for n in range(100)]
    after = START
    for raw in raws:
        await tape.append(0, [raw], after)
        (after,) = await tape.read(0, after.place, 10)
        assert shard._lanes[0]._bytes <= 1_000
    assert shard._lanes[0]._before > 80
    assert await seen_by(ShardTape([Way(shard)])) == raws, "what is kept no more is read from the store"
    assert await seen_by(ShardTape([Way(shard)])) == raws


async def test_too_much_in_hand_is_refused_and_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_serving, "_LOAD", 1_000)
    source = Lanes(2)
    source.held[0] = asyncio.Event()
    tape = ShardTape([Way(Shard(source))])
    await tape.identity()
    first = asyncio.create_task(tape.append(0, [bytes(900)], START))
    await until(lambda: 0 in source.waiting, "the first is sent")
    with pytest.raises(StoreBusyError, match="nothing of this was written"):
        await tape.append(1, [bytes(200)], START)
    source.held[0].set()
    await first
    assert source.sent == [1]
    assert (await tape.append(1, [bytes(200)], START)).placed


async def test_calls_that_nobody_asks_after_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_serving, "_FORGET", 0.1)
    source = Lanes(1)
    source.held[0] = asyncio.Event()
    shard = Shard(source)
    assert said(await shard.answer(packed(Ask(b"gone", 1, [Append(0, [b"x"], Seen(0))])))).more
    await until(lambda: not shard._calls, "it is forgotten")
    assert not said(await shard.answer(packed(Later(b"gone", 1)))).known
    source.held[0].set()
    await until(lambda: source.sent == [1], "what was begun is done all the same")
    await shard.close()


@pytest.mark.parametrize(
    "error",
    [
        LogRolledBack("gone"),
        LogMovedError("here", "there"),
        WrongLogError("another"),
        StoreReadOnlyError("may not"),
        StoreBusyError("busy"),
        StoreError("failed"),
        Indefinite("who knows"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_errors_arrive_as_they_were(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    async def raising(lane: int, records: Sequence[bytes], after: int) -> int:
        raise error

    source = MemorySource()
    monkeypatch.setattr(source, "send", raising)
    tape = ShardTape([Way(Shard(source))])
    with pytest.raises(type(error)) as raised:
        await tape.append(0, [b"x"], START)
    assert type(raised.value) is type(error)
    assert str(raised.value) == str(error)


async def test_an_error_that_is_not_ours_says_nothing_of_what_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    async def raising(lane: int, records: Sequence[bytes], after: int) -> int:
        raise RuntimeError("a bug")

    source = MemorySource()
    monkeypatch.setattr(source, "send", raising)
    with pytest.raises(Indefinite, match="RuntimeError: a bug"):
        await ShardTape([Way(Shard(source))]).append(0, [b"x"], START)


async def test_a_lane_that_there_is_not() -> None:
    with pytest.raises(StoreError, match="lane 7"):
        await ShardTape([Way(Shard(MemorySource()))]).read(7, 0, 1)


async def test_bytes_that_are_no_message() -> None:
    shard = Shard(MemorySource())
    for message in (b"", b"\xff", b"\x90", packed(said(await shard.answer(packed(Ask(b"a", 1, [Identify()])))))):
        with pytest.raises(StoreError, match="does not know"):
            await shard.answer(message)
    with pytest.raises(StoreError, match="not known here"):
        said(b"\x90")
    assert isinstance(asked(packed(Later(b"a", 1))), Later)
    assert type(Failed("NoSuchError", ["?"]).raised()) is Indefinite


def losing(order: random.Random, on: list[bool]) -> Callable[[int], str]:
    """One message of twelve is lost on its way there, and one on its way back, as soon as it is on."""
    return lambda number: order.choices(["pass", "lose", "back"], [10, 1, 1])[0] if on else "pass"


@pytest.mark.parametrize("seed", range(3))
async def test_hosts_over_two_shard_logs_and_ways_that_lose(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two shard logs for the same lane, each host asks either, and any message or answer may be lost."""
    monkeypatch.setattr(appending, "PATIENCE", 0.02)
    order, tape, on = random.Random(seed), UnconditionalMemoryTape(), list[bool]()
    shards = [Shard(MemorySource(tape)) for _ in range(2)]

    def opened() -> ShardTape:
        return ShardTape([Either([Way(shard, losing(order, on)) for shard in shards], order)])

    async with Hosts(Site(tmp_path, "unconditional", opened), order, count=3, streams=8, at_once=4) as hosts:
        on.append(True)
        await hosts.get_on(40)
    assert hosts.found == []
    assert hosts.counts["landed too late"] > 0, hosts.counts


class Either:
    """Asks one of two."""

    def __init__(self, ways: list[Way], order: random.Random) -> None:
        self.ways, self.order = ways, order

    async def ask(self, message: bytes) -> bytes:
        return await self.order.choice(self.ways).ask(message)
