"""Data keys: one for each subject, wrapped, in `keys.db` beside the keyring, never on the log.

Destroying a row is what erasure is; so this file, unlike everything under ``.party`` but the log, must be backed up.
"""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .backends.sqlite_errors import prepared, translated
from .commit import DataKey
from .errors import DataKeyMissingError, WrongKeyError

_CACHE = 50_000
_SCHEMA = """CREATE TABLE IF NOT EXISTS data_key (id BLOB PRIMARY KEY, subject TEXT UNIQUE NOT NULL,
    wrapped BLOB NOT NULL) STRICT, WITHOUT ROWID"""


class DataKeys:
    """The data keys of one log. A key is on disk before it seals anything; many processes may share the file."""

    def __init__(self, path: Path, wrapping: bytes, random: Callable[[int], bytes] = os.urandom) -> None:
        self._path, self._aead, self._random = path, AESGCM(wrapping), random
        self._by_subject: dict[str, DataKey] = {}
        self._by_id: dict[bytes, DataKey] = {}
        with translated(path):
            existed = path.exists()
            if not existed:
                os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
            db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            self._db = prepared(db, "FULL", _SCHEMA)

    def of_subject(self, subject: str) -> DataKey:
        """The subject's key; made, and durable, at first use."""
        if key := self._by_subject.get(subject):
            return key
        with translated(self._path):
            row = self._select("subject", subject)
            if row is None:
                id_, secret, nonce = self._random(16), self._random(32), self._random(12)
                wrapped = nonce + self._aead.encrypt(nonce, secret, id_ + subject.encode())
                self._db.execute("INSERT OR IGNORE INTO data_key VALUES (?, ?, ?)", (id_, subject, wrapped))
                row = self._select("subject", subject)
        assert row is not None
        return self._unwrap(*row)

    def of_id(self, key_id: bytes) -> DataKey:
        """The key that a record names; `DataKeyMissingError` if it was erased or never was here."""
        if key := self._by_id.get(key_id):
            return key
        with translated(self._path):
            row = self._select("id", key_id)
        if row is None:
            raise DataKeyMissingError(
                f"data key {key_id.hex()[:16]} is not in {self._path.name}: it was erased, or this keyring never had it"
            )
        return self._unwrap(*row)

    def close(self) -> None:
        """Close the file and drop the keys from memory."""
        self._db.close()
        self._by_subject.clear()
        self._by_id.clear()

    def _select(self, column: str, value: object) -> tuple[bytes, str, bytes] | None:
        row: tuple[bytes, str, bytes] | None = self._db.execute(
            f"SELECT id, subject, wrapped FROM data_key WHERE {column} = ?", (value,)
        ).fetchone()
        return row

    def _unwrap(self, id_: bytes, subject: str, wrapped: bytes) -> DataKey:
        try:
            secret = self._aead.decrypt(wrapped[:12], wrapped[12:], id_ + subject.encode())
        except (InvalidTag, ValueError):
            raise WrongKeyError(
                f"the data key of {subject} does not unwrap: {self._path} and its wrapping key do not belong together"
            ) from None
        if len(self._by_id) >= _CACHE:
            self._by_id.clear()
            self._by_subject.clear()
        key = self._by_id[id_] = self._by_subject[subject] = DataKey(id_, secret)
        return key
