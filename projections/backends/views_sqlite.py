"""Views in one SQLite file, shared by the processes of a node. Disposable: deleted, it is rebuilt from the log."""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from ...eventstore.backends.sqlite_errors import begin_wal, translated
from ..projection import Projection, Sizes, Write
from .views_memory import Documents, apply_to, digest_of

_SCHEMA = """
CREATE TABLE IF NOT EXISTS document (projection TEXT, view TEXT, key TEXT, fields BLOB,
    PRIMARY KEY (projection, view, key)) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS document_view ON document (view, key);
CREATE TABLE IF NOT EXISTS checkpoint (projection TEXT PRIMARY KEY, version INTEGER, sizes BLOB) STRICT;
CREATE TABLE IF NOT EXISTS source (one INTEGER PRIMARY KEY CHECK (one = 1), log BLOB) STRICT;
"""
_SIZES = msgspec.msgpack.Decoder(dict[int, int])
_FIELDS = msgspec.msgpack.Decoder(dict[str, Any])


class SqliteViews:
    """``log``: which log they are views of; those of another one are thrown away. So is a file that is damaged."""

    def __init__(self, path: Path, log: bytes = b"") -> None:
        self.path = path
        with translated(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._open(log)
            except sqlite3.DatabaseError as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF not in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                    raise
                self._db.close()
                for name in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
                    name.unlink(missing_ok=True)
                self._open(log)

    def _open(self, log: bytes) -> None:
        self._db = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
        begin_wal(self._db, "NORMAL")
        self._db.executescript(_SCHEMA)
        with self._transaction():
            if self._db.execute("SELECT log FROM source").fetchone() != (log,):
                for table in ("document", "checkpoint"):
                    self._db.execute(f"DELETE FROM {table}")
                self._db.execute("INSERT OR REPLACE INTO source VALUES (1, ?)", (log,))

    async def checkpoint(self, projection: Projection) -> Sizes:
        with translated(self.path):
            return self._checkpoint(projection)

    def _checkpoint(self, projection: Projection) -> Sizes:
        query = "SELECT sizes FROM checkpoint WHERE projection = ? AND version = ?"
        row = self._db.execute(query, (projection.name, projection.version)).fetchone()
        return _SIZES.decode(row[0]) if row else {}

    async def apply(self, projection: Projection, before: Sizes, after: Sizes, writes: Iterable[Write]) -> bool:
        writes = list(writes)
        with translated(self.path), self._transaction():
            if self._checkpoint(projection) != before:
                return False
            if not before:
                self._db.execute("DELETE FROM document WHERE projection = ?", (projection.name,))
            self._write(projection.name, writes)
            values = (projection.name, projection.version, msgspec.msgpack.encode(after))
            self._db.execute("INSERT OR REPLACE INTO checkpoint VALUES (?,?,?)", values)
        return True

    def _write(self, projection: str, writes: list[Write]) -> None:
        touched = {(write.view, write.key) for write in writes}
        documents: Documents = {}
        for view, key in touched:
            query = "SELECT fields FROM document WHERE projection = ? AND view = ? AND key = ?"
            if row := self._db.execute(query, (projection, view, key)).fetchone():
                documents[view, key] = _FIELDS.decode(row[0])
        for write in writes:
            apply_to(documents, write)
        gone = [(projection, *name) for name in touched - documents.keys()]
        rows = [(projection, *name, msgspec.msgpack.encode(fields)) for name, fields in documents.items()]
        self._db.executemany("DELETE FROM document WHERE projection = ? AND view = ? AND key = ?", gone)
        self._db.executemany("INSERT OR REPLACE INTO document VALUES (?,?,?,?)", rows)

    async def get(self, view: str, key: str) -> dict[str, Any] | None:
        with translated(self.path):
            row = self._db.execute("SELECT fields FROM document WHERE view = ? AND key = ?", (view, key)).fetchone()
        return _FIELDS.decode(row[0]) if row else None

    async def scan(
        self, view: str, prefix: str = "", limit: int = 10_000, after: str = ""
    ) -> list[tuple[str, dict[str, Any]]]:
        first = "key > ?" if after >= prefix and after else "key >= ?"
        query = f"SELECT key, fields FROM document WHERE view = ? AND {first} AND key < ? ORDER BY key LIMIT ?"
        with translated(self.path):
            rows = self._db.execute(query, (view, max(prefix, after), prefix + "\U0010ffff", limit)).fetchall()
        return [(key, _FIELDS.decode(fields)) for key, fields in rows]

    async def digest(self, projection: Projection) -> str:
        query = "SELECT view, key, fields FROM document WHERE projection = ? ORDER BY view, key"
        with translated(self.path):
            rows = self._db.execute(query, (projection.name,)).fetchall()
        documents = (((view, key), _FIELDS.decode(fields)) for view, key, fields in rows)
        return digest_of(await self.checkpoint(projection), documents)

    async def drop(self, projection: Projection) -> None:
        with translated(self.path), self._transaction():
            self._db.execute("DELETE FROM document WHERE projection = ?", (projection.name,))
            self._db.execute("DELETE FROM checkpoint WHERE projection = ?", (projection.name,))

    async def close(self) -> None:
        self._db.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # SQLite may have rolled it back already
                self._db.execute("ROLLBACK")
            raise
