"""A real log in SQLite, altered as whoever can write its files would: cells, schema, pages, whole copies.

Two questions each time. What does the audit of the copy say? And what does a program do that opens it? Either it
refuses with an error of ours, or it reads exactly what stood there before.
"""

import asyncio
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from agent_party.eventstore.ambient import Seeded
from agent_party.eventstore.audit import CANNOT_TELL, MATCHES, ROLLED_BACK, Audit, audit_journal
from agent_party.eventstore.backends.sqlite import SqliteTape
from agent_party.eventstore.datakeys import DataKeys
from agent_party.eventstore.errors import EventStoreError, LogRolledBack, WrongLogError
from agent_party.eventstore.export import export
from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.keyring import Keyring
from agent_party.eventstore.verify import Identity, check_export, parse
from tests.eventstore_kit import Site, notes

SEED = 20_260_903


class Party:
    """A closed log of 48 commits with its keyring, and copies of its folder to be altered."""

    def __init__(self, folder: Path, log: Identity) -> None:
        self.folder, self.log, self.copies = folder, log, 0

    def copy(self, alter: Callable[[sqlite3.Connection], object] | None = None, *, index: bool = False) -> Path:
        """A copy of all, altered; without the index, unless it is wanted."""
        self.copies += 1
        copy = self.folder.with_name(f"{self.folder.name}-{self.copies}")
        shutil.copytree(self.folder, copy)
        if not index:
            for path in copy.glob("party/index.db*"):
                path.unlink()
        if alter:
            db = sqlite3.connect(copy / "party" / "log.db", isolation_level=None)
            alter(db)
            db.close()
        return copy

    async def audit(self, copy: Path, *, remembering: bool = True) -> Audit:
        keyring = Keyring(copy / "state")
        if not remembering:
            (keyring.log_folder(self.log) / "checkpoint").unlink()
        keys = DataKeys(keyring.log_folder(self.log) / "keys.db", keyring.secret(self.log, "wrapping"))
        tape = SqliteTape(copy / "party" / "log.db")
        try:
            return await audit_journal(tape, self.log, keyring, keys)
        finally:
            await tape.close()
            keys.close()

    async def read(self, copy: Path) -> list[object]:
        """All that a program sees, and an export."""
        site = Site(copy)
        log = await site.open()
        try:
            seen: list[object] = [commit for name in log.streams() async for commit in log.read(name)]
            return [*seen, await export(log)]
        finally:
            await site.close()


@pytest.fixture(scope="module")
def party(tmp_path_factory: pytest.TempPathFactory) -> Party:
    return asyncio.run(_made(tmp_path_factory.mktemp("stores") / "origin"))


async def _made(folder: Path) -> Party:
    site = Site(folder)
    log = await site.open(ambient=Seeded(SEED))
    writers = [await Issuer(log).writer(name) for name in ("note/a", "note/b", "note/c", "inbox/note/a")]
    for revision in range(6):
        for writer in writers:
            await log.append(writer, notes(f"text {revision}", "more"), expected=revision)
    await Issuer(log).writer("note/c")
    await Issuer(log).fence("inbox/note/a", writers[3].grant)
    await log.append(await Issuer(log).writer("note/b"), notes("after a takeover"), expected=6)
    await site.close()
    return Party(site.folder, log.identity)


def sql(*statements: str) -> Callable[[sqlite3.Connection], object]:
    return lambda db: [db.execute(statement).fetchall() for statement in statements]


UNTYPED = (
    "ALTER TABLE tape RENAME TO old",
    "CREATE TABLE tape (place, record)",
    "INSERT INTO tape SELECT * FROM old",
    "DROP TABLE old",
)
UNTYPED_PARTY = (
    "ALTER TABLE party RENAME TO old",
    "CREATE TABLE party (one, root, slices, nonce)",
    "INSERT INTO party SELECT * FROM old",
    "DROP TABLE old",
)
RENUMBERED = (
    "CREATE TABLE fresh (place INTEGER PRIMARY KEY, record BLOB NOT NULL) STRICT",
    "INSERT INTO fresh (record) SELECT record FROM tape ORDER BY place",
    "DROP TABLE tape",
    "ALTER TABLE fresh RENAME TO tape",
)


