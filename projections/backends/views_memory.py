"""Views in memory: the reference."""

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from ..projection import Add, Delete, Projection, Put, Sizes, Write

Documents = dict[tuple[str, str], dict[str, Any]]


class MemoryViews:
    """Lives as long as the object."""

    def __init__(self) -> None:
        self._documents: dict[str, Documents] = {}
        self._checkpoints: dict[str, tuple[int, Sizes]] = {}

    async def checkpoint(self, projection: Projection) -> Sizes:
        version, sizes = self._checkpoints.get(projection.name, (projection.version, {}))
        return dict(sizes) if version == projection.version else {}

    async def apply(self, projection: Projection, before: Sizes, after: Sizes, writes: Iterable[Write]) -> bool:
        if await self.checkpoint(projection) != before:
            return False
        documents = {} if not before else self._documents.get(projection.name, {})
        writes = list(writes)
        touched = {(write.view, write.key) for write in writes}
        changed = {name: dict(documents[name]) for name in touched & documents.keys()}
        for write in writes:
            apply_to(changed, write)
        for name in touched - changed.keys():
            documents.pop(name, None)
        self._documents[projection.name] = documents | changed
        self._checkpoints[projection.name] = (projection.version, dict(after))
        return True

    async def get(self, view: str, key: str) -> dict[str, Any] | None:
        return next((dict(d[view, key]) for d in self._documents.values() if (view, key) in d), None)

    async def scan(
        self, view: str, prefix: str = "", limit: int = 10_000, after: str = ""
    ) -> list[tuple[str, dict[str, Any]]]:
        found = [
            (key, dict(fields))
            for documents in self._documents.values()
            for (name, key), fields in documents.items()
            if name == view and key.startswith(prefix) and key > after
        ]
        return sorted(found, key=lambda item: item[0])[:limit]

    async def digest(self, projection: Projection) -> str:
        documents = self._documents.get(projection.name, {})
        return digest_of(await self.checkpoint(projection), sorted(documents.items()))

    async def drop(self, projection: Projection) -> None:
        self._documents.pop(projection.name, None)
        self._checkpoints.pop(projection.name, None)

    async def close(self) -> None:
        return


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


def digest_of(sizes: Sizes, documents: Iterable[tuple[tuple[str, str], dict[str, Any]]]) -> str:
    """SHA-256 over a checkpoint and sorted documents."""
    state = hashlib.sha256(msgspec.msgpack.encode(sorted(sizes.items())))
    for (view, key), fields in documents:
        state.update(msgspec.msgpack.encode((view, key, sorted(fields.items()))))
    return state.hexdigest()
