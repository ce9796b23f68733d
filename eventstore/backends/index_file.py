"""The index's disposable SQLite file. Any trouble with it is `IndexDamaged`: delete it and read the tape again."""

import hashlib
import hmac
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ..errors import StoreError
from ..tape import Entry
from ..tree import Tree
from ..verify import SliceState, StreamState

_SCHEMA = """
CREATE TABLE IF NOT EXISTS record (part INTEGER, position INTEGER, lane INTEGER, place INTEGER, stream BLOB,
    revision INTEGER, commit_hash BLOB, PRIMARY KEY (part, position)) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS record_place ON record (lane, place);
CREATE INDEX IF NOT EXISTS record_stream ON record (stream, revision);
CREATE TABLE IF NOT EXISTS state (stream BLOB PRIMARY KEY, position INTEGER, state BLOB,
    seal BLOB) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS part (part INTEGER PRIMARY KEY, size INTEGER, state BLOB, seal BLOB) STRICT;
CREATE TABLE IF NOT EXISTS tile (part INTEGER, number INTEGER, root BLOB, PRIMARY KEY (part, number)) STRICT;
CREATE TABLE IF NOT EXISTS seen (lane INTEGER PRIMARY KEY, place INTEGER, digest BLOB, seal BLOB) STRICT;
"""


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
        self.path, self._secret = path, secret
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise IndexDamaged(f"{path}: {error}") from error
        self._log_id = log_id

    def _seal(self, *parts: object) -> bytes:
        message = self._log_id + msgspec.msgpack.encode(parts)
        return hmac.digest(self._secret, message, "sha256")[:16]

    def _all(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise IndexDamaged(f"{self.path}: {error}") from error

    def _check(self, seal: object, *parts: object) -> None:
        if not isinstance(seal, bytes) or not hmac.compare_digest(seal, self._seal(*parts)):
            raise IndexDamaged(f"{self.path}: a cell of {parts[0]} was altered")

    def seen(self) -> dict[int, Entry]:
        """The last entry read of each lane; ``raw`` is its SHA-256 until the tape has given the bytes."""
        seen = {}
        for lane, place, digest, seal in self._all("SELECT lane, place, digest, seal FROM seen"):
            self._check(seal, "seen", lane, place, digest)
            seen[lane] = Entry(place, bytes(digest))
        return seen

    def parts(self) -> dict[int, tuple[SliceState, Tree]]:
        """State and tree of each slice."""
        parts = {}
        for part, size, state, seal in self._all("SELECT part, size, state, seal FROM part"):
            self._check(seal, "part", part, size, state)
            issuers, form, peaks = msgspec.msgpack.decode(
                bytes(state),
                type=tuple[dict[bytes, bytes], int, list[bytes]],
            )
            parts[part] = (SliceState(issuers, form), Tree(size, peaks))
        return parts

    def state(self, stream: bytes) -> tuple[StreamState, int] | None:
        """The state of one stream and the position of the record that made it, or None if it has none."""
        for position, state, seal in self._all("SELECT position, state, seal FROM state WHERE stream = ?", (stream,)):
            self._check(seal, "state", stream, position, state)
            head, revision, grants = msgspec.msgpack.decode(
                state, type=tuple[bytes, int, dict[bytes, tuple[int, bytes]]]
            )
            return StreamState(head, revision, grants), position
        return None

    def position(self, lane: int, place: int) -> int | None:
        """The position of the record at a place, or None if none was accepted there."""
        rows = self._all("SELECT position FROM record WHERE lane = ? AND place = ?", (lane, place))
        return rows[0][0] if rows else None

    def knows(self, stream: bytes, commit: bytes) -> bool:
        """Whether a stream has a record with this hash."""
        return bool(self._all("SELECT 1 FROM record WHERE stream = ? AND commit_hash = ? LIMIT 1", (stream, commit)))

    def rows(self, stream: bytes, first: int, last: int) -> list[Row]:
        """The data records of a stream between two revisions."""
        query = "SELECT * FROM record WHERE stream = ? AND revision BETWEEN ? AND ? AND revision > 0 ORDER BY revision"
        return [Row._make(row) for row in self._all(query, (stream, first, last))]

    def all_rows(self, stream: bytes) -> list[Row]:
        """All records of a stream in the order of their slice."""
        return [
            Row._make(row) for row in self._all("SELECT * FROM record WHERE stream = ? ORDER BY position", (stream,))
        ]

    def after(self, had: Mapping[int, int], have: Mapping[int, int], limit: int) -> list[Row]:
        """Accepted records beyond ``had``, in tape order within each lane."""
        found: list[Row] = []
        for part, size in have.items():
            if (first := had.get(part, 0)) < size:
                query = "SELECT * FROM record WHERE part = ? AND position >= ? ORDER BY position LIMIT ?"
                found += [Row._make(row) for row in self._all(query, (part, first, limit))]
        return sorted(found, key=lambda row: (row.lane, row.place))[:limit]

    def streams(self, prefix: bytes, after: bytes, limit: int) -> list[bytes]:
        """Stream names with a prefix, sorted."""
        query = "SELECT stream FROM state WHERE stream >= ? AND stream > ? AND stream < ? ORDER BY stream LIMIT ?"
        return [row[0] for row in self._all(query, (prefix, after, prefix + b"\xff", limit))]

    def tiles(self, part: int, count: int) -> list[bytes]:
        """The roots of a slice's first full tiles."""
        rows = self._all("SELECT root FROM tile WHERE part = ? AND number < ? ORDER BY number", (part, count))
        if len(rows) != count:
            raise IndexDamaged(f"{self.path}: tiles are missing")
        return [row[0] for row in rows]

    def leaves(self, part: int, first: int, last: int) -> list[bytes]:
        """The commit hashes at positions first ≤ p < last of a slice."""
        query = "SELECT commit_hash FROM record WHERE part = ? AND position >= ? AND position < ? ORDER BY position"
        rows = self._all(query, (part, first, last))
        if len(rows) != last - first:
            raise IndexDamaged(f"{self.path}: records are missing")
        return [row[0] for row in rows]

    def write(
        self,
        rows: list[Row],
        tiles: list[tuple[int, int, bytes]],
        states: Mapping[bytes, StreamState],
        parts: Mapping[int, tuple[SliceState, Tree]],
        seen: Mapping[int, Entry],
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
                    packed = msgspec.msgpack.encode((dict(state_.issuers), state_.format, tree.peaks))
                    self._db.execute(
                        "INSERT OR REPLACE INTO part VALUES (?,?,?,?)",
                        (part, tree.size, packed, self._seal("part", part, tree.size, packed)),
                    )
            self._write_seen(seen)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise IndexDamaged(f"{self.path}: {error}") from error

    def _write_seen(self, seen: Mapping[int, Entry]) -> None:
        known = dict(self._db.execute("SELECT lane, place FROM seen"))
        for lane, entry in seen.items():
            if entry.place > known.get(lane, 0):
                digest = hashlib.sha256(entry.raw).digest()
                values = (lane, entry.place, digest, self._seal("seen", lane, entry.place, digest))
                self._db.execute("INSERT OR REPLACE INTO seen VALUES (?,?,?,?)", values)

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def delete(path: Path) -> None:
    """Remove the file and what SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
