"""The index is a cache: damaged, deleted, shared or behind, it never changes what the log says."""

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent_party.eventstore import appending, index, lanes
from agent_party.eventstore.appending import Appended
from agent_party.eventstore.backends.index_file import IndexDamaged, IndexFile, delete
from agent_party.eventstore.errors import ConflictError, CorruptLogError, LogRolledBack, UnknownOutcomeError
from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.log import Log, Writer
from agent_party.eventstore.tape import Entry
from tests.eventstore_kit import Lost, Site, notes, truth_of, until
from tests.faults.planted import NEEDS_A_JUMP, planted

CELLS = [
    ("record", "position"), ("record", "place"), ("record", "stream"), ("record", "revision"),
    ("record", "commit_hash"),
    ("state", "stream"), ("state", "position"), ("state", "state"), ("state", "seal"),
    ("part", "part"), ("part", "size"), ("part", "state"), ("part", "seal"),
    ("seen", "place"), ("seen", "digest"), ("seen", "seal"),
]  # fmt: skip


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path)
    yield site
    await site.close()


def index_of(site: Site) -> Path:
    return site.folder / "party" / "index.db"


async def filled(site: Site, name: str = "index.db") -> tuple[Log, Writer]:
    log = await site.open(name)
    writer = await Issuer(log).writer("note/a")
    for revision in range(5):
        await log.append(writer, notes(f"text {revision + 1}"), expected=revision)
    log.index.flush()
    return log, writer


async def texts(log: Log, stream: str = "note/a") -> list[str]:
    return [event.text async for commit in log.read(stream) for event in commit.events]


def alter(path: Path, statement: str) -> None:
    with sqlite3.connect(path, timeout=10) as db:
        db.execute(statement)
    db.close()


def forget(log: Log) -> None:
    """From now on what is in the index file counts, not what is in memory."""
    log.index.flush()
    log.index._states.clear()


async def works(log: Log, writer: Writer, revision: int = 5) -> None:
    """Everything there is to do with a log, on a log with these commits."""
    assert await texts(log) == [f"text {n + 1}" for n in range(revision)]
    await log.append(writer, notes(f"text {revision + 1}"), expected=revision)
    with pytest.raises(ConflictError):
        await log.append(writer, notes("no"), expected=revision)
    assert log.streams("note/") == ["note/a"]
    async with asyncio.timeout(10):
        while not (rows := log.after({}, 1_000)):
            await log.changed(5)
    assert len(rows) == sum(log.index.sizes().values())
    assert len(await log.commits(rows)) == len(rows)
    assert (await truth_of(log)).rejected == []


# Damage


@pytest.mark.parametrize(("table", "column"), CELLS, ids=[".".join(cell) for cell in CELLS])
@pytest.mark.parametrize("when", ["closed", "open", "open, nothing in memory"])
async def test_an_altered_cell_is_without_effect(site: Site, table: str, column: str, when: str) -> None:
    log, writer = await filled(site)
    if when == "closed":
        await log.close()
    else:
        forget(log) if "nothing" in when else None
    with sqlite3.connect(index_of(site), timeout=10) as db:
        key = {"record": "part, position", "state": "stream"}.get(table, table if table == "part" else "lane")
        newest = "stream = CAST('note/a' AS BLOB)" if table in ("record", "state") else "true"
        value = f"{column} + 1000" if column in ("position", "place", "size", "part", "revision") else "x'6e6f74652f62'"
        where = f"({key}) IN (SELECT {key} FROM {table} WHERE {newest} ORDER BY {key} DESC LIMIT 1)"
        assert db.execute(f"UPDATE {table} SET {column} = {value} WHERE {where}").rowcount == 1
    db.close()
    await works(await site.open() if when == "closed" else log, writer)


@pytest.mark.parametrize("table", ["record", "state", "part", "seen"])
@pytest.mark.parametrize("reopen", [True, False], ids=["closed", "open"])
async def test_deleted_rows_are_without_effect(site: Site, table: str, reopen: bool) -> None:
    log, writer = await filled(site)
    if reopen:
        await log.close()
    forget(log)
    alter(index_of(site), f"DELETE FROM {table}")
    await works(await site.open() if reopen else log, writer)


@pytest.mark.parametrize("last", [1, 3], ids=["the last record", "the last three"])
async def test_missing_rows_at_the_end_are_noticed(site: Site, last: int) -> None:
    """Reading must not end early, as if there were no more."""
    log, writer = await filled(site)
    alter(index_of(site), f"DELETE FROM record WHERE stream = CAST('note/a' AS BLOB) AND revision > {5 - last}")
    await works(log, writer)


async def test_an_older_state_put_back_is_noticed(site: Site) -> None:
    """Its seal holds: it was the state once."""
    log, writer = await filled(site)
    with sqlite3.connect(index_of(site)) as db:
        old = db.execute("SELECT * FROM state WHERE stream = CAST('note/a' AS BLOB)").fetchone()
    await log.append(writer, notes("text 6"), expected=5)
    log.index.flush()
    with sqlite3.connect(index_of(site)) as db:
        db.execute("INSERT OR REPLACE INTO state VALUES (?, ?, ?, ?)", old)
    forget(log)
    await works(log, writer, 6)


