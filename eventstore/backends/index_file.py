"""The index's disposable SQLite file. If it is damaged, that is `IndexDamaged`: delete it and read the tape again.

A file that is merely locked, full or read-only is none the worse for it and says so as any other store does. Opening
and deleting take turns by a lock beside the file: a process that opened the file before, and its write-ahead log
after, another process replaced both would mix two files up.
"""

import contextlib
import fcntl
import functools
import hashlib
import heapq
import hmac
import itertools
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ..errors import StoreBusyError, StoreError, StoreFullError, StoreReadOnlyError
from ..tape import Entry
from ..tree import Tree
from ..verify import SliceState, StreamState
from .sqlite_errors import prepared, translate

_SCHEMA = """
CREATE TABLE IF NOT EXISTS record (part INTEGER, position INTEGER, lane INTEGER NOT NULL, place INTEGER NOT NULL,
    stream BLOB NOT NULL, revision INTEGER NOT NULL, commit_hash BLOB NOT NULL,
    PRIMARY KEY (part, position)) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS record_place ON record (lane, place);
CREATE INDEX IF NOT EXISTS record_stream ON record (stream, revision);
CREATE TABLE IF NOT EXISTS state (stream BLOB PRIMARY KEY, position INTEGER, state BLOB,
    seal BLOB) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS part (part INTEGER PRIMARY KEY, size INTEGER, state BLOB, seal BLOB) STRICT;
CREATE TABLE IF NOT EXISTS tile (part INTEGER, number INTEGER, root BLOB, PRIMARY KEY (part, number)) STRICT;
CREATE TABLE IF NOT EXISTS seen (lane INTEGER PRIMARY KEY, place INTEGER, digest BLOB, found BLOB,
    seal BLOB) STRICT;
CREATE TABLE IF NOT EXISTS whole (one INTEGER PRIMARY KEY CHECK (one = 1), seal BLOB) STRICT;
"""


_STATE = """SELECT (SELECT revision FROM record WHERE stream = ?1 ORDER BY revision DESC LIMIT 1),
    max(ifnull((SELECT position FROM record WHERE stream = ?1
            ORDER BY revision DESC, part DESC, position DESC LIMIT 1), -1),
        ifnull((SELECT position FROM record WHERE stream = ?1 AND revision = 0
            ORDER BY part DESC, position DESC LIMIT 1), -1)),
    state.position, state.state, state.seal FROM (SELECT 1) LEFT JOIN state ON state.stream = ?1"""
_NAMES = """WITH RECURSIVE name(stream) AS (
    SELECT min(stream) FROM record WHERE stream >= ?1 AND stream > ?2 AND stream < ?3 UNION ALL
    SELECT (SELECT min(stream) FROM record WHERE record.stream > name.stream AND record.stream < ?3)
    FROM name WHERE stream IS NOT NULL LIMIT ?4)
    SELECT name.stream, position, state, seal FROM name LEFT JOIN state USING (stream) WHERE name.stream IS NOT NULL"""
_ROW = (int, int, int, int, bytes, int, bytes)
_PART = tuple[dict[bytes, bytes], int, bytes, int, list[bytes]]
_LAYOUT = b"2"
"""Another layout of what is sealed has another seal, so that a file of it counts as damaged and is made anew."""
_PIECE = 16
"""How many of a slice's records are read at least, so that many slices of few are not read one by one."""
_OF_THE_STORE = (StoreBusyError, StoreFullError, StoreReadOnlyError)


class IndexDamaged(StoreError):
    """The file is not what this program wrote for this log."""


class Row(NamedTuple):
    """Where one accepted record lies."""

    part: int
    position: int
    lane: int
    place: int
    stream: bytes
    revision: int
    commit: bytes


