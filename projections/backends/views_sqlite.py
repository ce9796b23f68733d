"""Views in one SQLite file, shared by the processes of a node. Disposable: deleted, it is rebuilt from the log."""

import asyncio
import contextlib
import copy
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import msgspec

from ...eventstore.backends.sqlite_errors import begin_wal, committed, translated
from ..ahead import Digest, Documents, DocumentsAhead, apply_to, touched
from ..projection import DEAD_LETTERS, Write, letter_of, letter_writes
from ..sink import MOST_LETTERS, NO_LETTERS, Checkpoint, Id, Letter, Letters, Named, Sizes

_FORMAT = 2
_SCHEMA = """
CREATE TABLE IF NOT EXISTS document (generation INTEGER, view TEXT, key TEXT, fields BLOB,
    PRIMARY KEY (generation, view, key)) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS side (projection TEXT, live INTEGER, generation INTEGER UNIQUE, sizes BLOB, turn INTEGER,
    version INTEGER, paused TEXT, PRIMARY KEY (projection, live)) STRICT;
CREATE TABLE IF NOT EXISTS source (one INTEGER PRIMARY KEY CHECK (one = 1), log BLOB) STRICT;
"""
_SIZES = msgspec.msgpack.Decoder(dict[int, int])
_FIELDS = msgspec.msgpack.Decoder(dict[str, Any])
_LOOK = 0.1
_END = "\U0010ffff"


