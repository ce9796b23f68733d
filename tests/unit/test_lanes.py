"""Slices that go from one lane to another: nothing is lost, doubled or out of order, however far who has read where."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent_party.eventstore.audit import verify_log
from agent_party.eventstore.backends.index_file import IndexFile
from agent_party.eventstore.backends.memory import UnconditionalMemoryTape
from agent_party.eventstore.commit import Draft, control
from agent_party.eventstore.errors import EventStoreError, StoreBusyError
from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.index import Held, Index
from agent_party.eventstore.log import Log, Writer
from agent_party.eventstore.tape import Attempt, Entry
from agent_party.eventstore.verify import ZERO, Identity, slice_of
from tests.eventstore_kit import Site, notes, until

LANES = 4
NAMES = [f"note/n{number}" for number in range(12)]


class LanesTape(UnconditionalMemoryTape):
    """The unconditional twin with several lanes."""

    lanes = LANES

    def __init__(self) -> None:
        super().__init__()
        self.each = [UnconditionalMemoryTape() for _ in range(LANES)]

    async def append(self, lane: int, records: Sequence[bytes], after: Entry) -> Attempt:
        return await self.each[lane].append(0, records, after)

    async def read(self, lane: int, after: int, limit: int) -> list[Entry]:
        return await self.each[lane].read(0, after, limit)

    async def fetch(self, lane: int, places: Sequence[int]) -> list[Entry]:
        return await self.each[lane].fetch(0, places)

    async def wait(self, lane: int, after: int, timeout: float) -> None:
        await self.each[lane].wait(0, after, timeout)


@pytest.fixture
def tape() -> LanesTape:
    return LanesTape()


@pytest.fixture
async def site(tmp_path: Path, tape: LanesTape) -> AsyncIterator[Site]:
    site = Site(tmp_path, "unconditional")
    site.memory = tape
    yield site
    await site.close()


async def texts(log: Log, stream: str) -> list[str]:
    return [event.text async for commit in log.read(stream) for event in commit.events]


def number_of(log: Log, stream: str) -> int:
    return slice_of(log.identity, stream.encode())


def other_lane(log: Log, number: int) -> int:
    return (log.index.lane_of(number) + 1) % LANES


def roots(index: Index) -> dict[int, tuple[int, bytes]]:
    return {number: (tree.size, tree.root()) for number, (_, tree) in index.parts.items()}


async def write(log: Log, writer: Writer, count: int) -> None:
    await log.refresh()
    revision = (await log.state(writer.stream)).revision
    for number in range(revision, revision + count):
        await log.append(writer, notes(f"{number}"), expected=number)


async def test_a_slice_goes_on_in_another_lane(site: Site, tape: LanesTape) -> None:
    log = await site.open()
    writer = await Issuer(log).writer("note/a")
    await write(log, writer, 2)
    number = number_of(log, "note/a")
    target = other_lane(log, number)
    before = len(tape.each[target].records)
    await Issuer(log).move(number, target)
    await write(log, writer, 3)
    assert log.index.lane_of(number) == target
    assert len(tape.each[target].records) == before + 4, "the opening and three commits"
    assert await texts(log, "note/a") == ["0", "1", "2", "3", "4"]
    await Issuer(log).move(number, target)
    assert len(tape.each[target].records) == before + 4, "it is there already"


async def test_writers_of_two_processes_go_on_while_slices_move(site: Site) -> None:
    one, two = await site.open("one.db"), await site.open("two.db")
    writers = [await Issuer(one).writer(name) for name in NAMES]
    moved = {number_of(one, name) for name in NAMES}

    async def moving() -> None:
        for _ in range(3):
            for number in sorted(moved):
                await Issuer(two).move(number, other_lane(two, number))

    logs = [one, two]
    async with asyncio.timeout(120):
        await asyncio.gather(moving(), *(write(logs[n % 2], writer, 30) for n, writer in enumerate(writers)))
    await asyncio.gather(one.refresh(), two.refresh())
    for log in (one, two, await site.open("three.db")):
        assert [await texts(log, name) for name in NAMES] == [[str(n) for n in range(30)]] * len(NAMES)
        assert roots(log.index) == roots(one.index)
        assert (await verify_log(log)).ok
    assert not one.index.findings["gap"]


async def test_processes_with_one_index_follow_a_move(site: Site) -> None:
    one, two = await site.open(), await site.open()
    writer = await Issuer(one).writer("note/a")
    await write(one, writer, 3)
    number = number_of(one, "note/a")
    for _ in range(3):
        await Issuer(one).move(number, other_lane(one, number))
        await write(one, writer, 2)
        one.index.flush()
        await write(two, writer, 2)
    await one.refresh()
    assert await texts(one, "note/a") == [str(n) for n in range(15)]
    assert roots(one.index) == roots(two.index)


async def test_who_adopts_anothers_reading_of_a_moved_slice_reads_nothing_twice(site: Site) -> None:
    one, two = await site.open(), await site.open()
    writer = await Issuer(one).writer("note/a")
    number = number_of(one, "note/a")
    await Issuer(one).move(number, other_lane(one, number))
    await write(one, writer, 5)
    one.index.flush()
    assert (await two.state("note/a")).revision == 5, "known from the index, not by reading"
    await two.refresh()
    assert two.index.findings.total() == 0
    assert roots(two.index) == roots(one.index)


class Blindable(LanesTape):
    """Somebody's view of a tape, who sees nothing new for a while."""

    def __init__(self, tape: LanesTape) -> None:
        super().__init__()
        self._real, self.each, self.blind = tape, tape.each, False

    async def identity(self) -> Identity | None:
        return await self._real.identity()

    async def read(self, lane: int, after: int, limit: int) -> list[Entry]:
        await asyncio.sleep(0)
        return [] if self.blind else await super().read(lane, after, limit)

    async def wait(self, lane: int, after: int, timeout: float) -> None:
        await asyncio.sleep(min(timeout, 0.01))


