"""What a task came to: the last event of its stream. Read without folding what came before."""

import asyncio
from typing import Any

from ..eventstore.log import Log
from .errors import TaskCancelledError, TaskFailedError
from .events import Cancelled, Completed, Failed
from .packing import unpack
from .watch import Calm, Watch

Ending = Completed | Failed | Cancelled
_LONG = 3600.0


async def end_of(log: Log, stream: str) -> Ending | None:
    """What a task came to, if it has come to something."""
    revision = (await log.state(stream)).revision
    async for commit in log.read(stream, max(1, revision), lenient=True):
        for event in commit.events:
            if isinstance(event, Ending):
                return event
    return None


async def ended(log: Log, watch: Watch, stream: str, timeout: float | None = None) -> Ending | None:
    """Wait for what a task comes to, wherever it runs; None if ``timeout`` seconds pass before."""
    loop, calm, revision = asyncio.get_running_loop(), Calm(), 0
    until = None if timeout is None else loop.time() + timeout
    while True:
        await watch.calmly(stream, calm)
        left = _LONG if until is None else until - loop.time()
        if await watch.beyond(stream, revision, left):
            revision = (await log.state(stream)).revision
            if watch.may_have_ended(stream) and (found := await end_of(log, stream)):
                return found
        elif until is not None and loop.time() >= until:
            return None


def value_of(task: str, ending: Ending, output: Any = Any) -> Any:
    """What a task returned, as its declared type. Raises `TaskFailedError` or `TaskCancelledError`."""
    match ending:
        case Completed():
            return unpack(ending.result, output)
        case Failed(failure=failure):
            raise TaskFailedError(task, f"task {task}: {failure.kind}: {failure.message}")
        case Cancelled(by=by, reason=reason):
            raise TaskCancelledError(task, f"task {task} was cancelled by {by}" + (f": {reason}" if reason else ""))
