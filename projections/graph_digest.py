"""The state hash of a graph: the same for every store, whatever the order in which things were written."""

import hashlib
from typing import Any, Protocol

import msgspec

from ..eventstore.errors import StoreBusyError
from .sink import Checkpoint, Id, Named

PAGE = 5_000
_TRIES = 5


class _Read(Protocol):
    """What of a sink is needed."""

    async def checkpoint(self, projection: Named) -> Checkpoint: ...

    async def items(self, projection: Named, after: Id = (), limit: int = 1_000) -> list[tuple[Id, Any]]: ...


async def digest_of(sink: _Read, projection: Named) -> str:
    """SHA-256 over the sizes and all items, sorted. `StoreBusyError` if it is written again and again meanwhile."""
    for _ in range(_TRIES):
        before = await sink.checkpoint(projection)
        state = hashlib.sha256(msgspec.msgpack.encode(sorted(before.sizes.items())))
        last: Id = ()
        while page := await sink.items(projection, last, PAGE):
            for identity, fields in page:
                state.update(msgspec.msgpack.encode((identity, sorted(fields.items()))))
            last = page[-1][0]
        if (await sink.checkpoint(projection)).turn == before.turn:
            return state.hexdigest()
    raise StoreBusyError(f"{projection.name} is written all the time: pause it to have its hash")
