"""What an agent remembers beyond one task: keys and values on its own stream."""

from typing import TYPE_CHECKING, Any

import msgspec

from .events import Settled
from .packing import pack, pack_input
from .task_state import WaitState

if TYPE_CHECKING:
    from .cell import TaskCell
    from .task import Task


class Memory:
    """Keys and values that an agent keeps on its own stream. Reads are recorded in the task that makes them."""

    def __init__(self, task: "Task", cell: "TaskCell") -> None:
        self._task, self._cell = task, cell

    async def get(self, key: str, default: Any = None) -> Any:
        """The value under a key."""

        async def run(wait: int, _: WaitState) -> Settled:
            return Settled(wait, await self._cell.work.recall(key) or pack(default, key))

        settled = await self._task.wait_for("step", f"memory.get {key}", b"\xc0", run)
        return msgspec.msgpack.decode(settled.value)

    async def set(self, key: str, value: Any) -> None:
        """Keep a value under a key, once. None forgets the key."""
        packed = pack_input(value, f"the value of {key}")

        async def run(wait: int, _: WaitState) -> Settled:
            await self._cell.work.remember(key, packed, wait)
            return Settled(wait)

        await self._task.wait_for("step", f"memory.set {key}", packed, run)