@pytest.mark.parametrize("damage", ["garbage", "empty", "other tables", "no table"])
@pytest.mark.parametrize("reopen", [True, False], ids=["closed", "open"])
async def test_a_damaged_file_is_rebuilt(site: Site, damage: str, reopen: bool) -> None:
    log, writer = await filled(site)
    if reopen:
        await log.close()
    path = index_of(site)
    beside = path.with_name("index.db-wal")
    if damage == "garbage":
        noise = random.Random(3).randbytes(200_000)
        path.write_bytes(noise)
        beside.write_bytes(noise[:50_000])
    elif damage == "empty":
        path.write_bytes(b"")
        beside.unlink(missing_ok=True)
    elif damage == "other tables":
        alter(path, "ALTER TABLE record RENAME COLUMN place TO elsewhere")
    else:
        alter(path, "DROP TABLE record")
    forget(log)
    await works(await site.open() if reopen else log, writer)


@pytest.mark.parametrize("reopen", [True, False], ids=["closed", "open"])
async def test_a_deleted_file_is_rebuilt(site: Site, reopen: bool) -> None:
    log, writer = await filled(site)
    if reopen:
        await log.close()
    delete(index_of(site))
    forget(log)
    log = await site.open() if reopen else log
    await works(log, writer)
    await log.close()
    await works(await site.open(), writer, 6)


async def test_damage_found_in_the_middle_of_an_append_loses_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record is on the tape already when the index fails: it is found again, not refused as a conflict."""
    log, writer = await filled(site)
    broken = iter([True])

    def take(self: index.Index, *args: object, own: bool = False, **more: object) -> index.Taken:
        if own and next(broken, False):
            raise IndexDamaged("a torn page")
        return real(self, *args, own=own, **more)  # type: ignore[arg-type]

    real = index.Index.take
    monkeypatch.setattr(index.Index, "take", take)
    appended = await log.append(writer, notes("text 6"), expected=5)
    assert next(broken, None) is None
    assert appended.revision == 6
    await works(log, writer, 6)


async def test_an_index_that_cannot_be_mended_says_unknown(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    log, writer = await filled(site)

    def take(self: index.Index, *args: object, own: bool = False, **more: object) -> index.Taken:
        if own:
            raise IndexDamaged("a torn page")
        return real(self, *args, own=own, **more)  # type: ignore[arg-type]

    real = index.Index.take

    def find(*_: object) -> int:
        raise IndexDamaged("again")

    with monkeypatch.context() as patched:
        patched.setattr(index.Index, "take", take)
        patched.setattr(index.Index, "find", find)
        with pytest.raises(UnknownOutcomeError):
            await log.append(writer, notes("text 6"), expected=5)
    await works(log, writer, 6)


async def test_a_follower_goes_on_over_a_damaged_index(site: Site) -> None:
    log, writer = await filled(site)
    had = {row.part: row.position + 1 for row in log.after({}, 1_000)}
    await log.append(writer, notes("text 6"), expected=5)
    log.index.flush()
    alter(index_of(site), "DELETE FROM record")
    async with asyncio.timeout(10):
        while not (rows := log.after(had, 100)):
            await log.changed(5)
    assert [row.revision for row in rows] == [6]


async def test_a_damaged_index_hides_no_damaged_log(site: Site) -> None:
    log, _ = await filled(site)
    with sqlite3.connect(site.file) as db:
        (raw,) = db.execute("SELECT record FROM tape WHERE place = 20").fetchone()
        db.execute("UPDATE tape SET record = ? WHERE place = 20", (raw[:-1] + bytes([raw[-1] ^ 1]),))
    delete(index_of(site))
    alter(index_of(site), "CREATE TABLE another (x)")
    log.index._file.close()
    forget(log)
    with pytest.raises(CorruptLogError) as caught:
        await texts(log)
    assert caught.value.at["place"] == 20


async def test_a_rebuild_notices_that_the_tape_is_another(site: Site) -> None:
    log, _ = await filled(site)
    with sqlite3.connect(site.file) as db:
        db.execute("DELETE FROM tape WHERE place = (SELECT max(place) FROM tape)")
    alter(index_of(site), "DELETE FROM record")
    with pytest.raises(LogRolledBack):
        await texts(log)


# Several processes


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

    async with asyncio.timeout(60):
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
    log, other = await site.open(), await site.open()
    writer = await Issuer(log).writer("note/a")
    tape = site.unconditional
    tape.fate = lost = Lost()
    task = asyncio.create_task(log.append(writer, notes("mine"), expected=0, deadline=20))
    await until(lambda: bool(lost.raws), "the record was sent")
    real = tape.read

    async def blind(lane: int, after: int, limit: int) -> list[Entry]:
        return []

    monkeypatch.setattr(tape, "read", blind)
    tape.fate = lambda raw: "now"
    tape.late.append(lost.raws[0])
    tape.settle()
    monkeypatch.setattr(tape, "read", real)
    async with other._lanes.appenders[0].lock:
        await other._lanes.appenders[0].read()
        other.index.flush()
        forget(log)
    yield task
    await site.close()


async def test_own_commit_passed_in_a_jump_is_no_conflict(appended_in_a_jump: asyncio.Task[Appended]) -> None:
    async with asyncio.timeout(10):
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
    async with asyncio.timeout(10):
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

    async with asyncio.timeout(60):
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
    assert len(log.index._rows) <= 20
    assert len(log.index._dirty) <= 31
