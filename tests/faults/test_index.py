"""The index is a cache: damaged, deleted, shared or behind, it never changes what the log says."""

import asyncio
import contextlib
import random
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent_party.eventstore import index
from agent_party.eventstore.backends.index_file import IndexDamaged, delete
from agent_party.eventstore.errors import CorruptLogError, LogRolledBack, UnknownOutcomeError
from tests.eventstore_kit import Site, notes
from tests.faults.indexes import alter, filled, forget, index_of, texts, works

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


async def test_tables_that_admit_two_records_at_one_position_are_not_believed(site: Site) -> None:
    log, writer = await filled(site)
    await log.close()
    made = _schema(index_of(site))
    for statement in ("CREATE TABLE fresh AS SELECT * FROM record", "DROP TABLE record"):
        alter(index_of(site), statement)
    alter(index_of(site), "ALTER TABLE fresh RENAME TO record")
    assert _schema(index_of(site)) != made
    await works(await site.open(), writer)
    assert _schema(index_of(site)) == made


def _schema(path: Path) -> set[tuple[str, str]]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return set(db.execute("SELECT name, sql FROM sqlite_schema"))


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

    def take(*args: object) -> int | None:
        if next(broken, False):
            raise IndexDamaged("a torn page")
        return real(*args)  # type: ignore[arg-type]

    real = index.Index.take_own
    monkeypatch.setattr(index.Index, "take_own", take)
    appended = await log.append(writer, notes("text 6"), expected=5)
    assert next(broken, None) is None
    assert appended.revision == 6
    await works(log, writer, 6)


async def test_an_index_that_cannot_be_mended_says_unknown(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    log, writer = await filled(site)

    def take(*args: object) -> int:
        raise IndexDamaged("a torn page")

    def find(*_: object) -> int:
        raise IndexDamaged("again")

    with monkeypatch.context() as patched:
        patched.setattr(index.Index, "take_own", take)
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
    async with asyncio.timeout(60):
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
