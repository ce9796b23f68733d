"""Documents as a batch will leave them, and what writes do to documents: the same for every store of views."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from .projection import Add, Delete, Put, Views, Write
from .sink import Named, Sizes

Documents = dict[tuple[str, str], dict[str, Any]]


class DocumentsAhead:
    """``views`` is None where nothing was projected before."""

    def __init__(self, projection: Named, views: Views | None) -> None:
        self._projection, self._views = projection, views
        self._read: Documents = {}
        self._known: set[tuple[str, str]] = set()
        self._unread: dict[tuple[str, str], list[Write]] = {}
        self.writes: list[Write] = []

    async def read(self, view: str, key: str) -> Mapping[str, Any]:
        """One document; empty if there is none."""
        name = view, key
        if name not in self._known:
            self._known.add(name)
            if self._views and (found := await self._views.read(self._projection, view, key)) is not None:
                self._read[name] = found
            for write in self._unread.pop(name, ()):
                apply_to(self._read, write)
        return self._read.get(name, {})

    async def expect(self, streams: Iterable[str]) -> None:
        """What their commits will ask for cannot be told before."""

    def add(self, writes: Iterable[Write]) -> list[Write]:
        """These come next."""
        added = list(writes)
        self.writes += added
        for write in added:
            name = write.view, write.key
            if name in self._known:
                apply_to(self._read, write)
            else:
                self._unread.setdefault(name, []).append(write)
        return added

    def following(self) -> None:
        """A document that was added to and not read cannot be told before it is written."""


def apply_to(documents: Documents, write: Write) -> None:
    """Apply one write to documents in memory."""
    match write:
        case Put(view, key, fields):
            merged = {**documents.get((view, key), {}), **fields}
            documents[view, key] = {name: value for name, value in merged.items() if value is not None}
        case Add(view, key, field, amount):
            document = documents.setdefault((view, key), {})
            document[field] = document.get(field, 0) + amount
        case Delete(view, key):
            documents.pop((view, key), None)


def touched(writes: Iterable[Write]) -> list[tuple[str, str]]:
    """The documents that writes are about, sorted."""
    return sorted({(write.view, write.key) for write in writes})


class Digest:
    """SHA-256 over a checkpoint's sizes and documents in the order of their ids."""

    def __init__(self, sizes: Sizes) -> None:
        self._state = hashlib.sha256(msgspec.msgpack.encode(sorted(sizes.items())))

    def add(self, view: str, key: str, fields: Mapping[str, Any]) -> None:
        """The next document."""
        self._state.update(msgspec.msgpack.encode((view, key, sorted(fields.items()))))

    def hex(self) -> str:
        """What it has come to."""
        return self._state.hexdigest()
