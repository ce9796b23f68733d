"""A host: runs cells in one process, one or many. The local runtime is one host; on Ray each host is an actor."""

import asyncio
import contextlib
import hashlib
import logging
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from ..eventstore.errors import EventStoreError
from ..eventstore.log import Log
from ..eventstore.snapshots import Snapshots
from ..eventstore.verify import Cause
from .agent import Agent, Capability
from .calls import Calls
from .cell import TaskCell
from .decider import Decider, Reply, stream_of
from .dj import Registry
from .doorman import Doorman
from .effects import Effects
from .endings import Ending, end_of, ended
from .entities import Entities
from .errors import MailboxFullError, MovedError, SettledError
from .events import Answered, Cancelled, Completed, Failed, Failure, Received, Requested, Settled, Source
from .lifecycle import Lifecycle
from .passivation import IDLE, Passivation, drained
from .presence import Presence
from .registrations import Registrations
from .runtime import DEADLINE, Runtime
from .schedules import schedules
from .slots import Limits, Slot
from .streaming import Streams
from .supervisor import Supervisor
from .task_state import TaskState
from .teams import is_forked, stands
from .versions import chosen, lacking, newest_first
from .watch import Watch

_TRIES = 10
_log = logging.getLogger("agent_party")


class Host:
    """``wants`` says which tasks belong here, where several hosts share them out.

    ``agents``: the newest version of each agent that is here; ``code``: all versions. ``waiting_for``: for each
    unfinished task that was asked for here, what is lacking here to go on with it. ``ending``: this process was told to
    end, so nothing new begins in its tasks; ``draining``: nor does it take any.
    """

    def __init__(
        self,
        log: Log,
        registry: Registry,
        presence: Presence,
        snapshots: Snapshots | None = None,
        wants: Callable[[str], bool] = lambda task: True,
        idle: float = IDLE,
    ) -> None:
        self.log, self.registry, self.presence, self.snapshots, self.wants = log, registry, presence, snapshots, wants
        self.doorman, self.watch = Doorman(log, presence.holder), Watch(log)
        self.runtime: Runtime | None = None
        self.agents: dict[str, Agent] = {}
        self.code: list[Agent] = []
        self._code: dict[tuple[str, str], Agent] = {}
        self.cells: dict[str, TaskCell] = {}
        self.waiting_for: dict[str, str] = {}
        self.effects = Effects()
        self.streams = Streams()
        self._entities = Entities(log, self.doorman, snapshots, self._lock)
        self._registrations = Registrations(log, self.doorman, presence, snapshots, self._lock)
        self._limits: dict[str, Limits] = {}
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self.ending = self.draining = False
        self.passivation = Passivation(self, idle)
        self._calls, self._supervisor = Calls(self), Supervisor(self)
        self.lifecycle = Lifecycle(log, snapshots, self._supervisor.spawn, self._agent_moved)

    # Agents

    async def join(self, agents: Sequence[Agent], *, owner: bool = True) -> None:
        """Bring code in. ``owner``: this process also writes the agents' own streams."""
        self._code |= {(agent.name, agent.version): agent for agent in agents}
        self.code = newest_first(self._code.values())
        self.agents = {agent.name: agent for agent in reversed(self.code)}
        for name in dict.fromkeys(agent.name for agent in agents):
            self._limits.pop(name, None)
            if owner:
                await self._registrations.register([agent for agent in self.code if agent.name == name])
                await self._registrations.read_inbox(name)
            await self.lifecycle.follow(name)
        self.log.tail()
        await self._supervisor.start()

    async def leave(self) -> None:
        """Let all agents go; what they were doing is passivated where it stands."""
        await self._supervisor.stop()
        await asyncio.gather(*(cell.close() for cell in list(self.cells.values())))
        self.cells.clear()
        await self._registrations.leave()
        self.agents.clear()
        self.code.clear()
        self._code.clear()
        self.lifecycle.forget()

    def begin_nothing(self) -> None:
        """This process is about to end: nothing new begins in its tasks from now on."""
        self.ending = True

    async def drain(self, limit: float = DEADLINE) -> None:
        """Take no more work, let the effects in flight end within ``limit`` seconds, and passivate everything."""
        self.draining = True
        self.begin_nothing()
        await drained(self.cells, limit)
        await self.leave()

    def handler_for(self, state: TaskState) -> tuple[Agent, Capability] | None:
        """Who here can do a task, in the version that is to do it."""
        return chosen([agent for agent in self._able() if not self.lifecycle.refusal(agent.name, state)], state)

    def _able(self) -> list[Agent]:
        return [*self.code, *([schedules] if self.code else [])]

    def capabilities(self) -> set[str]:
        """What the code that is here can do."""
        return {capability for agent in self._able() for capability in agent.capabilities}

    def holds_back(self, agent: str) -> bool:
        """Whether nothing new begins in an agent's tasks here."""
        return self.ending or self.lifecycle.is_paused(agent)

    async def _agent_moved(self, agent: str) -> None:
        for cell in list(self.cells.values()):
            cell.stir()
        await self.reconcile()

    async def read_agents_inboxes(self, agent: str) -> None:
        """Hear what people wish of an agent whose stream this process writes; of all such, if none is named."""
        for name in [agent] if agent else self._registrations.owned():
            if self._registrations.owns(name):
                await self._registrations.read_inbox(name)

    def limits(self, agent: Agent) -> Limits:
        """The agent's limits on tasks at once."""
        if agent.name not in self._limits:
            each = {name: one.concurrency for name, one in agent.capabilities.items() if one.concurrency}
            self._limits[agent.name] = Limits(agent.name, agent.concurrency, agent.queue, each)
        return self._limits[agent.name]

    def slot(self, task: str, agent: Agent, capability: str) -> Slot:
        """A task's place under its agent's limits."""
        return self.limits(agent).slot(task, capability)

    async def recall(self, agent: str, key: str) -> bytes | None:
        """What an agent remembers under a key, packed."""
        if self.runtime and not (self._registrations.owns(agent) or is_forked(agent)):
            return await self.runtime.recall(agent, key)
        return await self._registrations.recall(agent, key)

    async def memories(self, agent: str, prefix: str) -> dict[str, bytes]:
        """What an agent remembers under keys with a prefix, packed, by key; read from the log, whoever writes it."""
        return await self._registrations.find(agent, prefix)

    async def remember(self, agent: str, key: str, value: bytes, command_id: bytes) -> None:
        """Have an agent remember."""
        if self.runtime and not (self._registrations.owns(agent) or is_forked(agent)):
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
        """Start a task here, unless it is finished or lives in another process. The request is on the log then.

        `MailboxFullError` if too many wait here for the agent already: then nothing is recorded.
        """
        await self._calls.start(task, requested, cause)

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
            self.passivation.touch(task)
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
        if self.draining:
            raise MailboxFullError("this host is about to end: ask again with the same id")
        await self.passivation.make_room()
        cell = TaskCell(self, task)
        await cell.start(state.grants, await self.passivation.kept.take(self.log, stream) if known else None)
        return None if cell.state.finished else cell

    async def go(self, cell: TaskCell) -> None:
        """Run a cell's handler, if its code is here; else let the task go, for whoever has it."""
        if cell.closed:
            return
        state = cell.state
        if state.finished or not state.status:
            self.ran(cell)
        elif state.cancelling and state.cancelling.at_once:
            cell.wind_up()
        elif not await stands(self.log, state):
            self.set_aside(cell.id)
            await self._let_go(cell, f"the rest of team fork {state.team}")
        elif found := self.handler_for(state):
            self.waiting_for.pop(cell.id, None)
            cell.go(*found)
        else:
            if self.handler_for(msgspec.structs.replace(state, pinned="")):
                self.set_aside(cell.id)
            await self._let_go(cell, self.lifecycle.lacking(state, self.code) or lacking(state))

    async def _let_go(self, cell: TaskCell, lacks: str) -> None:
        self.waiting_for[cell.id] = lacks
        with contextlib.suppress(MovedError):
            await cell.release()

    async def end_of(self, stream: str) -> Ending | None:
        """What a task came to, if it has come to something."""
        return await end_of(self.log, stream)

    def lives(self, holder: bytes | None) -> bool:
        """Whether the process that a grant names is alive."""
        return holder is not None and self.presence.alive(holder)

    def ran(self, cell: TaskCell) -> None:
        """A cell's handler has ended, one way or another: the cell is passivated."""
        if self.cells.get(cell.id) is cell:
            del self.cells[cell.id]
            self.passivation.forget(cell.id)
            for limits in self._limits.values():
                limits.turn_away(cell.id)
            if cell.state.finished and cell.state.parent:
                self._supervisor.ended(cell.state.parent.task)

    def wake(self, task: str) -> None:
        """Something has arrived for a task that was passivated here."""
        self._supervisor.wake(task)

    def at(self, due: int) -> None:
        """A task that was passivated here is due then, in microseconds since 1970."""
        self._supervisor.at(due)

    def now(self) -> int:
        """Microseconds since 1970, by which tasks that were passivated here are due; see `Supervisor.now`."""
        return self._supervisor.now()

    def set_aside(self, task: str) -> None:
        """A task cannot go on with the code that is here: it is not tried again until code joins."""
        self._supervisor.aside.add(task)

    async def deliver(self, task: str, message: Received, deadline: float = DEADLINE) -> Answered | None:
        """Take a message to a task that is live here, or can be; what an update led to. A signal for one that is live
        elsewhere is left in its inbox. Raises `SettledError`, `RefusedError`, `MailboxFullError`, `DeadlineError`."""
        return await self._calls.deliver(task, message, deadline)

    async def query(self, task: str, name: str, given: bytes, deadline: float = DEADLINE) -> bytes:
        """What a task's handler answers to a query. Raises `RefusedError`, `DeadlineError`, and `MovedError` for a task
        that is live in another process."""
        return await self._calls.query(task, name, given, deadline)

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

    async def bury(self, task: str, requested: Requested, by: str, reason: str, cause: Cause) -> None:
        """Cancel a task that was to be asked for; if it was not asked for yet, it is on the log as cancelled."""
        cell = self.cells.get(task)
        if cell is None and not (await self.log.state(stream_of("task", task))).revision:
            cell = await self.activate(task, new=True)
        if cell and not cell.state.status:
            await cell.request(requested, cause)
        await self.cancel(task, by, reason)

    async def wind_up(self, task: str) -> None:
        """See that a task which was cancelled ends, without its handler."""
        cell = self.cells.get(task) or await self.activate(task)
        if cell:
            await self.go(cell)

    async def outcome(self, task: str, wait: int) -> Settled:
        """Wait for what a task comes to, wherever it runs."""
        stream = stream_of("task", task)
        while (ending := await ended(self.log, self.watch, stream)) is None:
            continue
        source = Source(stream, (await self.log.state(stream)).revision)
        more: dict[str, Any] = {"source": source, "spent": ending.spent, "raised": ending.raised}
        match ending:
            case Completed(result=result):
                return Settled(wait, result, **more)
            case Failed(failure=failure):
                return Settled(wait, failure=failure, **more)
            case Cancelled(by=by):
                failure = Failure("TaskCancelledError", f"task {task} was cancelled by {by}")
                return Settled(wait, failure=failure, **more)

    async def reconcile(self) -> None:
        """Activate the unfinished tasks that belong here and that nobody alive runs."""
        await self._supervisor.reconcile()

    async def sweep(self) -> None:
        """Passivate what has been silent for long, and record of agents that were drained that they are."""
        await self.passivation.sweep()
        self._entities.sweep(self.passivation.idle)
        self._registrations.sweep(self.passivation.idle)
        await self._registrations.finish_draining(self.lifecycle.draining(), self.registry)

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
