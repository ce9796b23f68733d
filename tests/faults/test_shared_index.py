"""Several processes with one index file: behind, ahead, rebuilding under each other; they agree all the same."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent_party.eventstore import appending, index, lanes
from agent_party.eventstore.backends.index_file import IndexFile
from agent_party.eventstore.backends.memory import UnconditionalMemoryTape
from agent_party.eventstore.errors import ConflictError
from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.log import Log
from agent_party.eventstore.pending import Appended
from agent_party.eventstore.tape import Entry
from tests.eventstore_kit import Lost, Site, notes, truth_of, until
from tests.faults.indexes import filled, forget, index_of, texts, works
from tests.faults.planted import NEEDS_A_JUMP, planted


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path)
    yield site
    await site.close()


async def test_logs_that_share_an_index_agree(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small caches and buffers, so that each is behind the others all the time."""
    monkeypatch.setattr(index, "FLUSH_ROWS", 5)
    monkeypatch.setattr(index, "_STATES", 3)
    logs = [await site.open() for _ in range(4)]
    streams = [f"note/s{n}" for n in range(6)]
    writers = {stream: await Issuer(logs[0]).writer(stream) for stream in streams}

    async def write(log: Log, seed: int) -> int:
        order, done = random.Random(seed), 0
        while done < 25:
            stream = order.choice(streams)
            try:
                revision = (await log.state(stream)).revision
                await log.append(writers[stream], notes(f"{seed}.{done}"), expected=revision)
                done += 1
            except ConflictError:
                await log.changed(0.001)
        return done

    async with asyncio.timeout(300):
        assert await asyncio.gather(*(write(log, seed) for seed, log in enumerate(logs))) == [25] * 4
    for log in logs:
        await log.refresh()
    truth = await truth_of(logs[0])
    assert truth.rejected == []
    assert sum(len(truth.data(stream)) for stream in streams) == 100
    for log in logs:
        assert log.checkpoint().body() == logs[0].checkpoint().body()
        for stream in streams:
            assert [c.hash async for c in log.read(stream)] == [record.commit for record in truth.data(stream)]
        log.check_remembered()


async def test_many_lanes_jump_one_at_a_time(site: Site) -> None:
    """What another lane has read, and the bytes it knows, stay as they are."""
    log, writer = await filled(site)
    file = IndexFile(index_of(site), log._lanes._secret, log.identity.log_id)
    mine = index.Index(log.identity, file, accepted_only=True, lanes=2)
    mine.seen[1], parts = Entry(7, b"bytes"), dict(mine.parts)
    for revision in range(5, 8):
        await log.append(writer, notes("x"), expected=revision)
        await Issuer(log).writer(f"note/more{revision}")
    log.index.flush()
    mine.jump(0)
    assert mine.seen == {0: Entry(log.index.seen[0].place, mine.seen[0].raw), 1: Entry(7, b"bytes")}
    assert (mine.is_bound(0), mine.is_bound(1)) == (False, True)
    assert {n: tree.size for n, (_, tree) in mine.parts.items() if n < 8} == {
        n: size for n, size in log.index.sizes().items() if n < 8
    }
    assert all(mine.parts[n] is parts[n] for n in range(8, 16))
    mine.close()


@pytest.fixture
async def appended_in_a_jump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[asyncio.Task[Appended]]:
    """The record lands late, another process reads it first and writes the shared index: the writer jumps over it."""
    monkeypatch.setattr(appending, "PATIENCE", 0.02)
    site = Site(tmp_path, "unconditional")
    log, tape = await site.open(), site.unconditional
    twin = UnconditionalMemoryTape()
    twin.records, twin._log, twin._grown = tape.records, tape._log, tape._grown
    other = await site.open(tape=twin)
    writer = await Issuer(log).writer("note/a")
    tape.fate = lost = Lost()
    task = asyncio.create_task(log.append(writer, notes("mine"), expected=0, deadline=300))
    await until(lambda: bool(lost.raws), "the record was sent")
    real, written = tape.read, asyncio.Event()

    async def blind(lane: int, after: int, limit: int) -> list[Entry]:
        await written.wait()
        return []

    monkeypatch.setattr(tape, "read", blind)
    seen = log.index.seen[0]
    tape.fate = lambda raw: "now"
    tape.late.append(lost.raws[0])
    tape.settle()
    await other.refresh()
    other.index.flush()
    forget(log)
    written.set()
    await until(lambda: log.index.seen[0] != seen, "the writer jumped")
    monkeypatch.setattr(tape, "read", real)
    yield task
    await site.close()


async def test_own_commit_passed_in_a_jump_is_no_conflict(appended_in_a_jump: asyncio.Task[Appended]) -> None:
    async with asyncio.timeout(300):
        assert (await appended_in_a_jump).revision == 1


class TestWithTheBugPlanted:
    @pytest.fixture(autouse=True)
    def plant(self, monkeypatch: pytest.MonkeyPatch) -> None:
        module = planted(NEEDS_A_JUMP)
        monkeypatch.setattr(lanes, "Appender", module)

    async def test_it_would_be_a_conflict(self, plant: None, appended_in_a_jump: asyncio.Task[Appended]) -> None:
        with pytest.raises(ConflictError):
            await appended_in_a_jump


async def test_a_jump_that_is_cut_short_is_no_rollback(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled after the jump and before the tape gave the bytes: only their hash is known."""
    log, writer = await filled(site)
    other = await site.open()
    await other.append(writer, notes("text 6"), expected=5)
    other.index.flush()
    forget(log)
    real = log.tape.fetch
    held = asyncio.Event()

    async def slow(*args: object) -> object:
        held.set()
        await asyncio.Event().wait()
        return None

    log.tape.fetch = slow  # type: ignore[method-assign,assignment]
    asking = asyncio.create_task(log.state("note/a"))
    async with asyncio.timeout(300):
        await held.wait()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    log.tape.fetch = real  # type: ignore[method-assign]
    assert not log.index.is_bound(0)
    await works(log, writer, 6)


async def test_opening_and_rebuilding_at_once(site: Site) -> None:
    log, writer = await filled(site)
    await log.close()

    async def come_and_go(number: int) -> None:
        mine = await site.open()
        if number % 3 == 0:
            forget(mine)
            await mine._lanes.heal(mine.index.generation)
        assert await texts(mine) == [f"text {n + 1}" for n in range(5)]
        await mine.close()

    async with asyncio.timeout(300):
        await asyncio.gather(*(come_and_go(number) for number in range(12)))
    await works(await site.open(), writer)


async def test_memory_is_bounded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "FLUSH_ROWS", 20)
    monkeypatch.setattr(index, "_STATES", 30)
    log = await site.open()
    issuer = Issuer(log)
    for start in range(0, 200, 40):
        writers = await asyncio.gather(*(issuer.writer(f"note/n{n}") for n in range(start, start + 40)))
        await asyncio.gather(*(log.append(w, notes("x"), expected=0) for w in writers))
    assert len(log.index._states) <= 31
    assert len(log.index._rows) <= 2 * 20
    assert len(log.index._dirty) <= 31
