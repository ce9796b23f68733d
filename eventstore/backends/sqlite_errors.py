"""Driver errors become ours at the edge."""

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import StoreBusyError, StoreCorruptError, StoreError, StoreFullError, StoreReadOnlyError

_CLASSES: tuple[tuple[str, type[StoreError], str], ...] = (
    ("SQLITE_BUSY", StoreBusyError, "another process holds it: try again, or find what holds it with `lsof`"),
    ("SQLITE_LOCKED", StoreBusyError, "another process holds it: try again"),
    ("SQLITE_FULL", StoreFullError, "the disk is full: free some space and go on, nothing acknowledged was lost"),
    ("SQLITE_READONLY", StoreReadOnlyError, "it may not be written: check its permissions and its file system"),
    ("SQLITE_PERM", StoreReadOnlyError, "it may not be opened by this user"),
    ("SQLITE_CANTOPEN", StoreReadOnlyError, "it cannot be opened: check that the folder exists and may be written"),
    ("SQLITE_CORRUPT", StoreCorruptError, "the file is damaged: keep a copy and restore it from a backup or an export"),
    ("SQLITE_NOTADB", StoreCorruptError, "it is not an SQLite file: restore it from a backup"),
)


def translate(error: sqlite3.Error, path: Path) -> StoreError:
    """Ours for a driver's error."""
    name = getattr(error, "sqlite_errorname", "") or ""
    for prefix, cls, advice in _CLASSES:
        if name.startswith(prefix):
            return cls(f"{path}: {advice} ({error})")
    return StoreError(f"{path}: {error} {name}".rstrip())


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise our errors for the driver's."""
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error, path) from error
    except OSError as error:
        raise StoreReadOnlyError(f"{path}: {error.strerror}") from error


@contextlib.contextmanager
def committed(db: sqlite3.Connection) -> Iterator[None]:
    """Commit the transaction that was begun; roll it back if anything goes wrong."""
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise


def prepared(db: sqlite3.Connection, synchronous: str, schema: str) -> sqlite3.Connection:
    """A connection with write-ahead logging and its tables; closed if it cannot have them."""
    try:
        begin_wal(db, synchronous)
        for statement in filter(str.strip, schema.split(";")):
            db.execute(statement)
    except BaseException:
        db.close()
        raise
    return db


def begin_wal(db: sqlite3.Connection, synchronous: str, patience: float = 30.0) -> None:
    """Set a connection to write-ahead logging. SQLite's own patience does not cover the switch of a new file."""
    deadline = time.monotonic() + patience
    while True:
        try:
            db.execute("PRAGMA journal_mode=WAL")
            break
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.005)
    db.execute(f"PRAGMA synchronous={synchronous}")
