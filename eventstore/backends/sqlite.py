"""The embedded tape: one SQLite file, many processes of one node.

An append is one transaction with `synchronous=FULL`: when it returns, the records are on disk. It is refused inside
the transaction if anything stands behind what its writer has read, so on this tape only accepted records ever stand,
at places 1, 2, 3 …; a hole is damage.

Where the disk has been quick, a small append is committed on the event loop: handing it to a thread and back would
take as long as the commit. See docs/decisions/0010-small-commits-on-the-loop.md. Who was refused holds the turnstile
until it has had its turn, so that a process which appends without a pause starves no other.
"""

import asyncio
import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from ..commit import SigningKey
from ..errors import (
    CorruptLogError,
    LogMovedError,
    LogRolledBack,
    StoreBusyError,
    StoreCorruptError,
    StoreError,
    WrongLogError,
)
from ..tape import Attempt, Entry, Indefinite
from ..verify import Identity, Malformed, identity
from .sqlite_errors import committed, prepared, translate, translated
from .thread import Pace, Thread
from .turnstile import PATIENCE, Turnstile

_SCHEMA = """
CREATE TABLE IF NOT EXISTS party (one INTEGER PRIMARY KEY CHECK (one = 1),
    root BLOB, slices INTEGER, nonce BLOB) STRICT;
CREATE TABLE IF NOT EXISTS tape (place INTEGER PRIMARY KEY, record BLOB NOT NULL) STRICT;
"""
_MOVED = (
    "CREATE TABLE moved (one INTEGER PRIMARY KEY CHECK (one = 1), target TEXT NOT NULL) STRICT",
    "CREATE TRIGGER moved_away BEFORE INSERT ON tape BEGIN SELECT RAISE(ABORT, 'this log was moved'); END",
)
"""What the file of a log gets that is moved away: whoever has it open, of whatever version, can append no more."""
_FETCH = "SELECT place, record FROM tape WHERE place IN (SELECT value FROM json_each(?))"
_POLL = 0.02
_BETWEEN = 10_000
AT_ONCE = 64 * 1024
"""Bytes of an append that may be committed on the event loop."""
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
            self._writer, self._patience = self._open_writer()
            self._reader = self._open()
        self._stale = self.to_the_mark = False
        self._one = threading.Lock()
        self._turns = Turnstile(path.with_name(f"{path.name}-turn"))
        self._pace, self._writing, self._reading = Pace(), Thread("tape-writer"), Thread("tape-reader")

    def _open(self) -> sqlite3.Connection:
        return prepared(self._connect(self.path), "FULL", _SCHEMA)

    def _open_writer(self) -> tuple[sqlite3.Connection, float]:
        """A connection that never waits for another's, and the seconds for which a thread does so in its place."""
        db = self._open()
        (patience,) = db.execute("PRAGMA busy_timeout").fetchone()
        db.execute("PRAGMA busy_timeout=0")
        return db, patience / 1_000

    async def identity(self) -> Identity | None:
        row = await self._read(lambda db: db.execute("SELECT root, slices, nonce FROM party").fetchone())
        try:
            return identity(*row) if row else None
        except (Malformed, TypeError) as error:
            raise StoreCorruptError(f"{self.path} does not say which log it holds: {error}") from error

    async def found(self, log: Identity) -> None:
        def insert(db: sqlite3.Connection) -> int:
            row = (log.root, log.slices, log.nonce)
            _begin(db, self._patience)
            with committed(db):
                return db.execute("INSERT OR IGNORE INTO party VALUES (1, ?, ?, ?)", row).rowcount

        if not await self._write(insert):
            raise WrongLogError(f"{self.path} holds a log already")

    async def mark_moved(self, log: Identity, target: str, root: SigningKey) -> None:
        def insert(db: sqlite3.Connection) -> str:
            _begin(db, self._patience)
            with committed(db):
                if not (went := _target(db)):
                    for statement in _MOVED:
                        db.execute(statement)
                    db.execute("INSERT INTO moved VALUES (1, ?)", (target,))
                return went or target

        if (went := await self._write(insert)) != target:
            raise LogMovedError(f"the log of {self.path}", went)

    async def moved_to(self) -> str:
        return await self._read(_target)

    async def append(self, lane: int, records: Sequence[bytes], after: Entry) -> Attempt:
        attempt = await self._write(lambda db: self._in_turn(db, records, after))
        if not attempt.placed:
            self._let_go_soon()
        return attempt

    def append_at_once(self, lane: int, records: Sequence[bytes], after: Entry) -> Attempt | None:
        if sum(map(len, records)) > AT_ONCE or not self._pace.quick() or not self._one.acquire(blocking=False):
            return None
        try:
            if self._stale or not self._turns.open():
                return None
            with translated(self.path):
                attempt = self._pace.timed(lambda: self._append(self._writer, records, after, 0))
            if attempt.placed:
                self._turns.let_go()
            else:
                self._turns.hold()
                self._let_go_soon()
            return attempt
        except StoreBusyError:  # another process is writing
            return None
        finally:
            self._one.release()

    async def read(self, lane: int, after: int, limit: int) -> list[Entry]:
        return await self._read(lambda db: _in_order(_rows(db, after + 1, limit), after + 1))

    async def fetch(self, lane: int, places: Sequence[int]) -> list[Entry]:
        def select(db: sqlite3.Connection) -> list[Entry]:
            records: dict[int, object] = dict(db.execute(_FETCH, (json.dumps(list(places)),)).fetchall())
            if gone := [place for place in places if place not in records]:
                raise LogRolledBack(f"{self.path}: record {gone[0]} was there and is gone: restore the newest copy")
            return [_entry(place, records[place]) for place in places]

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
        self._turns.close()

    def _in_turn(self, db: sqlite3.Connection, records: Sequence[bytes], after: Entry) -> Attempt:
        """Append when it is this writer's turn. One that is refused has the next turn too."""
        self._turns.take()
        placed = True
        try:
            attempt = self._append(db, records, after, self._patience)
            placed = attempt.placed
        finally:
            if placed:
                self._turns.let_go()
        return attempt

    def _let_go_soon(self) -> None:
        """A turn that is not taken is not kept: what was refused may have found that it has nothing to append."""
        asyncio.get_running_loop().call_later(PATIENCE, self._let_go)

    def _let_go(self) -> None:
        if self._one.acquire(blocking=False):
            self._turns.let_go()
            self._one.release()

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._writing.run(lambda: self._translated(work, True))

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._reading.run(lambda: self._translated(work, False))

    def _translated(self, work: Callable[[sqlite3.Connection], T], writing: bool) -> T:
        with translated(self.path):
            if not writing:
                return work(self._reader)
            with self._one:
                if self._stale:
                    self._writer.close()
                    (self._writer, self._patience), self._stale = self._open_writer(), False
                return work(self._writer)

    def _append(self, db: sqlite3.Connection, records: Sequence[bytes], after: Entry, patience: float) -> Attempt:
        _begin(db, patience)
        try:
            if between := self._between(db, after):
                db.execute("ROLLBACK")
                return Attempt(False, between)
            entries = [Entry(after.place + n, raw) for n, raw in enumerate(records, 1)]
            db.executemany("INSERT INTO tape VALUES (?, ?)", entries)
        except sqlite3.IntegrityError:
            went = _target(db)
            db.execute("ROLLBACK")
            if not went:
                raise
            raise LogMovedError(f"the log of {self.path}", went) from None
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

    def _between(self, db: sqlite3.Connection, after: Entry) -> list[Entry]:
        """What stands behind the last entry that the writer has read, which must be there still."""
        rows = _rows(db, after.place, 1 + _BETWEEN)
        if after.place and (not rows or rows.pop(0) != after):
            raise LogRolledBack(
                f"{self.path}: record {after.place}, which this process has read, is gone or changed: "
                "stop every writer and restore the newest copy"
            )
        return _in_order(rows, after.place + 1)


