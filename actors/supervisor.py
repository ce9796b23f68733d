"""Keeps what the log says should run, and what runs here, the same; and hears what is left in inboxes."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from ..eventstore.errors import (
    BlobError,
    EventStoreError,
    KeyringError,
    LogError,
    PayloadError,
    SchemaError,
)
from .activation import load
from .decider import stream_of
from .dj import TaskRow
from .errors import CallError, MailboxFullError
from .events import Stated
from .statements import says_cancel
from .task_state import TASK, TaskState

if TYPE_CHECKING:
    from .host import Host

ROUND = 2.0
"""Seconds between two looks at what should run."""
LIMIT = 20_000
_UNREADABLE = (SchemaError, PayloadError, BlobError, KeyringError, LogError)
_log = logging.getLogger("agent_party")


class Supervisor:
    """One for each host. ``aside``: tasks that cannot go on with the code that is here."""

    def __init__(self, host: "Host") -> None:
        self._host = host
        self.aside: set[str] = set()
        self.closed = False
        self._background: set[asyncio.Task[Any]] = set()
        self._reconciler: asyncio.Task[None] | None = None
        host.watch.on_inbox(self._inbox_grew)

    async def start(self) -> None:
        """New code has joined: look at everything again, now and from now on."""
        self.aside.clear()
        await self.reconcile()
        if self._reconciler is None:
            self._reconciler = asyncio.get_running_loop().create_task(self._keep_reconciling())

    async def stop(self) -> None:
        """Stop looking."""
        work = [*self._background, *([self._reconciler] if self._reconciler else [])]
        self._reconciler = None
        for task in work:
            task.cancel()
        if work:
            await asyncio.wait(work)

    def _inbox_grew(self, stream: str) -> None:
        if self.closed or (stream and not stream.startswith("task/")):
            return
        task = stream.removeprefix("task/")
        if stream and task not in self._host.cells:
            self._spawn(self._wake(task))
        for cell in [self._host.cells.get(task)] if stream else list(self._host.cells.values()):
            if cell:
                self._spawn(cell.messages.read_inbox())

    async def _wake(self, task: str) -> None:
        """Somebody has left something for a task that nobody may be running."""
        stream = stream_of("task", task)
        if (
            not self._host.wants(task)
            or self._host.lives(await self._host.doorman.holder_of(stream))
            or await self._host.end_of(stream)
        ):
            return
        state = (await load(self._host.log, TASK, stream, snapshots=self._host.snapshots)).state
        # Without its code a task is only taken over to be cancelled.
        if self._host.handler_for(state) or await self._is_to_be_cancelled(task, state.inbox):
            cell = await self._host.activate(task)
            if cell:
                await self._host.go(cell)

    async def _is_to_be_cancelled(self, task: str, read: int) -> bool:
        async for commit in self._host.log.read(f"inbox/task/{task}", read + 1, lenient=True):
            if any(isinstance(event, Stated) and says_cancel(event) for event in commit.events):
                return True
        return False

    async def reconcile(self) -> None:
        """Activate the unfinished tasks that belong here and that nobody alive runs."""
        rows = await self._host.registry.tasks(unfinished=True, limit=LIMIT)
        unfinished = {row.id for row in rows}
        self._host.waiting_for = {task: what for task, what in self._host.waiting_for.items() if task in unfinished}
        for row in rows:
            try:
                await self._reconcile(row, unfinished)
            except MailboxFullError:
                return
            except _UNREADABLE as error:
                _log.warning("task %s cannot be read and is set aside until code joins: %s", row.id, error)
                self.aside.add(row.id)
            except (EventStoreError, CallError) as error:
                _log.warning("task %s is set aside for now: %s", row.id, error)

    async def _reconcile(self, row: TaskRow, unfinished: set[str]) -> None:
        mine = row.id in self._host.cells or self._host.wants(row.id)
        if not mine or row.id in self.aside:
            return
        if row.parent and row.parent not in unfinished and await self._is_orphan(row):
            await self._host.cancel_here(row.id, row.parent, f"its parent {row.parent} has ended")
        elif row.id not in self._host.cells and self._host.handler_for(
            TaskState(capability=row.capability, agent=row.agent)
        ):
            cell = await self._host.activate(row.id)
            if cell:
                await self._host.go(cell)

    async def _is_orphan(self, row: TaskRow) -> bool:
        if not await self._host.end_of(stream_of("task", row.parent)):
            return False
        stream = stream_of("task", row.id)
        return not (await load(self._host.log, TASK, stream, snapshots=self._host.snapshots)).state.detached

    async def _keep_reconciling(self) -> None:
        while True:
            await asyncio.sleep(ROUND)
            try:
                await self.reconcile()
            except (EventStoreError, CallError) as error:
                _log.warning("reconciling is set aside: %s", error)
            except Exception:
                _log.exception("reconciling failed, by a fault of this program")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(self._noted(work))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _noted(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except (EventStoreError, CallError) as error:
            _log.warning("work in the background is set aside: %s", error)
        except Exception:
            _log.exception("work in the background failed, by a fault of this program")