class IndexFile:
    """``secret`` seals what is believed without looking at the tape. Many processes may share the file."""

    def __init__(self, path: Path, secret: bytes, log_id: bytes) -> None:
        self.path, self._secret, self._log_id = path, secret, log_id
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _turn(path):
                db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
                self._db = prepared(db, "NORMAL", _SCHEMA)
        except sqlite3.Error as error:
            raise self._trouble(error) from error
        except OSError as error:
            raise StoreReadOnlyError(f"{path}: {error.strerror}") from error

    def _trouble(self, error: sqlite3.Error) -> StoreError:
        """What a driver's error means: a busy or full disk damages nothing."""
        translated = translate(error, self.path)
        return translated if isinstance(translated, _OF_THE_STORE) else IndexDamaged(f"{self.path}: {error}")

    def _seal(self, *parts: object) -> bytes:
        message = _LAYOUT + self._log_id + msgspec.msgpack.encode(parts)
        return hmac.digest(self._secret, message, "sha256")[:16]

    def _all(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise self._trouble(error) from error

    def _rows(self, query: str, values: tuple[Any, ...]) -> list[Row]:
        """Index rows; whoever alters a cell may have put anything there, in spite of the schema."""
        found = self._all(query, values)
        if any(tuple(map(type, row)) != _ROW for row in found):
            raise IndexDamaged(f"{self.path}: a cell of record was altered")
        return [Row._make(row) for row in found]

    def _hashes(self, query: str, values: tuple[Any, ...], count: int) -> list[bytes]:
        found = [row[0] for row in self._all(query, values)]
        if len(found) != count or not all(isinstance(value, bytes) for value in found):
            raise IndexDamaged(f"{self.path}: records or tiles are missing")
        return found

    def _check(self, seal: object, *parts: object) -> None:
        if not isinstance(seal, bytes) or not hmac.compare_digest(seal, self._seal(*parts)):
            raise IndexDamaged(f"{self.path}: a cell of {parts[0]} was altered")

    def load(self) -> tuple[dict[int, tuple[SliceState, Tree]], dict[int, Entry], dict[int, Counter[str]]]:
        """State and tree of each slice, the last entry read of each lane, and how many entries of it up to there were
        not accepted and why, all of one moment.

        An entry's ``raw`` is its SHA-256 until the tape has given the bytes.
        """
        self._all("BEGIN")
        try:
            if dict(self._all("SELECT name, sql FROM sqlite_schema")) != _definitions():
                raise IndexDamaged(f"{self.path}: its tables are not what they were made as")
            whole = self._all("SELECT seal FROM whole")
            if whole or self._all("SELECT 1 FROM record LIMIT 1"):
                self._check(whole[0][0] if whole else None, *self._every_seal())
            return self._parts(), *self._seen()
        finally:
            self._all("COMMIT")

    def _every_seal(self) -> list[object]:
        """So that no row of them can be taken away, or an older one put back."""
        seals = self._all("SELECT seal FROM part UNION ALL SELECT seal FROM seen ORDER BY 1")
        return ["whole", [seal for (seal,) in seals]]

    def _seen(self) -> tuple[dict[int, Entry], dict[int, Counter[str]]]:
        seen, found = {}, {}
        for lane, place, digest, counts, seal in self._all("SELECT lane, place, digest, found, seal FROM seen"):
            self._check(seal, "seen", lane, place, digest, counts)
            seen[lane] = Entry(place, bytes(digest))
            found[lane] = Counter(msgspec.msgpack.decode(counts, type=dict[str, int]))
        return seen, found

    def _parts(self) -> dict[int, tuple[SliceState, Tree]]:
        parts = {}
        for part, size, state, seal in self._all("SELECT part, size, state, seal FROM part"):
            self._check(seal, "part", part, size, state)
            issuers, form, sealed, lane, peaks = msgspec.msgpack.decode(bytes(state), type=_PART)
            parts[part] = (SliceState(issuers, form, sealed, lane), Tree(size, peaks))
        return parts

    def state(self, stream: bytes) -> tuple[StreamState, int] | None:
        """The state of one stream and the position of the record that made it, or None if it has none.

        The seal says that this was its state once, the stream's newest records that it still is.
        """
        ((revision, last, position, state, seal),) = self._all(_STATE, (stream,))
        if state is None and revision is None:
            return None
        self._check(seal, "state", stream, position, state)
        head, number, grants = msgspec.msgpack.decode(state, type=tuple[bytes, int, dict[bytes, tuple[int, bytes]]])
        if (position, number) != (last, revision):
            raise IndexDamaged(f"{self.path}: the state of {stream.decode()} is not the one after its last record")
        return StreamState(head, number, grants), position

    def position(self, lane: int, place: int) -> int | None:
        """The position of the record at a place, or None if none was accepted there."""
        rows = self._all("SELECT position FROM record WHERE lane = ? AND place = ?", (lane, place))
        return rows[0][0] if rows else None

    def find(self, stream: bytes, commit: bytes, revision: int | None = None) -> int | None:
        """The position of a stream's record with this hash, or None if there is none.

        ``revision``: it is a control record, or the data record of this revision; then a long stream takes no longer.
        """
        where = "stream = ?1 AND commit_hash = ?2" + ("" if revision is None else " AND revision IN (0, ?3)")
        values = (stream, commit) if revision is None else (stream, commit, revision)
        rows = self._all(f"SELECT position FROM record WHERE {where} LIMIT 1", values)
        return rows[0][0] if rows else None

    def rows(self, stream: bytes, first: int, last: int) -> list[Row]:
        """The data records of a stream between two revisions; at revision 0, its control records."""
        query = "SELECT * FROM record WHERE stream = ? AND revision BETWEEN ? AND ? ORDER BY revision, position"
        return self._rows(query, (stream, first, last))

    def all_rows(self, stream: bytes) -> list[Row]:
        """All records of a stream in the order of their slice."""
        return self._rows("SELECT * FROM record WHERE stream = ? ORDER BY position", (stream,))

    def after(self, had: Mapping[int, int], have: Mapping[int, int], limit: int) -> list[Row]:
        """Accepted records beyond ``had``: each slice's in order and, but for slices that moved, in tape order within a
        lane."""
        behind = [(part, had.get(part, 0), size) for part, size in have.items() if had.get(part, 0) < size]
        piece = max(1, min(limit, _PIECE + limit // max(1, len(behind))))
        slices = [self._of_slice(part, first, size, piece) for part, first, size in behind]
        return list(itertools.islice(heapq.merge(*slices, key=lambda row: (row.lane, row.place)), limit))

    def _of_slice(self, part: int, first: int, size: int, piece: int) -> Iterator[Row]:
        """A slice's records from one on, read so many at a time: who merges many slices needs few of most."""
        query = "SELECT * FROM record WHERE part = ? AND position >= ? ORDER BY position LIMIT ?"
        for start in range(first, size, piece):
            wanted = range(start, min(start + piece, size))
            rows = self._rows(query, (part, start, len(wanted)))
            if [row.position for row in rows] != list(wanted):
                raise IndexDamaged(f"{self.path}: records of slice {part} are missing")
            yield from rows

    def streams(self, prefix: bytes, after: bytes, limit: int) -> list[bytes]:
        """Stream names with a prefix, sorted."""
        found = self._all(_NAMES, (prefix, after, prefix + b"\xff", limit))
        for stream, position, state, seal in found:
            self._check(seal, "state", stream, position, state)
        return [row[0] for row in found]

    def tiles(self, part: int, count: int) -> list[bytes]:
        """The roots of a slice's first full tiles."""
        query = "SELECT root FROM tile WHERE part = ? AND number < ? ORDER BY number"
        return self._hashes(query, (part, count), count)

    def leaves(self, part: int, first: int, last: int) -> list[bytes]:
        """The commit hashes at positions first ≤ p < last of a slice."""
        query = "SELECT commit_hash FROM record WHERE part = ? AND position >= ? AND position < ? ORDER BY position"
        return self._hashes(query, (part, first, last), last - first)

    def write(
        self,
        rows: list[Row],
        tiles: list[tuple[int, int, bytes]],
        states: Mapping[bytes, StreamState],
        parts: Mapping[int, tuple[SliceState, Tree]],
        seen: Mapping[int, tuple[Entry, Counter[str]]],
    ) -> None:
        """Add what one process has read. Others may have added the same: then this changes nothing."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            behind: dict[int, int] = dict(self._db.execute("SELECT part, size FROM part"))
            self._db.executemany("INSERT OR IGNORE INTO record VALUES (?,?,?,?,?,?,?)", rows)
            self._db.executemany("INSERT OR IGNORE INTO tile VALUES (?,?,?)", tiles)
            newest = {row.stream: row for row in rows}
            for stream, state in states.items():
                if (row := newest[stream]).position >= behind.get(row.part, 0):
                    packed = msgspec.msgpack.encode((state.head, state.revision, dict(state.grants)))
                    values = (stream, row.position, packed, self._seal("state", stream, row.position, packed))
                    self._db.execute("INSERT OR REPLACE INTO state VALUES (?,?,?,?)", values)
            for part, (state_, tree) in parts.items():
                if tree.size > behind.get(part, 0):
                    kept = (dict(state_.issuers), state_.format, state_.sealed, state_.lane, tree.peaks)
                    packed = msgspec.msgpack.encode(kept)
                    self._db.execute(
                        "INSERT OR REPLACE INTO part VALUES (?,?,?,?)",
                        (part, tree.size, packed, self._seal("part", part, tree.size, packed)),
                    )
            self._write_seen(seen)
            self._db.execute("INSERT OR REPLACE INTO whole VALUES (1, ?)", (self._seal(*self._every_seal()),))
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise self._trouble(error) from error

    def _write_seen(self, seen: Mapping[int, tuple[Entry, Counter[str]]]) -> None:
        known = dict(self._db.execute("SELECT lane, place FROM seen"))
        for lane, (entry, found) in seen.items():
            if entry.place > known.get(lane, 0):
                digest, counts = hashlib.sha256(entry.raw).digest(), msgspec.msgpack.encode(dict(found))
                values = (lane, entry.place, digest, counts, self._seal("seen", lane, entry.place, digest, counts))
                self._db.execute("INSERT OR REPLACE INTO seen VALUES (?,?,?,?,?)", values)

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def delete(path: Path) -> None:
    """Remove the file and what SQLite keeps beside it. Who has it open goes on with it, alone."""
    with _turn(path):
        for suffix in ("", "-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)


@functools.cache
def _definitions() -> dict[str, str | None]:
    """How the tables and indexes are made: that no two records have one position, for example, is believed of them."""
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.executescript(_SCHEMA)
        return dict(db.execute("SELECT name, sql FROM sqlite_schema"))


@contextlib.contextmanager
def _turn(path: Path) -> Iterator[None]:
    with Path(f"{path}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