class SqliteViews:
    """``log``: which log they are views of; those of another one are thrown away. So is a file that is damaged, or of
    another version of this program."""

    def __init__(self, path: Path, log: bytes = b"") -> None:
        self.path, self._live = path, True
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
        with self._transaction():
            if self._db.execute("PRAGMA user_version").fetchone() != (_FORMAT,):
                for table in ("document", "checkpoint", "side", "source"):
                    self._db.execute(f"DROP TABLE IF EXISTS {table}")
                self._db.execute(f"PRAGMA user_version = {_FORMAT}")
            for statement in filter(str.strip, _SCHEMA.split(";")):
                self._db.execute(statement)
            if self._db.execute("SELECT log FROM source").fetchone() != (log,):
                for table in ("document", "side"):
                    self._db.execute(f"DELETE FROM {table}")
                self._db.execute("INSERT OR REPLACE INTO source VALUES (1, ?)", (log,))

    def beside(self) -> Self:
        other = copy.copy(self)
        other._live = False
        return other

    # What stands

    def _side(self, projection: Named, live: bool | None = None) -> tuple[int, Checkpoint]:
        """The generation and the checkpoint of a side; generation 0 where nothing ever stood."""
        query = "SELECT generation, sizes, turn, version, paused FROM side WHERE projection = ? AND live = ?"
        row = self._db.execute(query, (projection.name, self._live if live is None else live)).fetchone()
        return (row[0], Checkpoint(_SIZES.decode(row[1]), *row[2:])) if row else (0, Checkpoint())

    async def checkpoint(self, projection: Named) -> Checkpoint:
        with translated(self.path):
            return self._side(projection)[1]

    async def projections(self) -> list[str]:
        query = "SELECT projection FROM side WHERE live = ? AND version > 0 ORDER BY projection"
        with translated(self.path):
            return [name for (name,) in self._db.execute(query, (self._live,))]

    # Changes

    async def apply(
        self,
        projection: Named,
        before: Checkpoint,
        after: Sizes,
        writes: Iterable[Write],
        letters: Letters = NO_LETTERS,
    ) -> Checkpoint | None:
        writes = [*writes, *letter_writes(projection, letters)]
        with translated(self.path), self._transaction():
            generation, stands = self._side(projection)
            if stands.turn != before.turn:
                return None
            now = Checkpoint(dict(after), stands.turn + 1, projection.version, stands.paused)
            generation = self._set(projection, now, self._live, generation)
            if not stands.sizes:
                self._empty(generation)
            self._write(generation, writes)
        return now

    def _set(self, projection: Named, now: Checkpoint, live: bool, generation: int) -> int:
        """Store a checkpoint; a side that is new gets a generation of its own."""
        if not generation:
            (generation,) = self._db.execute("SELECT ifnull(max(generation), 0) + 1 FROM side").fetchone()
        values = (projection.name, live, generation, msgspec.msgpack.encode(now.sizes), now.turn, now.version)
        self._db.execute("INSERT OR REPLACE INTO side VALUES (?,?,?,?,?,?,?)", (*values, now.paused))
        return generation

    def _empty(self, generation: int) -> None:
        self._db.execute("DELETE FROM document WHERE generation = ?", (generation,))

    def _write(self, generation: int, writes: list[Write]) -> None:
        names, documents = touched(writes), Documents()
        for view, key in names:
            if (found := self._document(generation, view, key)) is not None:
                documents[view, key] = found
        for write in writes:
            apply_to(documents, write)
        gone = [(generation, *name) for name in names if name not in documents]
        rows = [(generation, *name, msgspec.msgpack.encode(fields)) for name, fields in documents.items()]
        self._db.executemany("DELETE FROM document WHERE generation = ? AND view = ? AND key = ?", gone)
        self._db.executemany("INSERT OR REPLACE INTO document VALUES (?,?,?,?)", rows)

    async def drop(self, projection: Named) -> None:
        with translated(self.path), self._transaction():
            generation, stands = self._side(projection)
            self._empty(generation)
            self._set(projection, Checkpoint({}, stands.turn + 1, 0, stands.paused), self._live, generation)

    async def pause(self, projection: Named, reason: str) -> None:
        with translated(self.path), self._transaction():
            generation, stands = self._side(projection)
            self._set(projection, stands._replace(turn=stands.turn + 1, paused=reason), self._live, generation)

    async def swap(self, projection: Named, live: Checkpoint, scratch: Checkpoint) -> bool:
        with translated(self.path), self._transaction():
            old, was = self._side(projection, live=True)
            new, stands = self._side(projection, live=False)
            if (was.turn, stands.turn) != (live.turn, scratch.turn):
                return False
            self._empty(old)
            self._db.execute("DELETE FROM side WHERE projection = ?", (projection.name,))
            self._set(projection, stands._replace(turn=was.turn + 1, paused=was.paused), True, new)
            self._set(projection, Checkpoint(turn=stands.turn + 1), False, old)
        return True

    # Questions

    def ahead(self, projection: Named, before: Checkpoint) -> DocumentsAhead:
        return DocumentsAhead(projection, self if before.sizes else None)

    def _document(self, generation: int, view: str, key: str) -> dict[str, Any] | None:
        query = "SELECT fields FROM document WHERE generation = ? AND view = ? AND key = ?"
        row = self._db.execute(query, (generation, view, key)).fetchone()
        return _FIELDS.decode(row[0]) if row else None

    async def read(self, projection: Named, view: str, key: str) -> dict[str, Any] | None:
        with translated(self.path):
            return self._document(self._side(projection)[0], view, key)

    async def get(self, view: str, key: str) -> dict[str, Any] | None:
        query = """SELECT fields FROM side CROSS JOIN document USING (generation)
            WHERE live = 1 AND view = ? AND key = ? ORDER BY projection LIMIT 1"""
        with translated(self.path):
            row = self._db.execute(query, (view, key)).fetchone()
        return _FIELDS.decode(row[0]) if row else None

    async def scan(
        self, view: str, prefix: str = "", limit: int = 10_000, after: str = ""
    ) -> list[tuple[str, dict[str, Any]]]:
        first = "key > ?" if after >= prefix and after else "key >= ?"
        query = f"""SELECT key, fields FROM document WHERE generation = ? AND view = ? AND {first} AND key < ?
            ORDER BY key LIMIT ?"""
        found: list[tuple[str, bytes]] = []
        with translated(self.path), self._transaction("DEFERRED"):
            for (generation,) in self._db.execute("SELECT generation FROM side WHERE live = 1").fetchall():
                values = (generation, view, max(prefix, after), prefix + _END, limit)
                found += self._db.execute(query, values).fetchall()
        found.sort(key=lambda row: row[0])
        return [(key, _FIELDS.decode(fields)) for key, fields in found[:limit]]

    async def letters(self, projection: Named) -> dict[str, Letter]:
        query = "SELECT fields FROM document WHERE generation = ? AND view = ? ORDER BY key LIMIT ?"
        with translated(self.path):
            values = (self._side(projection)[0], DEAD_LETTERS, MOST_LETTERS)
            found = [letter_of(_FIELDS.decode(fields)) for (fields,) in self._db.execute(query, values)]
        return {letter.stream: letter for letter in found}

    async def digest(self, projection: Named) -> str:
        query = "SELECT view, key, fields FROM document WHERE generation = ? ORDER BY view, key"
        with translated(self.path), self._transaction("DEFERRED"):
            generation, stands = self._side(projection)
            digest = Digest(stands.sizes)
            for view, key, fields in self._db.execute(query, (generation,)):
                digest.add(view, key, _FIELDS.decode(fields))
        return digest.hex()

    async def items(self, projection: Named, after: Id = (), limit: int = 1_000) -> list[tuple[Id, Any]]:
        query = """SELECT view, key, fields FROM document WHERE generation = ? AND (view, key) > (?, ?)
            ORDER BY view, key LIMIT ?"""
        with translated(self.path):
            values = (self._side(projection)[0], *(after or ("", "")), limit)
            return [((view, key), _FIELDS.decode(fields)) for view, key, fields in self._db.execute(query, values)]

    async def changed(self, projection: Named, turn: int, timeout: float) -> None:
        clock = asyncio.get_running_loop().time
        until = clock() + timeout
        while (await self.checkpoint(projection)).turn == turn and clock() < until:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK)  # other processes make no sound

    async def close(self) -> None:
        self._db.close()

    @contextlib.contextmanager
    def _transaction(self, kind: str = "IMMEDIATE") -> Iterator[None]:
        self._db.execute(f"BEGIN {kind}")
        with committed(self._db):
            yield
