"""Views in memory: the reference."""

import asyncio
import contextlib
import copy
from collections.abc import Iterable
from typing import Any, Self

from ..ahead import Digest, Documents, DocumentsAhead, apply_to, touched
from ..projection import DEAD_LETTERS, Write, letter_of, letter_writes
from ..sink import MOST_LETTERS, NO_LETTERS, Checkpoint, Id, Letter, Letters, Named, Sizes


class _Kept:
    """One side of a projection."""

    def __init__(self, checkpoint: Checkpoint, documents: Documents) -> None:
        self.checkpoint, self.documents = checkpoint, documents


class MemoryViews:
    """Lives as long as the object."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, bool], _Kept] = {}
        self._waiting: set[asyncio.Event] = set()
        self._live = True

    def beside(self) -> Self:
        other = copy.copy(self)
        other._live = False
        return other

    def _of(self, projection: Named, live: bool | None = None) -> _Kept:
        side = self._live if live is None else live
        return self._kept.get((projection.name, side)) or _Kept(Checkpoint(), {})

    async def checkpoint(self, projection: Named) -> Checkpoint:
        found = self._of(projection).checkpoint
        return found._replace(sizes=dict(found.sizes))

    async def apply(
        self,
        projection: Named,
        before: Checkpoint,
        after: Sizes,
        writes: Iterable[Write],
        letters: Letters = NO_LETTERS,
    ) -> Checkpoint | None:
        kept = self._of(projection)
        stands = kept.checkpoint
        if stands.turn != before.turn:
            return None
        writes = [*writes, *letter_writes(projection, letters)]
        documents = kept.documents if stands.sizes else {}
        names = touched(writes)
        changed = self._changed(documents, names, writes)
        for name in names:
            documents.pop(name, None)
        documents.update(changed)
        now = Checkpoint(dict(after), stands.turn + 1, projection.version, stands.paused)
        self._put(projection, self._live, _Kept(now, documents))
        return now

    def _put(self, projection: Named, live: bool, kept: _Kept) -> None:
        self._kept[projection.name, live] = kept
        for event in self._waiting:
            event.set()

    def _changed(self, documents: Documents, names: list[tuple[str, str]], writes: Iterable[Write]) -> Documents:
        """These documents, as the writes leave them."""
        changed = {name: dict(documents[name]) for name in names if name in documents}
        for write in writes:
            apply_to(changed, write)
        return changed

    def ahead(self, projection: Named, before: Checkpoint) -> DocumentsAhead:
        return DocumentsAhead(projection, self if before.sizes else None)

    async def read(self, projection: Named, view: str, key: str) -> dict[str, Any] | None:
        found = self._of(projection).documents.get((view, key))
        return None if found is None else dict(found)

    async def get(self, view: str, key: str) -> dict[str, Any] | None:
        live = (kept.documents for (_, live), kept in self._kept.items() if live)
        return next((dict(documents[view, key]) for documents in live if (view, key) in documents), None)

    async def scan(
        self, view: str, prefix: str = "", limit: int = 10_000, after: str = ""
    ) -> list[tuple[str, dict[str, Any]]]:
        found = [
            (key, dict(fields))
            for (_, live), kept in self._kept.items()
            if live
            for (name, key), fields in kept.documents.items()
            if name == view and key.startswith(prefix) and (key > after or not after)
        ]
        return sorted(found, key=lambda item: item[0])[:limit]

    async def letters(self, projection: Named) -> dict[str, Letter]:
        documents = self._of(projection).documents
        found = [letter_of(fields) for (view, _), fields in sorted(documents.items()) if view == DEAD_LETTERS]
        return {letter.stream: letter for letter in found[:MOST_LETTERS]}

    async def digest(self, projection: Named) -> str:
        kept = self._of(projection)
        digest = Digest(kept.checkpoint.sizes)
        for (view, key), fields in sorted(kept.documents.items()):
            digest.add(view, key, fields)
        return digest.hex()

    async def items(self, projection: Named, after: Id = (), limit: int = 1_000) -> list[tuple[Id, Any]]:
        found: list[tuple[Id, Any]] = sorted(self._of(projection).documents.items())
        return [(name, dict(fields)) for name, fields in found if name > after][:limit]

    async def drop(self, projection: Named) -> None:
        self._set(projection, Checkpoint(), {}, self._live)

    def _set(self, projection: Named, checkpoint: Checkpoint, documents: Documents, live: bool) -> None:
        """What stands now, a turn later; paused if it was."""
        was = self._of(projection, live).checkpoint
        now = checkpoint._replace(turn=was.turn + 1, paused=was.paused)
        self._put(projection, live, _Kept(now, documents))

    async def pause(self, projection: Named, reason: str) -> None:
        kept = self._of(projection)
        now = kept.checkpoint._replace(turn=kept.checkpoint.turn + 1, paused=reason)
        self._put(projection, self._live, _Kept(now, kept.documents))

    async def swap(self, projection: Named, live: Checkpoint, scratch: Checkpoint) -> bool:
        new = self._of(projection, live=False)
        if (self._of(projection, live=True).checkpoint.turn, new.checkpoint.turn) != (live.turn, scratch.turn):
            return False
        self._set(projection, new.checkpoint, new.documents, live=True)
        self._set(projection, Checkpoint(), {}, live=False)
        return True

    async def projections(self) -> list[str]:
        return sorted(name for (name, live), kept in self._kept.items() if live == self._live and kept.checkpoint.sizes)

    async def changed(self, projection: Named, turn: int, timeout: float) -> None:
        event = asyncio.Event()
        self._waiting.add(event)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    while self._of(projection).checkpoint.turn == turn:
                        event.clear()
                        await event.wait()
        finally:
            self._waiting.discard(event)

    async def close(self) -> None:
        return