def without(stream: bytes, keep: int | None = None) -> Callable[[sqlite3.Connection], object]:
    """Delete a stream, or all but its first records, and close the gaps so that no hole tells."""

    def alter(db: sqlite3.Connection) -> None:
        rows: Iterable[tuple[int, bytes]] = db.execute("SELECT place, record FROM tape ORDER BY place").fetchall()
        places = [place for place, raw in rows if parse(raw).header.stream == stream]
        db.executemany("DELETE FROM tape WHERE place = ?", [(place,) for place in places[keep or 0 :]])
        sql(*RENUMBERED)(db)

    return alter


async def test_an_unaltered_copy_holds(party: Party) -> None:
    audit = await party.audit(party.copy())
    assert (audit.ok, audit.finding, audit.commits, audit.events) == (True, "", 48, 72)
    assert (audit.checkpoint.status, audit.checkpoint.size, audit.checkpoint.tail) == (MATCHES, 48, 0)
    seen = await party.read(party.copy())
    assert len(seen) == 26
    assert isinstance(seen[-1], bytes)
    assert check_export(seen[-1], party.log.root, party.log.log_id)["commits"] == 48
    assert await party.read(party.copy(index=True)) == seen


GONE = {
    "a tail": sql("DELETE FROM tape WHERE place > 40"),
    "the last": sql("DELETE FROM tape WHERE place = (SELECT max(place) FROM tape)"),
    "all but one": sql("DELETE FROM tape WHERE place > 1"),
    "all records": sql("DELETE FROM tape"),
    "everything": sql("DELETE FROM tape", "DELETE FROM party"),
    "both tables": sql("DROP TABLE tape", "DROP TABLE party"),
    "a stream": without(b"note/c"),
    "the tail of a quiet stream": without(b"note/a", keep=6),
}


@pytest.mark.parametrize("what", GONE)
async def test_what_is_gone_is_missed_by_who_remembers(party: Party, what: str) -> None:
    audit = await party.audit(party.copy(GONE[what]))
    assert (audit.ok, audit.finding, audit.checkpoint.status) == (False, "", ROLLED_BACK)
    alone = await party.audit(party.copy(GONE[what]), remembering=False)
    assert (alone.finding, alone.checkpoint.status) == ("", CANNOT_TELL)
    for index in (True, False):
        with pytest.raises(LogRolledBack):
            await party.read(party.copy(GONE[what], index=index))


async def test_an_older_copy_of_all(party: Party) -> None:
    """The whole of .party, index and all, as it was before; the keyring is where it was."""
    party = Party(party.copy(index=True), party.log)
    site = Site(party.folder)
    older = party.copy(index=True)
    log = await site.open()
    await log.append(await Issuer(log).writer("note/d"), notes("later"), expected=0)
    await site.close()
    shutil.rmtree(party.folder / "party")
    shutil.copytree(older / "party", party.folder / "party")
    audit = await party.audit(party.copy(index=True))
    assert (audit.ok, audit.finding, audit.checkpoint.status) == (False, "", ROLLED_BACK)
    with pytest.raises(LogRolledBack):
        await party.read(party.copy(index=True))
    shutil.rmtree(party.folder / "party")
    assert (await party.audit(party.copy())).checkpoint.status == ROLLED_BACK
    with pytest.raises(LogRolledBack):
        await party.read(party.copy())


VALUES: tuple[object, ...] = (None, 0, -1, 1, 7, 2**62, 1.5, "text", "", b"", b"blob", bytes(32), bytes(10**6))


@pytest.mark.parametrize("column", ["one", "root", "slices", "nonce"])
@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:12])
async def test_every_cell_of_the_party_row(party: Party, column: str, value: object) -> None:
    copy = party.copy(
        lambda db: [sql(*UNTYPED_PARTY)(db), db.execute(f"UPDATE party SET {column} = ?", (value,))],
    )
    audit = await party.audit(copy)
    assert audit.finding == ("" if column == "one" else "wrong-log")
    assert audit.checkpoint.status == MATCHES
    if column == "one":
        await party.read(copy)
    else:
        with pytest.raises((WrongLogError, EventStoreError)):
            await party.read(copy)


