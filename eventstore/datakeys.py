"""Data keys: one for each subject, wrapped, in `keys.db` beside the keyring, never on the log.

Destroying a row is what erasure is; so this file, unlike everything under ``.party`` but the log, must be backed up.
"""

import asyncio
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .backends.sqlite_errors import committed, prepared, translated
from .commit import DataKey
from .errors import DataKeyMissingError, WrongKeyError

_CACHE = 50_000
_CHUNK = 200
_SCHEMA = """CREATE TABLE IF NOT EXISTS data_key (id BLOB PRIMARY KEY, subject TEXT UNIQUE NOT NULL,
    wrapped BLOB NOT NULL) STRICT, WITHOUT ROWID"""


class DataKeys:
    """The data keys of one log. A key is on disk before it seals anything; many processes may share the file."""

    def __init__(self, path: Path, wrapping: bytes, random: Callable[[int], bytes] = os.urandom) -> None:
        self._path, self._aead, self._random = path, AESGCM(wrapping), random
        self._by_subject: dict[str, DataKey] = {}
        self._by_id: dict[bytes, DataKey] = {}
        self._asked: dict[str, asyncio.Future[DataKey]] = {}
        self._making: asyncio.Task[None] | None = None
        self._one = threading.Lock()
        with translated(path):
            existed = path.exists()
            if not existed:
                os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
            db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            self._db = prepared(db, "FULL", _SCHEMA)

    def of_subject(self, subject: str) -> DataKey:
        """The subject's key; made, and durable, at first use, for which this blocks (see `made`)."""
        return self._by_subject.get(subject) or self._of_subjects([subject])[0]

    def known(self, subject: str) -> DataKey | None:
        """The subject's key, if it is at hand."""
        return self._by_subject.get(subject)

    async def made(self, subject: str) -> DataKey:
        """As `of_subject`; but all keys that are asked for at once become durable in one transaction."""
        if key := self._by_subject.get(subject):
            return key
        self.soon(subject)
        return await asyncio.shield(self._asked[subject])

    def soon(self, subject: str) -> None:
        """This key will be asked for shortly: have it made meanwhile, if there is none."""
        if subject not in self._by_subject and subject not in self._asked:
            loop = asyncio.get_running_loop()
            self._asked[subject] = loop.create_future()
            if self._making is None or self._making.done():
                self._making = loop.create_task(self._make())

    async def _make(self) -> None:
        while self._asked:
            await asyncio.sleep(0)
            asked = dict(self._asked)
            try:
                keys = await asyncio.to_thread(self._of_subjects, list(asked))
            except Exception as error:
                for waiting in asked.values():
                    waiting.set_exception(error)
                    waiting.exception()  # perhaps nobody has asked for it yet
            else:
                for waiting, key in zip(asked.values(), keys, strict=True):
                    waiting.set_result(key)
            for subject in asked:
                del self._asked[subject]

    def _of_subjects(self, subjects: Sequence[str]) -> list[DataKey]:
        with self._one, translated(self._path):
            rows = self._select_all(subjects)
            if missing := [subject for subject in subjects if subject not in rows]:
                self._db.execute("BEGIN IMMEDIATE")
                with committed(self._db):
                    for first in range(0, len(missing), _CHUNK):
                        self._insert(missing[first : first + _CHUNK])
                rows = self._select_all(subjects)
        return [self._unwrap(*rows[subject]) for subject in subjects]

    def _insert(self, subjects: Sequence[str]) -> None:
        values: list[object] = []
        for subject in subjects:
            id_, secret, nonce = self._random(16), self._random(32), self._random(12)
            values += (id_, subject, nonce + self._aead.encrypt(nonce, secret, id_ + subject.encode()))
        rows = ",".join(["(?,?,?)"] * len(subjects))  # one statement: a thread waits for the loop at each
        self._db.execute(f"INSERT OR IGNORE INTO data_key VALUES {rows}", tuple(values))

    def _select_all(self, subjects: Sequence[str]) -> dict[str, tuple[bytes, str, bytes]]:
        query = "SELECT id, subject, wrapped FROM data_key WHERE subject IN (SELECT value FROM json_each(?))"
        return {row[1]: row for row in self._db.execute(query, (json.dumps(subjects),)).fetchall()}

    def of_id(self, key_id: bytes) -> DataKey:
        """The key that a record names; `DataKeyMissingError` if it was erased or never was here."""
        if key := self._by_id.get(key_id):
            return key
        with self._one, translated(self._path):
            query = "SELECT id, subject, wrapped FROM data_key WHERE id = ?"
            row = self._db.execute(query, (key_id,)).fetchone()
        if row is None:
            raise DataKeyMissingError(
                f"data key {key_id.hex()[:16]} is not in {self._path.name}: it was erased, or this keyring never had it"
            )
        return self._unwrap(*row)

    def close(self) -> None:
        """Close the file and drop the keys from memory."""
        with self._one:
            self._db.close()
        self._by_subject.clear()
        self._by_id.clear()

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
