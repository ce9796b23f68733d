"""Stores and keys that are not as they should be: a clear typed error, and nothing is lost."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent_party.eventstore import index
from agent_party.eventstore.ambient import Seeded
from agent_party.eventstore.backends.sqlite import SqliteTape
from agent_party.eventstore.codec import Codec
from agent_party.eventstore.errors import (
    CorruptLogError,
    KeyringPermissionsError,
    NewerSchemaError,
    StoreBusyError,
    StoreCorruptError,
    StoreFullError,
    StoreReadOnlyError,
    UnknownEventError,
    WrongKeyError,
)
from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.log import Log, Writer
from tests.eventstore_kit import Note, Site, notes, truth_of


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path)
    yield site
    await site.close()


async def written(site: Site, **options: object) -> tuple[Log, Writer]:
    log = await site.open(**options)  # type: ignore[arg-type]
    writer = await Issuer(log).writer("note/a")
    await log.append(writer, notes("one"), expected=0)
    return log, writer


async def goes_on(log: Log, writer: Writer, revision: int = 1) -> None:
    """Nothing is lost, and the log takes more."""
    assert len([c async for c in log.read("note/a")]) == revision
    await log.append(writer, notes("more"), expected=revision)
    assert (await truth_of(log)).rejected == []


class Connected:
    """Connections of a tape, kept so that a test can get at them."""

    def __init__(self, timeout: float = 0.05) -> None:
        self.timeout, self.made = timeout, list[sqlite3.Connection]()

    def __call__(self, path: Path) -> sqlite3.Connection:
        self.made.append(sqlite3.connect(path, timeout=self.timeout, isolation_level=None, check_same_thread=False))
        return self.made[-1]

    def pragma(self, text: str) -> None:
        """Set something on the writing connection."""
        self.made[0].execute(f"PRAGMA {text}")


# The tape


async def test_a_full_disk(site: Site) -> None:
    """The store has room for so many pages; then there is none, and later there is again."""
    connected = Connected()
    log, writer = await written(site, tape=SqliteTape(site.file, connected))
    (pages,) = connected.made[0].execute("PRAGMA page_count").fetchone()
    connected.pragma(f"max_page_count={pages + 20}")
    revision = await fill(log, writer, "x" * 20_000, 100)
    assert revision > 1
    assert len([c async for c in log.read("note/a")]) == revision
    connected.pragma("max_page_count=100000")
    await goes_on(log, writer, revision)


async def fill(log: Log, writer: Writer, text: str, most: int) -> int:
    """Append until there is no room; the revision then."""
    for revision in range(1, most):
        try:
            await log.append(writer, notes(text), expected=revision)
        except StoreFullError as full:
            assert "free some space and go on" in str(full)  # noqa: PT017
            return revision
    raise AssertionError("it was never full")


async def test_a_full_disk_under_the_index(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was acknowledged stays acknowledged; the index is a cache and may wait."""
    monkeypatch.setattr(index, "FLUSH_ROWS", 10)
    log, writer = await written(site)
    log.index.flush()
    log.index._file._db.execute("PRAGMA max_page_count=1")  # that is, as many as there are
    written_before_it_was_full = await fill(log, writer, "x", 1_000)
    log.index._file._db.execute("PRAGMA max_page_count=100000")
    await goes_on(log, writer, written_before_it_was_full)


async def test_a_checkpoint_that_cannot_be_remembered_fails_no_append(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log, writer = await written(site)

    def full() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log, "remember", full)
    log._remembered = -1e9
    await goes_on(log, writer)
    assert "cannot be remembered" in caplog.text


async def test_a_locked_file(site: Site) -> None:
    log, writer = await written(site, tape=SqliteTape(site.file, Connected()))
    other = sqlite3.connect(site.file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusyError, match="another process holds it"):
        await log.append(writer, notes("x"), expected=1)
    assert len([c async for c in log.read("note/a")]) == 1  # reading goes on
    other.execute("ROLLBACK")
    other.close()
    await goes_on(log, writer)


async def test_a_read_only_file(site: Site) -> None:
    connected = Connected()
    log, writer = await written(site, tape=SqliteTape(site.file, connected))
    connected.pragma("query_only=1")
    with pytest.raises(StoreReadOnlyError, match="may not be written"):
        await log.append(writer, notes("x"), expected=1)
    connected.pragma("query_only=0")
    await goes_on(log, writer)


async def test_a_file_that_may_only_be_read_can_be_read(site: Site) -> None:
    log, _ = await written(site)
    await log.close()

    def read_only(path: Path) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None, check_same_thread=False)

    log = await site.open(tape=SqliteTape(site.file, read_only))
    assert len([c async for c in log.read("note/a")]) == 1
    with pytest.raises(StoreReadOnlyError, match="may not be written"):
        await Issuer(log).writer("note/b")


@pytest.mark.parametrize("what", ["a folder", "below a file"])
def test_a_path_that_cannot_be_a_file(tmp_path: Path, what: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreReadOnlyError):
        SqliteTape(tmp_path if what == "a folder" else tmp_path / "file" / "log.db")


