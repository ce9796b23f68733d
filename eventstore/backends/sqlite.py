"""The embedded tape: one SQLite file, many processes of one node.

An append is one transaction with `synchronous=FULL`: when it returns, the records are on disk. It is refused inside
the transaction if anything stands behind what its writer has read, so on this tape only accepted records ever stand,
at places 1, 2, 3 …; a hole is damage.
"""

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from ..errors import CorruptLogError, LogRolledBack, StoreCorruptError, StoreError, WrongLogError
from ..tape import Attempt, Entry, Indefinite
from ..verify import Identity, Malformed, identity
from .sqlite_errors import prepared, translate, translated
from .thread import Thread

_SCHEMA = """
CREATE TABLE IF NOT EXISTS party (one INTEGER PRIMARY KEY CHECK (one = 1),
    root BLOB, slices INTEGER, nonce BLOB) STRICT;
CREATE TABLE IF NOT EXISTS tape (place INTEGER PRIMARY KEY, record BLOB NOT NULL) STRICT;
"""
_POLL = 0.02
_BETWEEN = 10_000
Connect = Callable[[Path], sqlite3.Connection]
T = TypeVar("T")


def connect(path: Path) -> sqlite3.Connection:
    """A connection as this tape needs it; tests hand in one of their own."""
    return sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)


class SqliteTape:
    """See the module's text. ``path`` is the file; its folder is made if it is missing."""

    lanes = 1
    conditional = True

    def __init__(self, path: Path, connect: Connect = connect) -> None:
        self.path, self._connect = path, connect
        with translated(path):
            _make_folder(path.parent)
            self._writer, self._reader = self._open(), self._open()
        self._stale = False
        self._writing, self._reading = Thread("tape-writer"), Thread("tape-reader")

    def _open(self) -> sqlite3.Connection:
        return prepared(self._connect(self.path), "FULL", _SCHEMA)

    async def identity(self) -> Identity | None:
        row = await self._read(lambda db: db.execute("SELECT root, slices, nonce FROM party").fetchone())
        try:
            return identity(*row) if row else None
        except (Malformed, TypeError) as error:
            raise StoreCorruptError(f"{self.path} does not say which log it holds: {error}") from error

    async def found(self, log: Identity) -> None:
        def insert(db: sqlite3.Connection) -> int:
            row = (log.root, log.slices, log.nonce)
            return db.execute("INSERT OR IGNORE INTO party VALUES (1, ?, ?, ?)", row).rowcount

        if not await self._write(insert):
            raise WrongLogError(f"{self.path} holds a log already")

    async def append(self, lane: int, records: Sequence[bytes], after: Entry) -> Attempt:
        return await self._write(lambda db: self._append(db, records, after))

    async def read(self, lane: int, after: int, limit: int) -> list[Entry]:
        return await self._read(lambda db: _between(db, after, limit))

    async def fetch(self, lane: int, places: Sequence[int]) -> list[Entry]:
        def select(db: sqlite3.Connection) -> list[Entry]:
            found: list[Entry] = []
            for place in places:
                row = db.execute("SELECT record FROM tape WHERE place = ?", (place,)).fetchone()
                if row is None:
                    raise LogRolledBack(f"{self.path}: record {place} was there and is gone: restore the newest copy")
                found.append(_entry(place, row[0]))
            return found

        return await self._read(select)

    async def wait(self, lane: int, after: int, timeout: float) -> None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + timeout
        while not await self._read(lambda db: db.execute("SELECT 1 FROM tape WHERE place > ?", (after,)).fetchone()):
            if (left := deadline - clock()) <= 0:
                return
            await asyncio.sleep(min(_POLL, left))

    async def close(self) -> None:
        for thread, db in ((self._writing, self._writer), (self._reading, self._reader)):
            await thread.run(db.close)
            thread.close()

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._writing.run(lambda: self._translated(work, True))

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._reading.run(lambda: self._translated(work, False))

    def _translated(self, work: Callable[[sqlite3.Connection], T], writing: bool) -> T:
        with translated(self.path):
            if writing and self._stale:
                self._writer.close()
                self._writer, self._stale = self._open(), False
            return work(self._writer if writing else self._reader)

    def _append(self, db: sqlite3.Connection, records: Sequence[bytes], after: Entry) -> Attempt:
        db.execute("BEGIN IMMEDIATE")
        try:
            self._check(db, after)
            if between := _between(db, after.place, _BETWEEN):
                db.execute("ROLLBACK")
                return Attempt(False, between)
            entries = [Entry(after.place + n, raw) for n, raw in enumerate(records, 1)]
            db.executemany("INSERT INTO tape VALUES (?, ?)", entries)
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise
        self._commit(db)
        return Attempt(True, entries)

    def _commit(self, db: sqlite3.Connection) -> None:
        """A commit that fails may still have reached the disk: reading tells, on a connection opened anew."""
        try:
            db.execute("COMMIT")
        except sqlite3.Error as error:
            self._stale = True
            cause = translate(error, self.path)
            if type(cause) is StoreError:
                raise Indefinite(f"{self.path}: whether the commit reached the disk is unknown ({error})") from error
            raise cause from error

    def _check(self, db: sqlite3.Connection, after: Entry) -> None:
        if not after.place:
            return
        row = db.execute("SELECT record FROM tape WHERE place = ?", (after.place,)).fetchone()
        if row is None or row[0] != after.raw:
            raise LogRolledBack(
                f"{self.path}: record {after.place}, which this process has read, is gone or changed: "
                "stop every writer and restore the newest copy"
            )


def _make_folder(folder: Path) -> None:
    """Make a folder so that it survives a power cut."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        above = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(above)
        finally:
            os.close(above)


def _between(db: sqlite3.Connection, after: int, limit: int) -> list[Entry]:
    rows = db.execute(
        "SELECT place, record FROM tape WHERE place > ? ORDER BY place LIMIT ?", (after, limit)
    ).fetchall()
    for expected, (place, _) in enumerate(rows, after + 1):
        if place != expected:
            raise CorruptLogError("missing-record", {"place": expected})
    return [_entry(place, raw) for place, raw in rows]


def _entry(place: int, raw: object) -> Entry:
    """The schema admits blobs only, but whoever can write the file can change its schema too."""
    if not isinstance(raw, bytes):
        raise CorruptLogError("not-a-blob", {"place": place})
    return Entry(place, raw)