async def test_what_was_accepted_before_the_slice_moved_is_acknowledged(site: Site, tape: LanesTape) -> None:
    """Though it was read without being known as one's own, because another slice's opening stood before it."""
    one, seen = await site.open("one.db"), Blindable(tape)
    writer = await Issuer(one).writer("note/a")
    two = await site.open("two.db", tape=seen)
    number = number_of(one, "note/a")
    lane = one.index.lane_of(number)
    other = next(n for n in range(16) if one.index.lane_of(n) not in (lane, other_lane(one, number)))
    lost: list[bytes] = []

    def fate(raw: bytes) -> str:
        lost.append(raw)
        return "never?"

    seen.blind, tape.each[lane].fate = True, fate
    appending = asyncio.create_task(two.append(writer, notes("mine"), expected=0))
    await until(lambda: bool(lost), "it was sent")
    tape.each[lane].fate = lambda raw: "now"
    await Issuer(one).move(other, lane)
    tape.each[lane]._place(lost[:1])
    await Issuer(one).move(number, other_lane(one, number))
    seen.blind = False
    assert (await appending).revision == 1
    assert await texts(two, "note/a") == ["mine"]


async def test_what_lands_behind_the_seal_is_not_accepted(site: Site, tape: LanesTape) -> None:
    log, late = await site.open("one.db"), await site.open("two.db")
    writer = await Issuer(log).writer("note/a")
    await late.refresh()
    number = number_of(log, "note/a")
    lane = log.index.lane_of(number)
    held = tape.each[lane]
    held.fate = lambda raw: "late?"
    appending = asyncio.create_task(late.append(writer, notes("late"), expected=0))
    await until(lambda: bool(held.late), "it was sent")
    held.fate = lambda raw: "now"
    (raw,), held.late = held.late, []
    await Issuer(log).move(number, other_lane(log, number))
    held._place([raw])  # the broker lets it land behind the seal
    await appending
    await log.refresh()
    assert await texts(log, "note/a") == ["late"], "sent again where the slice goes on, and accepted once"
    assert log.index.findings["elsewhere"] >= 1, "once more if it was sent again on the way"