def _begin(db: sqlite3.Connection, patience: float) -> None:
    """Begin to write, waiting for so many seconds until no other connection does."""
    until, pause = time.monotonic() + patience, 0.0005
    while True:
        try:
            db.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                raise
        time.sleep(pause)
        pause = min(0.02, 2 * pause)


def _target(db: sqlite3.Connection) -> str:
    """Where the log went from this file; empty if it did not."""
    if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'moved'").fetchone():
        return ""
    row = db.execute("SELECT target FROM moved").fetchone()
    return str(row[0]) if row else ""


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


def _rows(db: sqlite3.Connection, first: int, limit: int) -> list[tuple[int, object]]:
    query = "SELECT place, record FROM tape WHERE place >= ? ORDER BY place LIMIT ?"
    return db.execute(query, (first, limit)).fetchall()


def _in_order(rows: Sequence[tuple[int, object]], first: int) -> list[Entry]:
    """Entries of rows that must follow each other without a hole."""
    for expected, (place, _) in enumerate(rows, first):
        if place != expected:
            raise CorruptLogError("missing-record", {"place": expected})
    return [_entry(place, raw) for place, raw in rows]


def _entry(place: int, raw: object) -> Entry:
    """The schema admits blobs only, but whoever can write the file can change its schema too."""
    if not isinstance(raw, bytes):
        raise CorruptLogError("not-a-blob", {"place": place})
    return Entry(place, raw)
