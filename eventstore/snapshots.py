"""Snapshots: a cache of folds, never truth. Sealed with the stream's data key, checked against the chain before use."""

import contextlib
import sqlite3
from pathlib import Path

from . import sealing
from .ambient import Ambient
from .datakeys import DataKeys
from .errors import EventStoreError

_SCHEMA = """CREATE TABLE IF NOT EXISTS snapshot (stream TEXT PRIMARY KEY, revision INTEGER, head BLOB, program TEXT,
    salt BLOB, sealed BLOB) STRICT"""


class Snapshots:
    """One row for each stream, the newest. Trouble with the file only means that streams are read whole."""

    def __init__(self, path: Path, log_id: bytes, keys: DataKeys, ambient: Ambient) -> None:
        self.path, self._log_id, self._keys, self._ambient = path, log_id, keys, ambient
        self._db: sqlite3.Connection | None = None
        with contextlib.suppress(sqlite3.Error, OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=OFF")
            self._db.execute(_SCHEMA)

    def save(self, stream: str, revision: int, head: bytes, program: str, state: bytes) -> None:
        """Keep the fold of a stream at a revision. ``program`` names the code that folded, version included."""
        key, salt = self._keys.of_subject(stream), self._ambient.random(32)
        secret = sealing.event_key(sealing.hkdf_extract(salt, key.secret), 0)
        sealed = sealing.encrypt(secret, state, self._bound(stream, revision, head, program, key.id))
        if self._db:
            with contextlib.suppress(sqlite3.Error):
                row = (stream, revision, head, program, salt, sealed)
                self._db.execute("INSERT OR REPLACE INTO snapshot VALUES (?,?,?,?,?,?)", row)

    def load(self, stream: str, program: str) -> tuple[int, bytes, bytes] | None:
        """Revision, commit hash and state, if there is one by this program. The caller checks the hash by the log."""
        try:
            query = "SELECT revision, head, salt, sealed FROM snapshot WHERE stream = ? AND program = ?"
            row = self._db.execute(query, (stream, program)).fetchone() if self._db else None
            if row is None:
                return None
            revision, head, salt, sealed = row
            key = self._keys.of_subject(stream)
            secret = sealing.event_key(sealing.hkdf_extract(salt, key.secret), 0)
            return revision, head, sealing.decrypt(secret, sealed, self._bound(stream, revision, head, program, key.id))
        except (sqlite3.Error, EventStoreError, TypeError):
            return None

    def close(self) -> None:
        """Close the file."""
        if self._db:
            self._db.close()

    def _bound(self, stream: str, revision: int, head: bytes, program: str, key_id: bytes) -> bytes:
        place = sealing.Place(self._log_id, stream.encode(), revision, 0, b"snapshot", 1)
        return sealing.associated(place, key_id) + head + program.encode()
