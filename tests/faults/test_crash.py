"""Short runs of the crash campaign, the proof that its disk loses what it must, and tails that vanish."""

import random
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent_party.eventstore.errors import LogRolledBack
from agent_party.eventstore.grants import Issuer
from tests.eventstore_kit import Site, notes
from tests.faults.crashing import cut_power, kill_writers
from tests.faults.power import Disk

BAD = ("lost", "duplicated", "phantom", "not accepted")


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_random_moments(tmp_path: Path, seed: int) -> None:
    found = kill_writers(tmp_path, 25, random.Random(seed))
    assert {bad: found[bad] for bad in BAD} == dict.fromkeys(BAD, 0)
    assert (found["kills"], found["acknowledged"] > 25) == (25, True)


def test_power_cut_at_random_moments(tmp_path: Path) -> None:
    found = cut_power(tmp_path, 25, random.Random(1))
    assert {bad: found[bad] for bad in BAD} == dict.fromkeys(BAD, 0)
    assert (found["cuts"], found["acknowledged"] > 25) == (25, True)


@pytest.mark.parametrize("synchronous", ["OFF", "NORMAL"])
def test_without_syncing_acknowledged_commits_are_lost(tmp_path: Path, synchronous: str) -> None:
    """The planted bug. And the remembered checkpoint, which survives, tells."""
    found = cut_power(tmp_path, 25, random.Random(1), synchronous=synchronous)
    assert found["lost"] > 0
    assert found["noticed"] == 1


# The disk itself


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    (tmp_path / "disk").mkdir()
    return Disk(tmp_path / "disk")


def rows(path: Path) -> list[int]:
    db = sqlite3.connect(path)
    try:
        return [row for (row,) in db.execute("SELECT a FROM t")]
    finally:
        db.close()


@pytest.mark.parametrize(("synchronous", "kept"), [("FULL", [1, 2]), ("OFF", [])])
def test_only_what_was_synced_survives(disk: Disk, tmp_path: Path, synchronous: str, kept: list[int]) -> None:
    with disk.mounted():
        db = disk.connect(disk.folder / "x.db")
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute("CREATE TABLE t (a)")
        db.execute(f"PRAGMA synchronous={synchronous}")
        db.execute("INSERT INTO t VALUES (1)")
        db.execute("INSERT INTO t VALUES (2)")
        disk.write_image(tmp_path / "after")
        db.close()
    assert rows(disk.folder / "x.db") == [1, 2]
    assert rows(tmp_path / "after" / "x.db") == kept


def test_when_the_power_is_off_nothing_is_written(disk: Disk) -> None:
    with disk.mounted():
        db = disk.connect(disk.folder / "x.db")
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE t (a)")
        disk.cut_at = disk.operations + 1
        for _ in range(3):
            with pytest.raises(sqlite3.OperationalError) as caught:
                db.execute("INSERT INTO t VALUES (1)")
            assert caught.value.sqlite_errorname.startswith("SQLITE_IOERR")
        assert db.execute("SELECT count(*) FROM t").fetchone() == (0,)
        db.close()


def test_a_deletion_lasts_once_the_folder_is_synced(disk: Disk, tmp_path: Path) -> None:
    def make(name: str) -> None:
        db = disk.connect(disk.folder / name)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE t (a)")
        db.close()  # deletes the write-ahead log

    with disk.mounted():
        make("x.db")
        disk.write_image(tmp_path / "before")
        make("y.db")  # whose journal's first sync is the folder's
        disk.write_image(tmp_path / "after")
    assert not (disk.folder / "x.db-wal").exists()
    assert (tmp_path / "before" / "x.db-wal").exists()
    assert not (tmp_path / "after" / "x.db-wal").exists()
    assert (tmp_path / "after" / "x.db").exists()


# Tails that vanish


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path)
    yield site
    await site.close()


def change(site: Site, *statements: str) -> None:
    db = sqlite3.connect(site.file, timeout=10, isolation_level=None)
    for statement in statements:
        db.execute(statement)
    db.close()


LOST = "DELETE FROM tape WHERE place > (SELECT max(place) - 2 FROM tape)"
REPLACED = """UPDATE tape SET record = (SELECT record FROM tape WHERE place = 1)
    WHERE place = (SELECT max(place) FROM tape)"""


@pytest.mark.parametrize("statement", [LOST, REPLACED], ids=["lost", "replaced"])
async def test_a_writer_that_read_the_tail_notices(site: Site, statement: str) -> None:
    log = await site.open()
    writer = await Issuer(log).writer("note/a")
    for revision in range(5):
        await log.append(writer, notes("x"), expected=revision)
    change(site, statement)
    with pytest.raises(LogRolledBack):
        await log.append(writer, notes("x"), expected=5)
    with pytest.raises(LogRolledBack):
        await log.append(await Issuer(log).writer("note/b"), notes("x"), expected=0)


async def test_a_lost_tail_under_another_writers_new_one_is_noticed(site: Site) -> None:
    """The places are filled again, by a process that never saw what stood there."""
    log = await site.open()
    writer = await Issuer(log).writer("note/a")
    await log.append(writer, notes("one"), expected=0)
    blind = await site.open("blind.db")
    await log.append(writer, notes("two"), expected=1)
    change(site, "DELETE FROM tape WHERE place = (SELECT max(place) FROM tape)")
    other = await Issuer(blind).writer("note/b")
    await blind.append(other, notes("another"), expected=0)
    with pytest.raises(LogRolledBack):
        await log.refresh()
    with pytest.raises(LogRolledBack):
        await log.append(writer, notes("three"), expected=2)


@pytest.mark.parametrize("index", ["index.db", "new.db"], ids=["its index", "a new index"])
@pytest.mark.parametrize("statement", [LOST], ids=["lost"])
async def test_the_remembered_checkpoint_notices(site: Site, statement: str, index: str) -> None:
    log = await site.open()
    writer = await Issuer(log).writer("note/a")
    for revision in range(5):
        await log.append(writer, notes("x"), expected=revision)
    await log.close()
    change(site, statement)
    with pytest.raises(LogRolledBack):
        await site.open(index)


async def test_a_replaced_tail_is_noticed_by_the_checkpoint(site: Site) -> None:
    """Other commits, valid ones, in the place of those that were remembered."""
    log = await site.open()
    writer = await Issuer(log).writer("note/a")
    await log.append(writer, notes("one"), expected=0)
    place = log.index.seen[0].place
    await log.append(writer, notes("two"), expected=1)
    await log.close()
    kept = log.checkpoint_file.read_text()
    log.checkpoint_file.unlink()
    change(site, f"DELETE FROM tape WHERE place > {place}")
    forger = await site.open("forger.db")
    await forger.append(writer, notes("not two"), expected=1)
    await forger.append(writer, notes("three"), expected=2)
    await forger.close()
    log.checkpoint_file.write_text(kept)
    with pytest.raises(LogRolledBack, match="not the ones seen before"):
        await site.open()
