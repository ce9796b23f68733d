"""Snapshots: a cache of folds, never truth. Sealed with the stream's data key, checked against the chain before use.

A snapshot is whole, or a part: what has changed since the one before it. A part is sealed together with revision and
commit of the one that it goes on from, so that no part can be taken for another's continuation.
"""

import contextlib
import sqlite3
from pathlib import Path
from typing import NamedTuple

from . import sealing
from .ambient import Ambient
from .datakeys import DataKeys
from .errors import EventStoreError

_FORM = 2
_SCHEMA = """CREATE TABLE IF NOT EXISTS snapshot (stream TEXT, revision INTEGER, head BLOB, base INTEGER,
    base_head BLOB, program TEXT, salt BLOB, sealed BLOB, PRIMARY KEY (stream, revision)) STRICT, WITHOUT ROWID"""


class Place(NamedTuple):
    """Where a fold stands: a revision of its stream, and that commit's hash. Nowhere, before the first commit."""

    revision: int = 0
    head: bytes = b""


NOWHERE = Place()


class Part(NamedTuple):
    """A fold, or what has changed of it since the part before, as it was at a place."""

    place: Place
    state: bytes


class Snapshots:
    """The newest of each stream, in parts. Trouble with the file only means that streams are read whole."""

    def __init__(self, path: Path, log_id: bytes, keys: DataKeys, ambient: Ambient) -> None:
        self.path, self._log_id, self._keys, self._ambient = path, log_id, keys, ambient
        self._db: sqlite3.Connection | None = None
        with contextlib.suppress(sqlite3.Error, OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=OFF")
            if self._db.execute("PRAGMA user_version").fetchone() != (_FORM,):
                self._db.execute("DROP TABLE IF EXISTS snapshot")  # another program's: a cache is made anew
                self._db.execute(f"PRAGMA user_version={_FORM}")
            self._db.execute(_SCHEMA)

    def save(self, stream: str, place: Place, program: str, state: bytes, after: Place = NOWHERE) -> bool:
        """Keep the fold of a stream; of one that was kept at an earlier place, what has changed ``after`` that.

        ``program`` names the code that folded, version included. What was kept of later places goes. False: trouble.
        """
        key, salt = self._keys.of_subject(stream), self._ambient.random(32)
        secret = sealing.event_key(sealing.hkdf_extract(salt, key.secret), 0)
        sealed = sealing.encrypt(secret, state, self._bound(stream, place, after, program, key.id))
        if self._db:
            with contextlib.suppress(sqlite3.Error):
                row = (stream, *place, *after, program, salt, sealed)
                self._db.execute("DELETE FROM snapshot WHERE stream = ? AND revision > ?", (stream, after.revision))
                self._db.execute("INSERT INTO snapshot VALUES (?,?,?,?,?,?,?,?)", row)
                return True
        return False

    def load(self, stream: str, program: str) -> list[Part]:
        """What is kept of a stream by this program, part by part; empty if nothing is, or nothing whole.

        The caller checks the last place by the log.
        """
        parts = list[Part]()
        with contextlib.suppress(sqlite3.Error, EventStoreError, TypeError):
            query = "SELECT * FROM snapshot WHERE stream = ? AND program = ? ORDER BY revision"
            rows = self._db.execute(query, (stream, program)).fetchall() if self._db else []
            for _, revision, head, base, base_head, _, salt, sealed in rows:
                place, after = Place(revision, head), Place(base, base_head)
                if after != (parts[-1].place if parts else NOWHERE):
                    break
                key = self._keys.of_subject(stream)
                secret = sealing.event_key(sealing.hkdf_extract(salt, key.secret), 0)
                state = sealing.decrypt(secret, sealed, self._bound(stream, place, after, program, key.id))
                parts.append(Part(place, state))
        return parts

    def close(self) -> None:
        """Close the file."""
        if self._db:
            self._db.close()

    def _bound(self, stream: str, place: Place, after: Place, program: str, key_id: bytes) -> bytes:
        where = sealing.Place(self._log_id, stream.encode(), place.revision, 0, b"snapshot", _FORM)
        base = after.revision.to_bytes(8) + after.head.ljust(32, b"\0")
        return sealing.associated(where, key_id) + place.head + base + program.encode()
