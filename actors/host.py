"""A host: runs cells in one process, one or many. The local runtime is one host; on Ray each host is an actor."""

import asyncio
import contextlib
import hashlib
import logging
import weakref
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from ..eventstore.errors import (
    BlobError,
    EventStoreError,
    IdReusedError,
    KeyringError,
    LogError,
    PayloadError,
    SchemaError,
)
from ..eventstore.log import Log
from ..eventstore.snapshots import Snapshots
from ..eventstore.verify import Cause
from .activation import load
from .agent import Agent, Capability
from .cell import TaskCell
from .decider import Decider, Reply, stream_of
from .dj import Registry, TaskRow
from .doorman import Doorman
from .effects import Effects
from .entities import Entities, entity_fold
from .errors import CallError, DeadlineError, MailboxFullError, MovedError, SettledError
from .events import Cancelled, Completed, Failed, Failure, Requested, Settled
from .presence import Presence
from .registrations import Registrations
from .runtime import DEADLINE, Runtime
from .task_state import TASK, TaskState
from .watch import Calm, Watch

CELLS = 20_000
"""How many tasks may be live in one process."""
PATIENCE = 2.0
"""Seconds that another process has to record the request of a task that it has taken on."""
_RECONCILE = 2.0
_UNREADABLE = (SchemaError, PayloadError, BlobError, KeyringError, LogError)
_log = logging.getLogger("agent_party")


