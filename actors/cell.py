"""A live task: its stream, and the run of its handler. Plain async code; a host runs it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from ..eventstore.artifacts import Artifact, fetch, keep
from ..eventstore.errors import AppendError, EventStoreError, LogError, StoreError
from ..eventstore.verify import Cause
from .activation import Activation
from .agent import Agent, Capability, Handler, StepOptions, capability_of
from .effects import CurrentStep, StepExitError, cancelled
from .errors import (
    CallError,
    DeadlineError,
    MailboxFullError,
    MovedError,
    ReplayError,
    SettledError,
    StatementError,
)
from .events import Cancelled, Completed, Failed, Failure, Parent, Requested, Settled, Started, Stated, Stopped
from .packing import failure_of, pack
from .slots import Slot
from .statements import Approval, Statement, person_of, read
from .task import Task, child_id
from .task_state import TASK, TaskState, WaitState
from .waits import Waits

if TYPE_CHECKING:
    from .host import Host

T = TypeVar("T")
_log = logging.getLogger("agent_party")
_OURS = (AppendError, LogError, StoreError, MovedError, MailboxFullError, DeadlineError)
"""What keeps this process from going on with a task, and says nothing about the task."""
STOPPING = 5.0
"""Seconds a handler has to end when it is cancelled; it can record nothing by then."""


class TaskCell:
    """One task, live in this process, for one run of its handler."""

    def __init__(self, host: "Host", task: str) -> None:
        self.host, self.id, self.stream = host, task, f"task/{task}"
        self.activation: Activation[TaskState] = Activation(host.log, TASK, self.stream, host.snapshots)
        self.waits = Waits(self.state, self.activation.record)
        self.closed = False
        self._agent: Agent | None = None
        self._run: asyncio.Task[None] | None = None
        self._slot: Slot | None = None
        self._inbox = asyncio.Lock()
        self._heard = 0
        self._trouble: Exception | None = None

    @property
    def state(self) -> TaskState:
        """The fold of the task's stream."""
        return self.activation.state

    @property
    def replaying(self) -> bool:
        """Whether the handler still goes over what was recorded before."""
        return self.waits.replay.running

    async def start(self, grants: Collection[bytes]) -> None:
        """Take the stream over and load it; `MovedError` if other grants than these are in force by then."""
        await self.activation.start(lambda stream: self.host.doorman.successor(stream, grants))
        self.waits = Waits(self.state, self.activation.record)

    async def request(self, requested: Requested, cause: Cause | None) -> None:
        """Record what is asked for, once: the same id with another request is `IdReusedError`."""
        identity = msgspec.msgpack.encode((requested.capability, requested.input))
        await self.activation.command(
            self.host.command_id(self.stream), identity, lambda state: [requested] if not state.status else [], cause
        )

    def go(self, agent: Agent, capability: Capability) -> None:
        """Run the handler, unless it runs or has run: a cell is good for one run."""
        if not (self.state.finished or not self.state.status or self._run or self.closed):
            self._run = asyncio.get_running_loop().create_task(self._drive(agent, capability))

    async def _drive(self, agent: Agent, capability: Capability) -> None:
        self._agent, self._slot = agent, Slot(self.host.limit(agent))
        try:
            await self._handle(agent, capability)
        except (EventStoreError, CallError) as error:
            # The log or the grant is lost to this process, not the task: whoever has them goes on.
            _log.warning("task %s is set aside: %s", self.id, error)
        except Exception:
            _log.exception("task %s is set aside, by a fault of this program", self.id)
        finally:
            self._slot.let_go()
            self.drop()
        if self.state.finished:
            await self._cancel_children(f"its parent {self.id} has ended", self.id)

    async def _handle(self, agent: Agent, capability: Capability) -> None:
        state = self.state
        replays = sum(wait.settled is not None for wait in state.waits)
        # A run that only goes over what is recorded leaves no trace: else one that cannot go on would fill the log.
        self.waits.note(Started(agent.name, agent.version, state.runs + 1, replays), soon=not state.waits)
        deadline = asyncio.timeout(self._left())
        try:
            async with deadline:
                assert self._slot is not None
                await self._slot.take()
                arguments = capability.arguments(msgspec.msgpack.decode(state.input))
                result = await capability.handler(Task(self), **arguments)
            self.waits.replay.ended("returns")
            await self.waits.flush(Completed(pack(result, f"the result of {capability.name}")))
        except asyncio.CancelledError as error:
            if cancelled():
                raise
            await self._failed(StepExitError("the handler was cancelled from within"), error)
        except (Exception, SystemExit) as error:
            if deadline.expired() and isinstance(error, TimeoutError):
                late = Failure("TimeoutError", f"it did not finish within {state.within:g} seconds")
                await self.waits.flush(Failed(late))
            else:
                await self._failed(error, error)

    async def _failed(self, error: BaseException, cause: BaseException) -> None:
        """Record how the handler ended, unless it is not the handler that failed."""
        if trouble := self.waits.trouble or self._trouble:
            raise trouble from cause
        try:
            self.waits.replay.ended(f"raises {failure_of(error).kind}")
        except ReplayError as differs:
            error = differs
        failure = failure_of(error)
        if not isinstance(error, ReplayError):
            await self.waits.flush(Failed(failure))
        else:
            self.host.set_aside(self.id)
            if self.state.status != "stopped" or self.state.failure != failure:
                await self.waits.flush(Stopped(failure))

    def _left(self) -> float | None:
        """Seconds until the task's deadline, which counts from its request; never more than it was given."""
        within = self.state.within
        if not within:
            return None
        return max(0.0, min(within, within - (self.now() - self.state.requested_at) / 1_000_000))

    def now(self) -> int:
        """Microseconds since 1970."""
        return self.host.log.ambient.now()

    def chance(self, size: int) -> bytes:
        """Random bytes."""
        return self.host.log.ambient.random(size)

    def capability_of(self, target: str | Handler) -> str:
        """The name of a capability given by name or by handler."""
        return capability_of(target, list(self.host.agents.values()))

    def output_of(self, capability: str) -> Any:
        """The declared type of a capability's result, as far as it is known here."""
        known = (agent.capabilities.get(capability) for agent in self.host.agents.values())
        return next((found.output for found in known if found), Any)

    async def effect(
        self, step: CurrentStep, function: Callable[..., Any], options: StepOptions, given: tuple[Any, Any]
    ) -> Settled:
        """Run a step under the limits of the agent and of the host."""
        assert self._slot is not None
        async with self._slot.working():
            return await self.host.effects.run(step, function, options, given)

    async def durably(self, awaited: Awaitable[T]) -> T:
        """Await something that may take days: the agent's slot is free meanwhile."""
        assert self._slot is not None
        async with self._slot.parked():
            return await awaited

    async def _ours(self, call: Awaitable[T]) -> T:
        """Await something of this process, whose troubles are not the handler's."""
        try:
            return await call
        except _OURS as error:
            self._trouble = error
            raise

    async def child(self, wait: int, capability: str, opened: WaitState) -> Settled:
        """Start the child of a wait, if it has not started, and wait for what it comes to."""
        requested = Requested(capability, opened.input, parent=Parent(self.id, wait), by=self.state.by)
        cause = Cause(self.stream.encode(), opened.revision, opened.index, opened.opened)
        child = child_id(self.id, wait)
        await self._ours(self.host.place(child, requested, cause))
        return await self.durably(self._ours(self.host.outcome(child, wait)))

    async def keep(self, name: str, content: bytes) -> Artifact:
        """Put an artifact of this task into the blobs."""
        return await self._ours(keep(self.host.log, self.stream, name, content))

    async def open(self, artifact: Artifact) -> bytes:
        """The content of an artifact."""
        return await self._ours(fetch(self.host.log, artifact))

    async def recall(self, key: str) -> bytes | None:
        """What the agent remembers under a key, packed."""
        assert self._agent is not None
        return await self._ours(self.host.recall(self._agent.name, key))

    async def remember(self, key: str, value: bytes, wait: int) -> None:
        """Have the agent remember; once for each wait."""
        assert self._agent is not None
        await self._ours(
            self.host.remember(self._agent.name, key, value, self.host.command_id(f"{self.stream}#{wait}"))
        )

    async def read_inbox(self) -> None:
        """Read what others have left for this task, and act on it."""
        inbox = f"inbox/{self.stream}"
        async with self._inbox:
            async for commit in self.host.log.read(inbox, max(self.state.inbox, self._heard) + 1, lenient=True):
                self._heard = commit.revision
                for event in commit.events:
                    await self._hear(event, commit.revision)

    async def _hear(self, event: Any, revision: int) -> None:
        try:
            if not isinstance(event, Stated):
                raise StatementError(f"the inbox holds something else at revision {revision}")
            key = self.host.doorman.person_key(person_of(event))
            statement = read(event, self.host.log.identity.log_id, self.id, key)
            if statement.decision == "cancel":
                await self.cancel(statement.person, statement.note)
            else:
                self.decide(statement, event, revision)
        except (StatementError, SettledError) as error:
            _log.warning("task %s ignores a statement: %s", self.id, error)
            if not self.state.finished:
                self.waits.read_inbox(revision)

    def decide(self, statement: Statement, stated: Stated, revision: int = 0) -> None:
        """Settle an approval by a statement that was checked; it must be about exactly what was shown."""
        number = statement.wait
        wait = self.state.waits[number] if 0 <= number < len(self.state.waits) else None
        if wait is None or wait.kind != "approval":
            raise StatementError(f"task {self.id} asks for no approval at wait {number}")
        if (wait.opened, wait.name, wait.input) != (statement.opened, statement.name, statement.shown):
            raise StatementError(f"what {statement.person} signed is not what task {self.id} shows at wait {number}")
        if self.waits.is_settled(number) or self.state.finished:
            raise SettledError(f"wait {number} of task {self.id} is decided already")
        approved = statement.decision == "approve"
        answer = Approval(approved, statement.person, statement.note, stated.statement, stated.signature)
        self.waits.settle(Settled(number, msgspec.msgpack.encode(answer)), revision)

    async def cancel(self, by: str, reason: str = "") -> None:
        """Stop the task: recorded first, then its handler is cancelled, then its children."""
        if self.state.finished or not self.state.status:
            raise SettledError(f"task {self.id} is {self.state.status or 'unknown'} already")
        await self.waits.flush(Cancelled(by, reason))
        await self._stop_run()
        await self._cancel_children(f"its parent {self.id} was cancelled", by)

    async def _cancel_children(self, reason: str, by: str) -> None:
        for wait in sorted(self.state.open):
            if self.state.waits[wait].kind == "child":
                try:
                    await self.host.cancel(child_id(self.id, wait), by, reason)
                except (EventStoreError, CallError) as error:  # whoever runs the child finds out by itself
                    _log.warning("a child of task %s is not cancelled yet: %s", self.id, error)

    async def release(self) -> None:
        """Let the task go, so that another process can take it."""
        await self.waits.flush()
        self.drop()
        await self.activation.release(self.host.doorman.release)

    async def close(self) -> None:
        """Passivate: the handler is stopped where it stands; what is under way to the log gets there."""
        await self._stop_run()
        await self.waits.idle()
        self.drop()
        self.activation.snapshot()

    def drop(self) -> None:
        """Nothing more is done or recorded here."""
        self.closed = True
        self.waits.stop()
        self.host.ran(self)

    async def _stop_run(self) -> None:
        run = self._run
        if run and not run.done() and run is not asyncio.current_task():
            run.cancel()
            _, still = await asyncio.wait([run], timeout=STOPPING)
            if still:
                _log.warning("the handler of task %s does not end: it is left behind, and can record nothing", self.id)
        self.drop()
