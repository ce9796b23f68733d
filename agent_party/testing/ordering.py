"""Tasks and futures that stand in a set in the order in which they were made, so that a run repeats."""

import asyncio
from typing import Any, Self


class VirtualTask(asyncio.Task[Any]):
    """A task whose place in a set depends on when it was made, not on where it lies in memory."""

    def __new__(cls, *_: Any, loop: Any, **__: Any) -> Self:
        task = super().__new__(cls)
        task.serial = next(loop.serials)
        return task

    serial: int

    def __hash__(self) -> int:
        return self.serial


class VirtualFuture(asyncio.Future[Any]):
    """The same for a future."""

    def __new__(cls, *, loop: Any) -> Self:
        future = super().__new__(cls)
        future.serial = next(loop.serials)
        return future

    serial: int

    def __hash__(self) -> int:
        return self.serial
