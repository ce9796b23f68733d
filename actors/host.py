"""A host: runs cells in one process, one or many. The local runtime is one host; on Ray each host is an actor."""

import asyncio
import contextlib
import hashlib
import logging
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from ..eventstore.errors import EventStoreError, IdReusedError
from ..eventstore.log import Log
from ..eventstore.snapshots import Snapshots
from ..eventstore.verify import Cause
from .activation import load
from .agent import Agent, Capability
from .cell import TaskCell
from .decider import Decider, Reply, stream_of
from .dj import Registry
from .doorman import Doorman
from .effects import Effects
from .entities import Entities
from .errors import DeadlineError, MailboxFullError, MovedError, SettledError, UnknownTaskError
from .events import Answered, Cancelled, Completed, Failed, Failure, Received, Requested, Sent, Settled
from .inbox import leave
from .presence import Presence
from .registrations import Registrations
from .runtime import DEADLINE, Runtime
from .schedules import schedules
from .supervisor import Supervisor
from .task_state import TASK, TaskState
from .watch import Calm, Watch

CELLS = 20_000
"""How many tasks may be live in one process."""
_TRIES = 10
PATIENCE = 2.0
"""Seconds that another process has to record the request of a task that it has taken on."""
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
        self._supervisor = Supervisor(self)

    # Agents

    async def join(self, agents: Sequence[Agent], *, owner: bool = True) -> None:
        """Bring code in. ``owner``: this process also writes the agents' own streams."""
        for agent in agents:
            self.agents[agent.name] = agent
            self._limits.pop(agent.name, None)
            if owner:
                await self._registrations.register(agent)
        self.log.tail()
        await self._supervisor.start()

    async def leave(self) -> None:
        """Let all agents go; what they were doing is passivated where it stands."""
        await self._supervisor.stop()
        await asyncio.gather(*(cell.close() for cell in list(self.cells.values())))
        self.cells.clear()
        await self._registrations.leave()
        self.agents.clear()

    def handler_for(self, state: TaskState) -> tuple[Agent, Capability] | None:
        """Who here can do a task."""
        for agent in (*self.agents.values(), *([schedules] if self.agents else [])):
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
                await self.go(cell)
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
            for _ in range(_TRIES):
                with contextlib.suppress(MovedError):
                    cell = await self._take(task, new, steal)
                    break
                await self.log.refresh()
            else:
                return None
            if cell is None:
                return None
            self.cells[task] = cell
        try:
            await cell.messages.read_inbox()
        except EventStoreError as error:
            _log.warning("the inbox of task %s cannot be read: %s", task, error)
        return cell

    async def _take(self, task: str, new: bool, steal: bool) -> TaskCell | None:
        """Take a task over, if nobody alive has it; `MovedError` if somebody took it meanwhile."""
        stream = stream_of("task", task)
        state, holder = await self.log.state(stream), await self.doorman.holder_of(stream)
        known = state.revision
        if not known and holder is None and not new:
            return None
        elsewhere = holder not in (None, self.presence.holder) and self.lives(holder)
        if (elsewhere and (known or not steal)) or (known and await self.end_of(stream)):
            return None
        if len(self.cells) >= CELLS:
            raise MailboxFullError(f"this host runs {CELLS:,} tasks already: wait for some to finish, or add hosts")
        cell = TaskCell(self, task)
        await cell.start(state.grants)
        return None if cell.state.finished else cell

    async def go(self, cell: TaskCell) -> None:
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

    async def end_of(self, stream: str) -> Completed | Failed | Cancelled | None:
        """What a task came to: the last event of its stream, if it has come to something."""
        revision = (await self.log.state(stream)).revision
        async for commit in self.log.read(stream, max(1, revision), lenient=True):
            for event in commit.events:
                if isinstance(event, Completed | Failed | Cancelled):
                    return event
        return None

    def lives(self, holder: bytes | None) -> bool:
        """Whether the process that a grant names is alive."""
        return holder is not None and self.presence.alive(holder)

    def ran(self, cell: TaskCell) -> None:
        """A cell's handler has ended, one way or another: the cell is passivated."""
        if self.cells.get(cell.id) is cell:
            del self.cells[cell.id]

    def set_aside(self, task: str) -> None:
        """A task cannot go on with the code that is here: it is not tried again until code joins."""
        self._supervisor.aside.add(task)

    async def deliver(self, task: str, message: Received, deadline: float = DEADLINE) -> Answered | None:
        """Take a message to a task that is live here, or can be; what an update led to. A signal for one that is live
        elsewhere is left in its inbox. Raises `SettledError`, `RefusedError`, `MailboxFullError`, `DeadlineError`."""
        limit = asyncio.timeout(deadline)
        try:
            async with limit:
                return await self._deliver(task, message)
        except TimeoutError:
            if not limit.expired():
                raise
            raise DeadlineError(
                f"task {task} did not answer in {deadline:g} s: send it again with the same id"
            ) from None

    async def _deliver(self, task: str, message: Received) -> Answered | None:
        while cell := await self._awake(task):
            try:
                return await cell.messages.receive(message)
            except MovedError:
                cell.drop()
        await leave(self.log, self.doorman, stream_of("task", task), Sent(message))
        return None if message.kind == "signal" else await self._answered(task, message.id)

    async def query(self, task: str, name: str, given: bytes, deadline: float = DEADLINE) -> bytes:
        """What a task's handler answers to a query. Raises `RefusedError`, `DeadlineError`, and `MovedError` for a task
        that is live in another process."""
        try:
            async with asyncio.timeout(deadline):
                if cell := await self._awake(task):
                    return await cell.messages.query(name, given)
        except TimeoutError:
            raise DeadlineError(f"task {task} did not answer within {deadline:g} s: ask again") from None
        raise MovedError(f"task {task} is live in another process: ask there")

    async def _awake(self, task: str) -> TaskCell | None:
        """A task, live here; None if it lives elsewhere. `SettledError` for one that has finished."""
        cell = self.cells.get(task) or await self.activate(task)
        if cell:
            await self.go(cell)
            if not cell.closed:
                return cell
        stream = stream_of("task", task)
        if await self.end_of(stream):
            raise SettledError(f"task {task} has finished: it takes no message any more")
        if not (await self.log.state(stream)).revision:
            raise UnknownTaskError(task)
        return None

    async def _answered(self, task: str, message: bytes) -> Answered:
        """Wait until a task that is live elsewhere has answered an update."""
        stream = stream_of("task", task)
        folded = await load(self.log, TASK, stream, snapshots=self.snapshots)
        while (answered := folded.state.heard.get(message)) is None:
            if folded.state.finished:
                raise SettledError(f"task {task} is {folded.state.status}, and has not answered the update")
            await self.watch.beyond(stream, folded.revision, 3600)
            async for commit in self.log.read(stream, folded.revision + 1):
                folded.add(commit)
        return answered

    def publish(self, task: str, wait: int, piece: str) -> None:
        """Show a piece of text to those who watch a task; nothing is recorded."""

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
                match await self.end_of(stream):
                    case Completed(result=result):
                        return Settled(wait, result)
                    case Failed(failure=failure):
                        return Settled(wait, failure=failure)
                    case Cancelled(by=by):
                        text = f"task {task} was cancelled by {by}"
                        return Settled(wait, failure=Failure("TaskCancelledError", text))

    async def reconcile(self) -> None:
        """Activate the unfinished tasks that belong here and that nobody alive runs."""
        await self._supervisor.reconcile()

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

    async def close(self) -> None:
        """Passivate everything."""
        self._supervisor.closed = True
        await self.leave()
        self._entities.close()
        self.presence.close()