async def test_no_sqlite_file(site: Site) -> None:
    site.file.parent.mkdir(parents=True)
    site.file.write_bytes(b"not a database, whatever its name says " * 200)
    with pytest.raises(StoreCorruptError, match="not an SQLite file"):
        await site.open()


async def test_a_corrupt_page(site: Site) -> None:
    """Each page in turn: a typed error that says so, or no effect; never another history."""
    log, writer = await written(site)
    for revision in range(1, 12):
        await log.append(writer, notes("x" * 3_000), expected=revision)
    await log.close()
    whole, seen = site.file.read_bytes(), 0
    texts = ["one"] + ["x" * 3_000] * 11
    for page in range(1, len(whole) // 4_096):
        damaged = bytearray(whole)
        damaged[page * 4_096 : page * 4_096 + 64] = b"\xff" * 64
        site.file.write_bytes(damaged)
        for beside in site.file.parent.glob("*"):
            if beside != site.file:
                beside.unlink()
        try:
            again = await site.open()
        except (StoreCorruptError, CorruptLogError):
            seen += 1
            continue
        assert [e.text async for c in again.read("note/a") for e in c.events] == texts
        await again.close()
    assert seen > 3
    for beside in site.file.parent.glob("*"):
        beside.unlink()
    site.file.write_bytes(whole)
    await goes_on(await site.open(), writer, 12)


@pytest.mark.parametrize("value", ["NULL", "'text'", "7", "x''", "x'00'"])
async def test_a_cell_that_is_no_record(site: Site, value: str) -> None:
    log, _ = await written(site)
    await log.close()
    with sqlite3.connect(site.file) as db:
        db.execute("CREATE TABLE other AS SELECT * FROM tape")
        db.execute("DROP TABLE tape")
        db.execute("ALTER TABLE other RENAME TO tape")
        db.execute(f"UPDATE tape SET record = {value} WHERE place = 9")
    with pytest.raises(CorruptLogError) as caught:
        await site.open("fresh.db")
    assert caught.value.at["place"] == 9


async def test_a_hole_in_the_tape(site: Site) -> None:
    log, _ = await written(site)
    await log.close()
    with sqlite3.connect(site.file) as db:
        db.execute("DELETE FROM tape WHERE place = 9")
    with pytest.raises(CorruptLogError) as caught:
        await site.open("fresh.db")
    assert (caught.value.finding, caught.value.at["place"]) == ("missing-record", 9)


# The clock


async def test_a_clock_that_jumps_back(site: Site) -> None:
    """Times are claims; nothing is decided by them, and the order is that of the chain."""
    clock = Seeded(1)
    log, writer = await written(site, ambient=clock)
    clock._now -= 10**15
    await goes_on(log, writer)
    times = [c.time async for c in log.read("note/a")]
    assert times[1] < times[0]
    await log.close()
    again = await site.open()
    assert [c.time async for c in again.read("note/a")] == times


# Keys


async def test_a_keyring_others_can_read(site: Site) -> None:
    log, writer = await written(site)
    await log.close()
    key = site.keyring.log_folder(log.identity) / "wrapping.key"
    for path, mode in ((key, 0o644), (key.parent, 0o750), (site.folder / "state", 0o755)):
        kept = path.stat().st_mode
        path.chmod(mode)
        with pytest.raises(KeyringPermissionsError, match="chmod"):
            await site.open()
        path.chmod(kept)
    await goes_on(await site.open(), writer)


@pytest.mark.parametrize("name", ["root", "wrapping"])
async def test_the_wrong_key(site: Site, name: str) -> None:
    log, writer = await written(site)
    await log.close()
    path = site.keyring.log_folder(log.identity) / f"{name}.key"
    kept = path.read_bytes()
    path.write_bytes(bytes(32))
    with pytest.raises(WrongKeyError):
        await goes_on(await site.open(), writer)
    path.write_bytes(kept)
    for open_log in site.logs:
        await open_log.close()
    await goes_on(await site.open(), writer)


async def test_the_index_key_lost_means_a_new_index(site: Site) -> None:
    log, writer = await written(site)
    await log.close()
    (site.keyring.log_folder(log.identity) / "index.key").unlink()
    await goes_on(await site.open(), writer)


# Events


async def test_an_unknown_event_in_the_log(site: Site) -> None:
    log, writer = await written(site)
    log.opener._codec = Codec()
    with pytest.raises(UnknownEventError, match=r"note\.written is unknown to this program"):
        await goes_on(log, writer)
    log.opener._codec = Codec([Note])
    await goes_on(log, writer)


async def test_an_event_with_a_newer_schema(site: Site) -> None:
    log, writer = await written(site)
    cls, mark, decoder = log.codec._known[b"note.written"]
    log.codec._known[b"note.written"] = (cls, type(mark)(mark.name, 0, {}), decoder)
    with pytest.raises(NewerSchemaError, match="upgrade the program"):
        await goes_on(log, writer)
    log.codec._known[b"note.written"] = (cls, mark, decoder)
    await goes_on(log, writer)
