"""What an agent remembers beyond one task: keys and values on its own stream."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from ..eventstore.codec import NIL
from .errors import InputError
from .events import Settled
from .packing import name_of, pack, pack_input
from .task_state import WaitState

if TYPE_CHECKING:
    from .cell import TaskCell
    from .task import Task


def typed(key: str, value: bytes, kind: Any) -> Any:
    """A remembered value as a type; `InputError` where it is of another."""
    try:
        return msgspec.msgpack.decode(value, type=kind)
    except (msgspec.ValidationError, TypeError) as error:
        raise InputError(
            f"what is remembered under {key!r} is no {getattr(kind, '__name__', kind)}: {error}"
        ) from error


def matching(memory: Mapping[str, bytes], kind: Any, where: Callable[[Any], bool] | None) -> dict[str, bytes]:
    """The values, packed, that are of a type and of which ``where`` is true."""
    found: dict[str, bytes] = {}
    for key, packed in memory.items():
        try:
            value = msgspec.msgpack.decode(packed, type=kind)
        except msgspec.ValidationError:
            continue
        if where is None or where(value):
            found[key] = packed
    return found


class Memory:
    """Keys and values that an agent keeps on its own stream. Reads are recorded in the task that makes them."""

    def __init__(self, task: "Task", cell: "TaskCell") -> None:
        self._task, self._cell = task, cell

    async def get(self, key: str, default: Any = None, *, kind: Any = Any) -> Any:
        """The value under a key; ``default`` where there is none. `InputError` for a value that is no ``kind``."""

        async def run(wait: int, _: WaitState) -> Settled:
            value, source = await self._cell.work.recall(key)
            return Settled(wait, value or pack(default, key), source=source)

        settled = await self._task.wait_for("step", f"memory.get {key}", NIL, run)
        return default if settled.value == NIL else typed(key, settled.value, kind)

    async def find(
        self, *, prefix: str = "", kind: Any = Any, where: Callable[[Any], bool] | None = None
    ) -> dict[str, Any]:
        """The values under keys with a prefix that are of a type and of which ``where(value)`` is true, by key.

        What was found is recorded, not what was looked through: ``where`` is not called again on replay.
        """

        async def run(wait: int, _: WaitState) -> Settled:
            memory, source = await self._cell.work.memories(prefix)
            return Settled(wait, pack(matching(memory, kind, where), "what was found"), source=source)

        asked = pack((prefix, str(kind), name_of(where) if where else ""), "what is looked for")
        settled = await self._task.wait_for("step", "memory.find", asked, run)
        found = msgspec.msgpack.decode(settled.value, type=dict[str, bytes])
        return {key: typed(key, value, kind) for key, value in found.items()}

    async def set(self, key: str, value: Any) -> None:
        """Keep a value under a key, once. None forgets the key."""
        packed = pack_input(value, f"the value of {key}")

        async def run(wait: int, _: WaitState) -> Settled:
            return Settled(wait, source=await self._cell.work.remember(key, packed, wait))

        await self._task.wait_for("step", f"memory.set {key}", packed, run)
