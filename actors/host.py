"""A host: runs cells in one process, one or many. The local runtime is one host; on Ray each host is an actor."""

import asyncio
import contextlib
import hashlib
import logging
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from ..eventstore.errors import EventStoreError, IdReusedError
from ..eventstore.log import Log
from ..eventstore.snapshots import Snapshots
from ..eventstore.verify import Cause
from .activation import Activation, Fold, load
from .agent import Agent, Capability
from .agent_state import AGENT, MEMORY_LIMIT, AgentState
from .cell import TaskCell
from .decider import Decider, Reply, stream_of
from .dj import Registry
from .doorman import Doorman
from .errors import CallError, DeadlineError, InputError, MailboxFullError, MovedError, SettledError
from .events import Cancelled, Completed, Failed, Failure, Joined, Left, Registered, Remembered, Requested, Settled
from .presence import Presence
from .runtime import Runtime
from .task_state import TASK, TaskState
from .watch import Watch

EFFECTS = 32
MAILBOX = 1_000
CELLS = 20_000
_RECONCILE = 2.0
_log = logging.getLogger("agent_party")


class Host:
    """``wants`` says which tasks belong here, where several hosts share them out."""

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
        self.effects = asyncio.Semaphore(EFFECTS)
        self._entities: dict[str, Activation[Any]] = {}
        self._owned: dict[str, Activation[AgentState]] = {}
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._starting: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._waiting: dict[str, int] = {}
        self._background: set[asyncio.Task[Any]] = set()
        self._reconciler: asyncio.Task[None] | None = None
        self.watch.on_inbox(self._inbox_grew)

    # Agents

    async def join(self, agents: Sequence[Agent], *, owner: bool = True) -> None:
        """Bring code in. ``owner``: this process also writes the agents' own streams."""
        for agent in agents:
            self.agents[agent.name] = agent
            if owner:
                await self._register(agent)
        for cell in list(self.cells.values()):
            cell.go()
        self.log.tail()
        await self.reconcile()
        if self._reconciler is None:
            self._reconciler = asyncio.get_running_loop().create_task(self._keep_reconciling())

    async def _register(self, agent: Agent) -> None:
        activation: Activation[AgentState] = Activation(self.log, AGENT, agent.stream, self.snapshots)
        await activation.start(self.doorman.writer)
        self._owned[agent.name] = activation
        schemas = {
            name: agent.capabilities[name].schema() if name in agent.capabilities else {} for name in agent.names()
        }
        registered = Registered(agent.version, schemas, agent.description, agent.approval, agent.concurrency)
        known = activation.state.registered == registered
        gone = [Left(host) for host in activation.state.hosts if not self.presence.alive(host)]
        joined = Joined(self.presence.holder)
        await activation.record([*gone, joined] if known else [registered, *gone, joined])

    async def leave(self) -> None:
        """Let all agents go; what they were doing is passivated where it stands."""
        if self._reconciler:
            self._reconciler.cancel()
            await asyncio.wait([self._reconciler])
            self._reconciler = None
        await asyncio.gather(*(cell.close() for cell in list(self.cells.values())))
        self.cells.clear()
        for activation in self._owned.values():
            with contextlib.suppress(CallError, EventStoreError):
                await activation.record([Left(self.presence.holder)])
        self._owned.clear()
        self.agents.clear()

    def handler_for(self, state: TaskState) -> tuple[Agent, Capability] | None:
        """Who here can do a task."""
        for agent in self.agents.values():
            capability = agent.capabilities.get(state.capability)
            if capability and state.agent in ("", agent.name):
                return agent, capability
        return None

    def slot(self, agent: Agent) -> asyncio.Semaphore:
        """The agent's limit on tasks at once."""
        return self._slots.setdefault(agent.name, asyncio.Semaphore(agent.concurrency))

    async def recall(self, agent: str, key: str) -> bytes | None:
        """What an agent remembers under a key, packed."""
        if owned := self._owned.get(agent):
            return owned.state.memory.get(key)
        if self.runtime and agent not in self.agents:
            return await self.runtime.recall(agent, key)
        folded = await load(self.log, AGENT, stream_of("agent", agent), snapshots=self.snapshots)
        return folded.state.memory.get(key)

    async def remember(self, agent: str, key: str, value: bytes, command_id: bytes) -> None:
        """Have an agent remember."""
        owned = self._owned.get(agent)
        if owned is None:
            assert self.runtime is not None
            await self.runtime.remember(agent, key, value, command_id)
            return

        def decide(state: AgentState) -> list[Remembered]:
            if len(state.memory) >= MEMORY_LIMIT and key not in state.memory:
                raise InputError(f"agent {agent} remembers {MEMORY_LIMIT:,} things already: forget some first")
            return [Remembered(key, value)]

        await owned.command(command_id, msgspec.msgpack.encode((key, value)), decide)

    # Tasks

    async def place(self, task: str, requested: Requested, cause: Cause | None = None) -> None:
        """Start a task here, or where the runtime places it."""
        if self.runtime:
            await self.runtime.place(task, requested, cause)
        else:
            await self.start_task(task, requested, cause)

    async def start_task(self, task: str, requested: Requested, cause: Cause | None = None) -> None:
        """Start a task here, unless it is finished or lives in another process."""
        cell = self.cells.get(task) or await self.activate(task, new=True)
        if cell is None:
            await self._check_same(task, requested)
            return
        await cell.request(requested, cause)
        cell.go()

    async def _check_same(self, task: str, requested: Requested) -> None:
        state = (await load(self.log, TASK, stream_of("task", task), snapshots=self.snapshots)).state
        if (state.capability, state.input) != (requested.capability, requested.input):
            raise IdReusedError(f"task/{task}", task)

    async def activate(self, task: str, *, new: bool = False) -> TaskCell | None:
        """Make a task live here; None if it is finished, unknown, or lives in a process that is alive."""
        async with self._lock(task):
            if task in self.cells:
                return self.cells[task]
            stream = stream_of("task", task)
            holder = await self.doorman.holder_of(stream)
            if (holder is None and not new) or (holder not in (None, self.presence.holder) and self._lives(holder)):
                return None
            if len(self.cells) >= CELLS:
                raise MailboxFullError(f"this host runs {CELLS:,} tasks already: wait for some to finish, or add hosts")
            cell = TaskCell(self, task)
            if holder is not None and await self._finished(stream):
                return None
            await cell.start()
            self.cells[task] = cell
        await cell.read_inbox()
        return cell

    async def _finished(self, stream: str) -> bool:
        revision = (await self.log.state(stream)).revision
        async for commit in self.log.read(stream, max(1, revision), lenient=True):
            return any(isinstance(event, Completed | Failed | Cancelled) for event in commit.events)
        return False

    def _lives(self, holder: bytes | None) -> bool:
        return holder is not None and self.presence.alive(holder)

    def ran(self, cell: TaskCell) -> None:
        """A cell's handler has ended, one way or another: the cell is passivated."""
        if self.cells.get(cell.id) is cell:
            del self.cells[cell.id]

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
            self.ran(cell)

    async def outcome(self, task: str, wait: int) -> Settled:
        """Wait for what a task comes to, wherever it runs."""
        stream, revision = stream_of("task", task), 0
        while True:
            await self.watch.beyond(stream, revision, 3600)
            async for commit in self.log.read(stream, revision + 1):
                revision = commit.revision
                for event in commit.events:
                    match event:
                        case Completed():
                            return Settled(wait, event.result)
                        case Failed():
                            return Settled(wait, failure=event.failure)
                        case Cancelled():
                            text = f"task {task} was cancelled by {event.by}"
                            return Settled(wait, failure=Failure("TaskCancelledError", text))

    def _inbox_grew(self, stream: str) -> None:
        live = [self.cells.get(stream.removeprefix("task/"))] if stream else list(self.cells.values())
        for cell in live:
            if cell:
                self._spawn(cell.read_inbox())

    async def reconcile(self) -> None:
        """Activate the unfinished tasks that belong here and that nobody alive runs."""
        for row in await self.registry.tasks(unfinished=True, limit=CELLS):
            able = self.handler_for(TaskState(capability=row.capability, agent=row.agent))
            if row.id not in self.cells and able and self.wants(row.id):
                cell = await self.activate(row.id)
                if cell:
                    cell.go()

    async def _keep_reconciling(self) -> None:
        while True:
            await asyncio.sleep(_RECONCILE)
            try:
                await self.reconcile()
            except (EventStoreError, CallError) as error:
                _log.warning("reconciling is set aside: %s", error)

    # Entities

    async def send(
        self, decider: type[Decider[Any, Any, Any]], name: str, command: Any, command_id: bytes, deadline: float
    ) -> Reply[Any]:
        """Have an entity handle a command."""
        stream = stream_of(decider.kind, name)
        if self._waiting.get(stream, 0) >= MAILBOX:
            raise MailboxFullError(f"{MAILBOX:,} commands wait for {stream}: retry later with the same id")
        self._waiting[stream] = self._waiting.get(stream, 0) + 1
        try:
            async with asyncio.timeout(deadline):
                return await self._send(decider, stream, command, command_id)
        except TimeoutError:
            raise DeadlineError(f"{stream} did not answer within {deadline:g} s: ask again with the same id") from None
        finally:
            self._waiting[stream] -= 1
            if not self._waiting[stream]:
                del self._waiting[stream]

    async def _send(
        self, decider: type[Decider[Any, Any, Any]], stream: str, command: Any, command_id: bytes
    ) -> Reply[Any]:
        request = self.log.codec.pack(command, f"a command to {stream}")
        made = decider()
        for _ in range(10):
            activation = await self._entity(made, stream)
            try:
                events = await activation.command(command_id, request, lambda state: made.decide(command, state))
                return Reply(activation.state, activation.folded.revision, events)
            except MovedError:
                self._entities.pop(stream, None)
        raise MovedError(f"{stream} is taken over again and again by other processes: retry later with the same id")

    async def _entity(self, decider: Decider[Any, Any, Any], stream: str) -> Activation[Any]:
        async with self._lock(stream):
            if stream not in self._entities:
                for cls in decider.events:
                    self.log.codec.add(cls)
                if len(self._entities) >= CELLS:
                    self._entities.pop(next(iter(self._entities))).snapshot()
                activation: Activation[Any] = Activation(self.log, entity_fold(decider), stream, self.snapshots)
                await activation.start(self.doorman.writer)
                self._entities[stream] = activation
            return self._entities[stream]

    def _lock(self, name: str) -> asyncio.Lock:
        lock = self._starting.get(name)
        if lock is None:
            lock = self._starting[name] = asyncio.Lock()
        return lock

    def command_id(self, text: str) -> bytes:
        """A command id that is the same for the same text, on this log."""
        return hashlib.sha256(self.log.identity.log_id + text.encode()).digest()[:16]

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def close(self) -> None:
        """Passivate everything."""
        await self.leave()
        for activation in self._entities.values():
            activation.snapshot()
        self._entities.clear()
        for task in list(self._background):
            task.cancel()
        self.presence.close()


def entity_fold(decider: Decider[Any, Any, Any]) -> Fold[Any]:
    """The fold of an entity's stream."""

    def evolve(state: Any, commit: Any) -> Any:
        for event in commit.events:
            state = decider.evolve(state, event)
        return state

    kind = type(decider.initial())
    program = f"{decider.kind}/{decider.state_version}"
    return Fold(decider.initial, evolve, kind if kind is not type(None) else Any, program)