async def test_a_mover_that_dies_holds_nobody_up_for_long(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    log = await site.open("one.db")
    writer = await Issuer(log).writer("note/a")
    number = number_of(log, "note/a")
    with monkeypatch.context() as dead:
        dead.setattr(Issuer, "open", lambda *_: asyncio.sleep(0))
        await Issuer(log).move(number, other_lane(log, number))
    with pytest.raises(StoreBusyError, match="sealed"):
        await log.append(writer, notes("x"), expected=0, deadline=1.0)
    waiting = asyncio.create_task(log.append(writer, notes("x"), expected=0))
    await site.open("two.db")
    await waiting
    assert await texts(log, "note/a") == ["x"]


async def test_a_log_is_read_the_same_in_any_order_of_its_lanes(site: Site, tape: LanesTape, tmp_path: Path) -> None:
    log = await site.open()
    writers = [await Issuer(log).writer(name) for name in NAMES]
    chance = random.Random(7)
    for _ in range(12):
        await asyncio.gather(*(write(log, writer, chance.randint(0, 2)) for writer in writers))
        await Issuer(log).move(number_of(log, chance.choice(NAMES)), chance.randrange(LANES))
    for seed in range(25):
        assert roots(await read_at_random(log.identity, tape, tmp_path / f"{seed}.db", seed)) == roots(log.index)


async def read_at_random(log: Identity, tape: LanesTape, path: Path, seed: int) -> Index:
    """Read the lanes by turns of random length."""
    chance, index = (
        random.Random(seed),
        Index(log, IndexFile(path, bytes(32), log.log_id), accepted_only=False, lanes=LANES),
    )
    places, open_ = [0] * LANES, set(range(LANES))
    while open_:
        lane = chance.choice(sorted(open_))
        entries = await tape.read(lane, places[lane], chance.randint(1, 8))
        if not entries:
            open_.discard(lane)
        for entry in entries:
            try:
                index.take(lane, entry)
            except Held:
                break
            places[lane] = entry.place
    return index


async def test_an_opening_of_a_seal_that_never_comes_holds_up_its_lane(site: Site, tape: LanesTape) -> None:
    """Only the root can sign one; whoever else copies or makes one up is passed over."""
    log = await site.open()
    root, stranger = log.keyring.root(log.identity), log.keyring.issuing(log.identity)
    number = next(number for number in range(16) if log.index.lane_of(number) == 0)

    def opening(key: Any, of: bytes = bytes(range(32))) -> bytes:
        draft = Draft(b"keys/%d" % number, (), bytes(16), 0, b"")
        return control(log.identity, draft, b"open", of, bytes(32), ZERO, key).raw

    await tape.append(1, [opening(stranger)], Entry(0, b""))
    await log.refresh()
    assert log.index.findings["elsewhere"] == 1
    assert not any(appender.held for appender in log._lanes.appenders)
    await tape.append(1, [opening(root)], Entry(0, b""))
    async with asyncio.timeout(120):
        await log.refresh()
    assert [appender.held for appender in log._lanes.appenders] == [False, True, False, False]
    audit = await verify_log(log)
    assert (audit.ok, audit.finding, audit.at["lane"]) == (False, "gap", 1)
    assert "seal" in audit.detail


async def test_who_follows_a_slice_gets_its_records_in_order(site: Site) -> None:
    log = await site.open()
    writer = await Issuer(log).writer("note/a")
    number = number_of(log, "note/a")
    for lane in (3, 0, 2, 1):
        await write(log, writer, 2)
        await Issuer(log).move(number, lane)
    sizes: dict[int, int] = {}
    while rows := log.after(sizes, 3):
        for row in rows:
            assert row.position == sizes.get(row.part, 0)
            sizes[row.part] = row.position + 1
    assert sizes == log.index.sizes()


@pytest.mark.parametrize(("number", "lane"), [(-1, 0), (16, 0), (0, -1), (0, LANES)])
async def test_a_slice_or_a_lane_that_is_not_there(site: Site, number: int, lane: int) -> None:
    log = await site.open()
    with pytest.raises(EventStoreError, match="16 slices and 4 lanes"):
        await Issuer(log).move(number, lane)


async def test_on_a_tape_of_one_lane_a_slice_can_be_sealed_and_opened(tmp_path: Path) -> None:
    site = Site(tmp_path)
    log = await site.open()
    writer = await Issuer(log).writer("note/a")
    number = number_of(log, "note/a")
    root = log.keyring.root(log.identity)
    await log.append_control(f"keys/{number}", b"seal", (7).to_bytes(4), root)
    assert log.index.lane_of(number) == 0, "there is no lane 7 here"
    await Issuer(log).open(number)
    await write(log, writer, 1)
    assert (await verify_log(log)).ok
    await site.close()