@pytest.mark.parametrize("place", [1, 20, 48])
@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:12])
async def test_every_place(party: Party, place: int, value: object) -> None:
    """A record elsewhere, under a number that is none, or under one that another has."""
    if value == place:
        return
    copy = party.copy(
        lambda db: [sql(*UNTYPED)(db), db.execute("UPDATE tape SET place = ? WHERE place = ?", (value, place))]
    )
    await _refused(party, copy)


@pytest.mark.parametrize("place", [1, 20, 48])
@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:12])
async def test_every_type_of_record(party: Party, place: int, value: object) -> None:
    """Bytes of another type, and bytes that are none."""
    copy = party.copy(
        lambda db: [sql(*UNTYPED)(db), db.execute("UPDATE tape SET record = ? WHERE place = ?", (value, place))]
    )
    audit = await _refused(party, copy)
    assert audit.finding in (("malformed",) if isinstance(value, bytes) else ("not-a-blob",))
    assert audit.at["place"] == place


async def test_a_record_of_the_right_bytes_and_the_wrong_type(party: Party) -> None:
    copy = party.copy(sql(*UNTYPED, "UPDATE tape SET record = CAST(record AS TEXT) WHERE place = 9"))
    assert (await _refused(party, copy)).finding in ("not-a-blob", "damaged-store")


async def _refused(party: Party, copy: Path) -> Audit:
    audit = await party.audit(copy)
    assert not audit.ok
    with pytest.raises(EventStoreError):
        await party.read(copy)
    return audit


SCHEMAS = {
    "two records in a place": sql(*UNTYPED, "INSERT INTO tape SELECT 5, record FROM tape WHERE place = 5"),
    "a hole": sql("DELETE FROM tape WHERE place = 17"),
    "a column of another name": sql("ALTER TABLE tape RENAME COLUMN record TO bytes"),
    "a view for a table": sql(
        "ALTER TABLE tape RENAME TO old", "CREATE VIEW tape AS SELECT place, record FROM old WHERE place < 30"
    ),
    "a second party": sql(*UNTYPED_PARTY, "INSERT INTO party SELECT 2, nonce, slices, root FROM party"),
    "a record more": sql("INSERT INTO tape VALUES (49, x'0000')"),
    "a record far behind": sql("INSERT INTO tape SELECT 100, record FROM tape WHERE place = 5"),
    "a record before the first": sql("INSERT INTO tape SELECT 0, record FROM tape WHERE place = 5"),
    "a column more": sql("ALTER TABLE tape ADD COLUMN more INTEGER"),
    "user version": sql("PRAGMA user_version = 7", "PRAGMA application_id = 7"),
    "journal mode": sql("PRAGMA journal_mode = DELETE"),
    "sizes of pages": sql("PRAGMA journal_mode = DELETE", "PRAGMA page_size = 16384", "VACUUM"),
}
HARMLESS = {
    "a record before the first",
    "a column more",
    "user version",
    "journal mode",
    "sizes of pages",
    "a second party",
}


@pytest.mark.parametrize("what", SCHEMAS)
async def test_every_change_of_schema(party: Party, what: str) -> None:
    copy = party.copy(SCHEMAS[what])
    if what in HARMLESS:
        assert (await party.audit(copy)).ok
        assert await party.read(copy) == await party.read(party.copy())
    else:
        await _refused(party, copy)


