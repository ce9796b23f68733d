"""The contract of a tape. A backend adds a class with one fixture; what it guarantees shows in which suites it is."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from agent_party.cluster.shard_serving import Shard
from agent_party.cluster.shard_tape import ShardTape
from agent_party.eventstore.backends.memory import MemoryTape, UnconditionalMemoryTape
from agent_party.eventstore.backends.sqlite import SqliteTape
from agent_party.eventstore.errors import LogRolledBack, WrongLogError
from agent_party.eventstore.tape import START, Entry, Tape
from agent_party.eventstore.verify import Identity, identity
from tests.eventstore_kit import all_entries
from tests.kafka_kit import Place
from tests.shard_kit import MemorySource, Way

Open = Callable[[], Tape]
RAWS = [bytes([n]) * (n + 1) for n in range(20)]


def some_log(number: int = 1) -> Identity:
    return identity(bytes([number]) * 32, 16, bytes(32))


class TapeContract:
    """What every tape does, with or without conditions on its appends."""

    @pytest.fixture
    def open_tape(self, tmp_path: Path) -> Open:
        """Opens the same tape, as often as it is called: each time as another process would."""
        raise NotImplementedError

    @pytest.fixture
    def tape(self, open_tape: Open) -> Tape:
        return open_tape()

    async def test_a_new_store_holds_no_log(self, tape: Tape) -> None:
        assert await tape.identity() is None

    async def test_founding_is_remembered(self, open_tape: Open) -> None:
        await open_tape().found(some_log())
        assert await open_tape().identity() == some_log()

    @pytest.mark.parametrize("second", [1, 2], ids=["the same log", "another log"])
    async def test_a_store_is_founded_once(self, open_tape: Open, second: int) -> None:
        await open_tape().found(some_log())
        with pytest.raises(WrongLogError):
            await open_tape().found(some_log(second))
        assert await open_tape().identity() == some_log()

    async def test_two_founders_at_once_make_one_log(self, open_tape: Open) -> None:
        tapes = [open_tape() for _ in range(4)]
        said = await asyncio.gather(*(t.found(some_log(n)) for n, t in enumerate(tapes)), return_exceptions=True)
        assert sorted(type(answer).__name__ for answer in said) == ["NoneType"] + ["WrongLogError"] * 3
        assert await tapes[0].identity() == some_log(said.index(None))

    async def test_what_was_appended_is_read_in_order_with_growing_places(self, open_tape: Open) -> None:
        writer, after = open_tape(), START
        for raw in RAWS:
            await writer.append(0, [raw], after)
            (after,) = await writer.read(0, after.place, 10)
        entries = await all_entries(open_tape())
        assert [entry.raw for entry in entries] == RAWS
        assert [entry.place for entry in entries] == sorted({entry.place for entry in entries})
        assert entries[0].place > 0

    async def test_a_group_stands_in_its_order(self, tape: Tape) -> None:
        await tape.append(0, RAWS, START)
        assert [entry.raw for entry in await tape.read(0, 0, 100)] == RAWS

    async def test_reading_is_by_pieces(self, tape: Tape) -> None:
        await tape.append(0, RAWS, START)
        first = await tape.read(0, 0, 7)
        rest = await tape.read(0, first[-1].place, 100)
        assert [entry.raw for entry in first + rest] == RAWS
        assert len(first) == 7
        assert await tape.read(0, rest[-1].place, 100) == []

    async def test_records_are_fetched_in_the_order_asked(self, tape: Tape) -> None:
        await tape.append(0, RAWS, START)
        entries = await tape.read(0, 0, 100)
        asked = [entries[n] for n in (5, 0, 19, 5)]
        assert await tape.fetch(0, [entry.place for entry in asked]) == asked
        assert await tape.fetch(0, []) == []

    async def test_a_place_that_is_not_there_is_a_rollback(self, tape: Tape) -> None:
        await tape.append(0, RAWS[:3], START)
        last = (await tape.read(0, 0, 100))[-1].place
        with pytest.raises(LogRolledBack):
            await tape.fetch(0, [1, last + 1])

    @pytest.mark.parametrize("seen", [Entry(3, b"not what stands there"), Entry(99, b"beyond the end")])
    async def test_a_writer_whose_prefix_is_gone_is_told(self, tape: Tape, seen: Entry) -> None:
        await tape.append(0, RAWS[:5], START)
        with pytest.raises(LogRolledBack):
            await tape.append(0, [b"new"], seen)
        assert len(await tape.read(0, 0, 100)) == 5

    async def test_waiting_ends_soon_after_something_new(self, open_tape: Open) -> None:
        reader, writer = open_tape(), open_tape()
        waiting = [asyncio.create_task(reader.wait(0, 0, 600)) for _ in range(3)]
        await asyncio.sleep(0)
        await writer.append(0, [b"new"], START)
        async with asyncio.timeout(60):
            await asyncio.gather(*waiting)

    async def test_waiting_does_not_wait_for_what_is_there(self, tape: Tape) -> None:
        await tape.append(0, [b"new"], START)
        async with asyncio.timeout(60):
            await tape.wait(0, 0, 600)

    async def test_waiting_ends_with_its_time(self, tape: Tape) -> None:
        async with asyncio.timeout(60):
            await tape.wait(0, 0, 0.01)


class ConditionalTapeContract:
    """What a tape does that accepts an append only behind what its writer has read."""

    @pytest.fixture
    def tape(self, open_tape: Open) -> Tape:
        return open_tape()

    async def test_it_says_so(self, tape: Tape) -> None:
        assert tape.conditional

    async def test_placed_means_there_for_good_and_where(self, open_tape: Open) -> None:
        attempt = await open_tape().append(0, RAWS, START)
        assert attempt.placed
        assert attempt.entries == await all_entries(open_tape())

    async def test_refused_means_nothing_written_and_shows_what_lies_between(self, open_tape: Open) -> None:
        first, second = open_tape(), open_tape()
        await first.append(0, RAWS[:3], START)
        attempt = await second.append(0, [b"mine"], START)
        assert not attempt.placed
        assert attempt.entries == await all_entries(first)
        assert b"mine" not in {entry.raw for entry in attempt.entries}
        assert (await second.append(0, [b"mine"], attempt.entries[-1])).placed

    async def test_of_many_at_once_one_is_placed(self, open_tape: Open) -> None:
        tapes = [open_tape() for _ in range(6)]
        said = await asyncio.gather(*(t.append(0, [bytes([n])], START) for n, t in enumerate(tapes)))
        assert sum(attempt.placed for attempt in said) == 1
        assert len(await all_entries(tapes[0])) == 1

    async def test_appends_of_many_writers_lose_nothing(self, open_tape: Open) -> None:
        async def write(tape: Tape, name: int) -> None:
            after = START
            for number in range(10):
                while not (attempt := await tape.append(0, [bytes([name, number])], after)).placed:
                    after = attempt.entries[-1]
                after = attempt.entries[-1]

        await asyncio.gather(*(write(open_tape(), name) for name in range(4)))
        raws = [entry.raw for entry in await all_entries(open_tape())]
        assert sorted(raws) == [bytes([name, number]) for name in range(4) for number in range(10)]


class UnconditionalTapeContract:
    """What a tape may do that answers before it knows: a returned append acknowledges nothing."""

    @pytest.fixture
    def tape(self, open_tape: Open) -> Tape:
        return open_tape()

    async def test_it_says_so(self, tape: Tape) -> None:
        assert not tape.conditional

    async def test_an_append_tells_no_places(self, tape: Tape) -> None:
        attempt = await tape.append(0, RAWS, START)
        assert attempt.placed
        assert attempt.entries == []

    async def test_who_has_not_read_everything_may_append(self, tape: Tape) -> None:
        await tape.append(0, [b"theirs"], START)
        await tape.append(0, [b"mine"], START)
        assert [entry.raw for entry in await tape.read(0, 0, 10)] == [b"theirs", b"mine"]


class TestMemoryTape(TapeContract, ConditionalTapeContract):
    @pytest.fixture
    def open_tape(self, tmp_path: Path) -> Open:
        tape = MemoryTape()
        return lambda: tape


class TestUnconditionalMemoryTape(TapeContract, UnconditionalTapeContract):
    @pytest.fixture
    def open_tape(self, tmp_path: Path) -> Open:
        tape = UnconditionalMemoryTape()
        return lambda: tape


class TestSqliteTape(TapeContract, ConditionalTapeContract):
    @pytest.fixture
    def open_tape(self, tmp_path: Path, opened: list[SqliteTape]) -> Open:
        def open_it() -> Tape:
            opened.append(SqliteTape(tmp_path / "party" / "log.db"))
            return opened[-1]

        return open_it

    @pytest.fixture
    async def opened(self) -> AsyncIterator[list[SqliteTape]]:
        opened: list[SqliteTape] = []
        yield opened
        for tape in opened:
            await tape.close()


class TestKafkaTape(TapeContract, UnconditionalTapeContract):
    @pytest.fixture
    def open_tape(self, topic: Place) -> Open:
        return topic


class TestTapeByOneShardLog(TapeContract, UnconditionalTapeContract):
    """Several hosts share one."""

    @pytest.fixture
    def open_tape(self, tmp_path: Path) -> Open:
        way = Way(Shard(MemorySource()))
        return lambda: ShardTape([way])


class TestTapeByManyShardLogs(TapeContract, UnconditionalTapeContract):
    """Each host has another one of the same lanes."""

    @pytest.fixture
    def open_tape(self, tmp_path: Path) -> Open:
        tape = UnconditionalMemoryTape()
        return lambda: ShardTape([Way(Shard(MemorySource(tape)))])