class Host:
    """``wants`` says which tasks belong here, where several hosts share them out.

    ``waiting_for``: for each unfinished task that was asked for here, what is lacking here to go on with it.
    """

    def __init__(
        self,
        log: Log,
        registry: Registry,
        presence: Presence,
        snapshots: Snapshots | None = None,
        wants: Callable[[str], bool] = lambda task: True,
    ) -> None:
        self.log, self.registry, self.presence, self.snapshots, self.wants = log, registry, presence, snapshots, wants
        self.doorman, self.watch = Doorman(log, presence.holder), Watch(log)
        self.runtime: Runtime | None = None
        self.agents: dict[str, Agent] = {}
        self.cells: dict[str, TaskCell] = {}
        self.waiting_for: dict[str, str] = {}
        self.effects = Effects()
        self._entities = Entities(log, self.doorman, snapshots, self._lock)
        self._registrations = Registrations(log, self.doorman, presence, snapshots, self._lock)
        self._limits: dict[str, asyncio.Semaphore] = {}
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._aside: set[str] = set()
        self._background: set[asyncio.Task[Any]] = set()
        self._reconciler: asyncio.Task[None] | None = None
        self._closed = False
        self.watch.on_inbox(self._inbox_grew)

    # Agents

    async def join(self, agents: Sequence[Agent], *, owner: bool = True) -> None:
        """Bring code in. ``owner``: this process also writes the agents' own streams."""
        for agent in agents:
            self.agents[agent.name] = agent
            self._limits.pop(agent.name, None)
            if owner:
                await self._registrations.register(agent)
        self._aside.clear()
        self.log.tail()
        await self.reconcile()
        if self._reconciler is None:
            self._reconciler = asyncio.get_running_loop().create_task(self._keep_reconciling())

    async def leave(self) -> None:
        """Let all agents go; what they were doing is passivated where it stands."""
        background = [*self._background, *([self._reconciler] if self._reconciler else [])]
        self._reconciler = None
        for work in background:
            work.cancel()
        if background:
            await asyncio.wait(background)
        await asyncio.gather(*(cell.close() for cell in list(self.cells.values())))
        self.cells.clear()
        await self._registrations.leave()
        self.agents.clear()

    def handler_for(self, state: TaskState) -> tuple[Agent, Capability] | None:
        """Who here can do a task."""
        for agent in self.agents.values():
            capability = agent.capabilities.get(state.capability)
            if capability and state.agent in ("", agent.name):
                return agent, capability
        return None

    def limit(self, agent: Agent) -> asyncio.Semaphore:
        """The agent's limit on tasks at once."""
        return self._limits.setdefault(agent.name, asyncio.Semaphore(agent.concurrency))

    async def recall(self, agent: str, key: str) -> bytes | None:
        """What an agent remembers under a key, packed."""
        if self.runtime and not self._registrations.owns(agent):
            return await self.runtime.recall(agent, key)
        return await self._registrations.recall(agent, key)

    async def remember(self, agent: str, key: str, value: bytes, command_id: bytes) -> None:
        """Have an agent remember."""
        if self.runtime and not self._registrations.owns(agent):
            await self.runtime.remember(agent, key, value, command_id)
        else:
            await self._registrations.remember(agent, key, value, command_id)

    # Tasks

    async def place(self, task: str, requested: Requested, cause: Cause | None = None) -> None:
        """Start a task here, or where the runtime places it."""
        if self.runtime:
            await self.runtime.place(task, requested, cause)
        else:
            await self.start_task(task, requested, cause)

    async def start_task(self, task: str, requested: Requested, cause: Cause | None = None) -> None:
        """Start a task here, unless it is finished or lives in another process. The request is on the log then."""
        loop, stream = asyncio.get_running_loop(), stream_of("task", task)
        began = loop.time()
        while loop.time() < began + DEADLINE:
            late = loop.time() > began + PATIENCE
            cell = self.cells.get(task) or await self.activate(task, new=True, steal=late)
            if cell is None:
                if await self._is_same(task, requested):
                    return
                await self.watch.beyond(stream, 0, PATIENCE)
                continue
            try:
                await cell.request(requested, cause)
            except MovedError:
                cell.drop()
                continue
            finally:
                await self._go(cell)
            return
        raise DeadlineError(f"task {task} is not on the log after {DEADLINE:g} s: ask again with the same id")

    async def _is_same(self, task: str, requested: Requested) -> bool:
        """Whether a task is on the log; `IdReusedError` if it is another one."""
        state = (await load(self.log, TASK, stream_of("task", task), snapshots=self.snapshots)).state
        if state.status and (state.capability, state.input) != (requested.capability, requested.input):
            raise IdReusedError(f"task/{task}", task)
        return bool(state.status)

    async def activate(self, task: str, *, new: bool = False, steal: bool = False) -> TaskCell | None:
        """Make a task live here; None if it is finished, unknown, or lives in a process that is alive.

        ``new``: it may be unknown. ``steal``: an unknown one may also be taken from a process that only began it.
        """
        async with self._lock(task):
            if task in self.cells:
                return self.cells[task]
            stream = stream_of("task", task)
            known, holder = (await self.log.state(stream)).revision, await self.doorman.holder_of(stream)
            if not known and holder is None and not new:
                return None
            elsewhere = holder not in (None, self.presence.holder) and self._lives(holder)
            if (elsewhere and (known or not steal)) or (known and await self._end_of(stream)):
                return None
            if len(self.cells) >= CELLS:
                raise MailboxFullError(f"this host runs {CELLS:,} tasks already: wait for some to finish, or add hosts")
            cell = TaskCell(self, task)
            await cell.start()
            if cell.state.finished:
                return None
            self.cells[task] = cell
        try:
            await cell.read_inbox()
        except EventStoreError as error:
            _log.warning("the inbox of task %s cannot be read: %s", task, error)
        return cell

    async def _go(self, cell: TaskCell) -> None:
        """Run a cell's handler, if its code is here; else let the task go, for whoever has it."""
        if cell.closed:
            return
        state = cell.state
        if state.finished or not state.status:
            self.ran(cell)
        elif found := self.handler_for(state):
            self.waiting_for.pop(cell.id, None)
            cell.go(*found)
        else:
            who = f"agent {state.agent}" if state.agent else "an agent"
            self.waiting_for[cell.id] = f"{who} with capability {state.capability} to join"
            with contextlib.suppress(MovedError):
                await cell.release()

    async def _end_of(self, stream: str) -> Completed | Failed | Cancelled | None:
        """What a task came to: the last event of its stream, if it has come to something."""
        revision = (await self.log.state(stream)).revision
        async for commit in self.log.read(stream, max(1, revision), lenient=True):
            for event in commit.events:
                if isinstance(event, Completed | Failed | Cancelled):
                    return event
        return None

    def _lives(self, holder: bytes | None) -> bool:
        return holder is not None and self.presence.alive(holder)

    def ran(self, cell: TaskCell) -> None:
        """A cell's handler has ended, one way or another: the cell is passivated."""
        if self.cells.get(cell.id) is cell:
            del self.cells[cell.id]

    def set_aside(self, task: str) -> None:
        """A task cannot go on with the code that is here: it is not tried again until code joins."""
        self._aside.add(task)

    async def cancel(self, task: str, by: str, reason: str) -> None:
        """Cancel a task, here or where the runtime finds it."""
        cell = self.cells.get(task)
        if cell is None and self.runtime:
            await self.runtime.cancel(task, by, reason)
        else:
            await self.cancel_here(task, by, reason)

    async def cancel_here(self, task: str, by: str, reason: str) -> None:
        """Cancel a task that is live here, or can be."""
        cell = self.cells.get(task) or await self.activate(task)
        if cell:
            with contextlib.suppress(SettledError):
                await cell.cancel(by, reason)

    async def outcome(self, task: str, wait: int) -> Settled:
        """Wait for what a task comes to, wherever it runs."""
        stream, revision, calm = stream_of("task", task), 0, Calm()
        while True:
            await calm.wait()
            if await self.watch.beyond(stream, revision, 3600):
                revision = (await self.log.state(stream)).revision
                match await self._end_of(stream):
                    case Completed(result=result):
                        return Settled(wait, result)
                    case Failed(failure=failure):
                        return Settled(wait, failure=failure)
                    case Cancelled(by=by):
                        text = f"task {task} was cancelled by {by}"
                        return Settled(wait, failure=Failure("TaskCancelledError", text))

    def _inbox_grew(self, stream: str) -> None:
        if self._closed or (stream and not stream.startswith("task/")):
            return
        task = stream.removeprefix("task/")
        if stream and task not in self.cells:
            self._spawn(self._wake(task))
        for cell in [self.cells.get(task)] if stream else list(self.cells.values()):
            if cell:
                self._spawn(cell.read_inbox())

    async def _wake(self, task: str) -> None:
        """Somebody has left something for a task that nobody may be running."""
        if self.wants(task) and (cell := await self.activate(task)):
            await self._go(cell)

    # Supervision

    async def reconcile(self) -> None:
        """Activate the unfinished tasks that belong here and that nobody alive runs."""
        rows = await self.registry.tasks(unfinished=True, limit=CELLS)
        unfinished = {row.id for row in rows}
        self.waiting_for = {task: what for task, what in self.waiting_for.items() if task in unfinished}
        for row in rows:
            try:
                await self._reconcile(row, unfinished)
            except MailboxFullError:
                return
            except _UNREADABLE as error:
                _log.warning("task %s cannot be read and is set aside until code joins: %s", row.id, error)
                self._aside.add(row.id)
            except (EventStoreError, CallError) as error:
                _log.warning("task %s is set aside for now: %s", row.id, error)

    async def _reconcile(self, row: TaskRow, unfinished: set[str]) -> None:
        mine = row.id in self.cells or self.wants(row.id)
        if not mine or row.id in self._aside:
            return
        if row.parent and row.parent not in unfinished and await self._end_of(stream_of("task", row.parent)):
            await self.cancel_here(row.id, row.parent, f"its parent {row.parent} has ended")
        elif row.id not in self.cells and self.handler_for(TaskState(capability=row.capability, agent=row.agent)):
            cell = await self.activate(row.id)
            if cell:
                await self._go(cell)

    async def _keep_reconciling(self) -> None:
        while True:
            await asyncio.sleep(_RECONCILE)
            try:
                await self.reconcile()
            except (EventStoreError, CallError) as error:
                _log.warning("reconciling is set aside: %s", error)
            except Exception:
                _log.exception("reconciling failed, by a fault of this program")

    # Entities

    async def send(
        self, decider: type[Decider[Any, Any, Any]], name: str, command: Any, command_id: bytes, deadline: float
    ) -> Reply[Any]:
        """Have an entity handle a command."""
        return await self._entities.send(decider, name, command, command_id, deadline)

    def _lock(self, name: str) -> asyncio.Lock:
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        return lock

    def command_id(self, text: str) -> bytes:
        """A command id that is the same for the same text, on this log."""
        return hashlib.sha256(self.log.identity.log_id + text.encode()).digest()[:16]

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

    async def close(self) -> None:
        """Passivate everything."""
        self._closed = True
        await self.leave()
        self._entities.close()
        self.presence.close()


__all__ = ["Host", "entity_fold"]