async def test_bytes_of_the_file(party: Party) -> None:
    """Random bytes of random pages: SQLite's own structures, records, free space."""
    dice, seen, outcomes = random.Random(SEED), await party.read(party.copy()), {"refused": 0, "without effect": 0}
    for _ in range(60):
        copy = party.copy(sql("PRAGMA wal_checkpoint(TRUNCATE)"))
        path = copy / "party" / "log.db"
        data = bytearray(path.read_bytes())
        for _ in range(dice.choice((1, 1, 4))):
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        path.write_bytes(data)
        try:
            ok = (await party.audit(copy)).ok
        except EventStoreError:
            ok = False
        try:
            same = await party.read(copy) == seen
        except EventStoreError:
            same = False
        assert same or not ok
        assert same == ok
        outcomes["without effect" if ok else "refused"] += 1
    assert min(outcomes.values()) > 5


async def test_a_bit_is_named_to_the_event(party: Party) -> None:
    """Stream, revision and event of every flipped ciphertext."""
    db = sqlite3.connect(party.folder / "party" / "log.db")
    rows: list[tuple[int, bytes]] = db.execute("SELECT place, record FROM tape ORDER BY place").fetchall()
    db.close()
    tried = 0
    for place, raw in rows:
        record = parse(raw)
        if not record.header.revision or place % 3:
            continue
        event = tried % record.header.events
        back = 1 + (record.header.events - 1 - event) * (len(record.body) // record.header.events)
        flipped = bytearray(raw)
        flipped[-back] ^= 4
        audit = await party.audit(party.copy(_put(place, bytes(flipped))))
        named = {"place": place, "stream": record.header.stream.decode(), "revision": record.header.revision}
        assert (audit.finding, audit.at) == ("body-mismatch", named | {"event": event})
        assert audit.commits == place - 1
        tried += 1
    assert tried > 5


def _put(place: int, raw: bytes) -> Callable[[sqlite3.Connection], object]:
    return lambda db: db.execute("UPDATE tape SET record = ? WHERE place = ?", (raw, place))


async def test_another_log_in_its_place(party: Party, tmp_path: Path) -> None:
    other = Site(tmp_path / "other")
    log = await other.open()
    await log.append(await Issuer(log).writer("note/a"), notes("x"), expected=0)
    await other.close()
    copy = party.copy()
    shutil.rmtree(copy / "party")
    shutil.copytree(tmp_path / "other" / "party", copy / "party")
    audit = await party.audit(copy)
    assert (audit.finding, audit.at["place"]) == ("wrong-log", 1)
    with pytest.raises(WrongLogError):
        await party.read(copy)


INDEX = {
    "record": ("part", "position", "lane", "place", "stream", "revision", "commit_hash"),
    "state": ("stream", "position", "state", "seal"),
    "part": ("part", "size", "state", "seal"),
    "seen": ("lane", "place", "digest", "seal"),
}


@pytest.mark.parametrize(("table", "column"), [(table, column) for table in INDEX for column in INDEX[table]])
async def test_every_cell_of_the_index(party: Party, table: str, column: str) -> None:
    """Of the first row, one in the middle and the last: another row's value, a number, nothing, bytes."""
    seen = await party.read(party.copy())
    for chosen in (0, 0.5, 1):
        for value in (f"(SELECT max({column}) FROM {table})", "3", "NULL", "x'00'"):
            copy = party.copy(index=True)
            db = sqlite3.connect(copy / "party" / "index.db", isolation_level=None)
            keys = ", ".join(INDEX[table][:2])
            count = db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            row = db.execute(f"SELECT {keys} FROM {table} ORDER BY 1, 2 LIMIT 1 OFFSET ?", (int((count - 1) * chosen),))
            where, values = " AND ".join(f"{key} = ?" for key in INDEX[table][:2]), row.fetchone()
            try:
                db.execute(f"UPDATE {table} SET {column} = {value} WHERE {where}", values)
            except sqlite3.Error:  # the schema admits no such value; it is altered without it
                sql(
                    f"CREATE TABLE fresh AS SELECT * FROM {table}",
                    f"DROP TABLE {table}",
                    f"ALTER TABLE fresh RENAME TO {table}",
                )(db)
                db.execute(f"UPDATE {table} SET {column} = {value} WHERE {where}", values)
            db.close()
            try:
                assert await party.read(copy) == seen, (chosen, value)
            except EventStoreError:
                continue
