"""Bundles: a task taken from a log in one file, to be gone over elsewhere.

    magic ‖ MessagePack [task, export, data keys by id, blobs by name]

The export is what a stranger can check (see `eventstore.export`); the data keys open the payloads in it and nothing
else, for each stream has its own. So whoever has the file can read what it holds.
"""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import msgspec

from ..eventstore.artifacts import Artifact, content_of, pieces_of
from ..eventstore.blobs import Blobs
from ..eventstore.codec import Codec
from ..eventstore.commit import DataKey
from ..eventstore.datakeys import DataKeys
from ..eventstore.errors import BlobError, CorruptLogError, DataKeyMissingError
from ..eventstore.export import export, read_export
from ..eventstore.log import Log
from ..eventstore.parts import parsed
from ..eventstore.reading import Commit, Opener, checked
from ..eventstore.verify import AES_GCM, DATA, Event, Malformed, Record, check_export, sha256
from .errors import InputError
from .events import CORE
from .past import LogPast
from .team import team_of

MAGIC = b"agent-party bundle 1\n"
MOST = 256 * 1024 * 1024
"""Bytes of blobs up to which the parts of large artifacts come along; beyond, opening one says that it is not here."""


class Contents(msgspec.Struct, array_like=True, frozen=True):
    """What a bundle holds. ``keys``: secrets of data keys by their ids."""

    task: str
    export: bytes
    keys: dict[bytes, bytes]
    blobs: dict[bytes, bytes]


async def bundle(log: Log, task: str, *, team: bool = False) -> bytes:
    """A task of a log, and with ``team`` all that it has delegated and the memories of their agents.

    Raises `UnknownTaskError`, and `DataKeyMissingError` where its payloads were erased.
    """
    past = LogPast(log)
    found = await team_of(past, task)
    streams = list(found.streams) if team else [f"task/{task}"]
    exported = await export(log, streams)
    _, records = read_export(exported)
    keys: dict[bytes, bytes] = {}
    blobs: dict[bytes, bytes] = {}
    for record in records:
        if record.header.kind == DATA:
            for event in checked(record.raw, record.header.stream, record.commit)[1]:
                await _needs(log, event, keys, blobs)
    return MAGIC + msgspec.msgpack.encode(Contents(task, exported, keys, blobs))


async def _needs(log: Log, event: Event, keys: dict[bytes, bytes], blobs: dict[bytes, bytes]) -> None:
    if event.suite == AES_GCM:
        keys[event.key_id] = log.keys.of_id(event.key_id).secret
    if event.in_blobs:
        blobs[event.payload] = await log.blobs.get(event.payload)
    for name in event.attachments:
        blobs[name] = await log.blobs.get(name)
        found = parsed(blobs[name])
        if found and found.size + sum(map(len, blobs.values())) <= MOST:
            blobs |= {part.blob: await log.blobs.get(part.blob) for part in found.parts}


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner may read; `FileExistsError` where there is one."""
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


class _Keys:
    def __init__(self, secrets: dict[bytes, bytes]) -> None:
        self._secrets = secrets

    def of_id(self, key_id: bytes) -> DataKey:
        if key_id not in self._secrets:
            raise DataKeyMissingError(f"data key {key_id.hex()[:16]} is not in the file: it was not taken with it")
        return DataKey(key_id, self._secrets[key_id])


class _Blobs:
    def __init__(self, blobs: dict[bytes, bytes]) -> None:
        self._blobs = blobs

    async def get(self, name: bytes) -> bytes:
        content = self._blobs.get(name)
        if content is None or sha256(content) != name:
            raise BlobError(f"blob {name.hex()[:16]} is {'not in the file' if content is None else 'altered'}")
        return content


class Bundle:
    """A bundle that was read, as a past: its export was judged, record by record, before anything else is believed.

    ``root`` and ``log_id`` are those that the file says, unless the reader gave the root that it must have.
    """

    def __init__(self, contents: Contents, root: bytes = b"") -> None:
        try:
            identity, records = read_export(contents.export)
        except Malformed as error:
            raise CorruptLogError("malformed", {"detail": str(error)}) from error
        report = check_export(contents.export, root or identity.root)
        if report["finding"]:
            raise CorruptLogError(str(report["finding"]), cast("dict[str, object]", report["at"]))
        self.task, self.root, self.log_id = contents.task, identity.root, identity.log_id
        self._identity, self._keys, self._blobs = identity, _Keys(contents.keys), _Blobs(contents.blobs)
        self._opener = Opener(identity, cast("DataKeys", self._keys), cast("Blobs", self._blobs), Codec(CORE))
        self._records: dict[str, list[Record]] = {}
        for record in records:
            if record.header.kind == DATA:
                self._records.setdefault(record.header.stream.decode(), []).append(record)

    @classmethod
    def read(cls, path: Path, root: bytes = b"") -> "Bundle":
        """A file. `InputError` for one that is none, `CorruptLogError` for one that does not hold."""
        try:
            data = path.read_bytes()
            if not data.startswith(MAGIC):
                raise InputError(f"{path} is no bundle of a task: `party task export ID -o FILE` writes one")
            return cls(msgspec.msgpack.decode(data[len(MAGIC) :], type=Contents), root)
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from error
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise InputError(f"{path} is no bundle of a task, or was cut: {error}") from error

    @property
    def tasks(self) -> list[str]:
        """The tasks in it."""
        return [name.removeprefix("task/") for name in self._records if name.startswith("task/")]

    async def commits(self, stream: str) -> list[Commit]:
        """As `Past`."""
        found = []
        for position, record in enumerate(self._records.get(stream, [])):
            _, events = checked(record.raw, record.header.stream, record.commit)
            found.append(await self._opener.commit(record, events, position))
        return found

    async def content(self, artifact: Artifact) -> bytes:
        """As `Past`."""
        return await content_of(self.log_id, self._keys, self._blobs.get, artifact)

    def pieces(self, artifact: Artifact) -> AsyncIterator[bytes]:
        """As `Past`."""
        return pieces_of(self.log_id, self._keys, self._blobs.get, artifact)
