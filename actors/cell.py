"""A live task: its stream, and the run of its handler. Plain async code; a host runs it."""

import asyncio
import logging
from collections.abc import Awaitable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from ..eventstore.artifacts import Artifact, keep
from ..eventstore.errors import EventStoreError, PayloadError, SchemaError
from ..eventstore.verify import Cause
from .activation import Activation
from .agent import Agent, Capability, Handler, capability_of
from .errors import CallError, InputError, ReplayError, SettledError, StatementError, TaskError
from .events import Cancelled, Completed, Failed, Failure, Parent, Requested, Settled, Started, Stated, Stopped
from .statements import Approval, Statement, person_of, read
from .task import Task, child_id
from .task_state import TASK, TaskState, WaitState
from .waits import Waits

if TYPE_CHECKING:
    from .host import Host

T = TypeVar("T")
_log = logging.getLogger("agent_party")


class TaskCell:
    """One task, live in this process. ``waiting_for`` says what it lacks to go on, if it lacks something."""

    def __init__(self, host: "Host", task: str) -> None:
        self.host, self.id, self.stream = host, task, f"task/{task}"
        self.activation: Activation[TaskState] = Activation(host.log, TASK, self.stream, host.snapshots)
        self.waiting_for = ""
        self.waits = Waits(self.state, self.activation.record)
        self._agent: Agent | None = None
        self._run: asyncio.Task[None] | None = None
        self._slot: asyncio.Semaphore | None = None
        self._inbox = asyncio.Lock()

    @property
    def state(self) -> TaskState:
        """The fold of the task's stream."""
        return self.activation.state

    @property
    def replaying(self) -> bool:
        """Whether the handler still goes over what was recorded before."""
        return self.waits.replayed < self._recorded

    async def start(self) -> None:
        """Take the stream over and load it."""
        await self.activation.start(self.host.doorman.writer)
        self.waits = Waits(self.state, self.activation.record)
        self._recorded = sum(wait.settled is not None for wait in self.state.waits)

    async def request(self, requested: Requested, cause: Cause | None) -> None:
        """Record what is asked for, once: the same id with another request is `IdReusedError`."""
        identity = msgspec.msgpack.encode((requested.capability, requested.input))
        await self.activation.command(
            self.host.command_id(self.stream), identity, lambda state: [requested] if not state.status else [], cause
        )

    def go(self) -> None:
        """Run the handler if its code is here and it is not running already."""
        if self.state.finished or not self.state.status or (self._run and not self._run.done()):
            return
        found = self.host.handler_for(self.state)
        if found is None:
            who = f"agent {self.state.agent}" if self.state.agent else "an agent"
            self.waiting_for = f"{who} with capability {self.state.capability} to join"
            return
        self.waiting_for = ""
        self._run = asyncio.get_running_loop().create_task(self._drive(*found))

    async def _drive(self, agent: Agent, capability: Capability) -> None:
        self._agent, self._slot = agent, self.host.slot(agent)
        try:
            async with self._slot:
                await self._handle(agent, capability)
        except (EventStoreError, CallError) as error:
            # The log or the grant is lost to this process, not the task: whoever has them goes on.
            _log.warning("task %s is set aside: %s", self.id, error)
        finally:
            self.waits.stop()
            self.host.ran(self)

    async def _handle(self, agent: Agent, capability: Capability) -> None:
        state = self.state
        self.waits.note(Started(agent.name, agent.version, state.runs + 1))
        try:
            arguments = capability.arguments(msgspec.msgpack.decode(state.input))
            async with asyncio.timeout(self._left()):
                result = await capability.handler(Task(self), **arguments)
            await self.waits.flush(Completed(Task._pack(result, f"the result of {capability.name}")))
        except ReplayError as error:
            failure = Failure("ReplayError", str(error))
            if state.failure != failure:
                await self.waits.flush(Stopped(failure))
        except TimeoutError as error:
            text = str(error) or f"it did not finish within {state.within:g} seconds"
            await self.waits.flush(Failed(Failure("TimeoutError", text)))
        except (PayloadError, SchemaError, TaskError, InputError) as error:
            await self.waits.flush(Failed(Failure(type(error).__name__, str(error))))
        except (EventStoreError, CallError):
            raise
        except Exception as error:
            await self.waits.flush(Failed(Failure(type(error).__name__, str(error)[:2_000])))

    def _left(self) -> float | None:
        """Seconds until the task's deadline, which counts from its request."""
        if not self.state.within:
            return None
        return max(0.0, self.state.within - (self.now() - self.state.requested_at) / 1_000_000)

    def now(self) -> int:
        """Microseconds since 1970."""
        return self.host.log.ambient.now()

    def capability_of(self, target: str | Handler) -> str:
        """The name of a capability given by name or by handler."""
        return capability_of(target, list(self.host.agents.values()))

    def output_of(self, capability: str) -> Any:
        """The declared type of a capability's result, as far as it is known here."""
        known = (agent.capabilities.get(capability) for agent in self.host.agents.values())
        return next((found.output for found in known if found), Any)

    async def effect(self, call: Coroutine[Any, Any, T]) -> T:
        """Run an effect under the host's limit on how many run at once."""
        async with self.host.effects:
            return await call

    async def durably(self, awaited: Awaitable[T]) -> T:
        """Await something that may take days: the agent's slot is free meanwhile."""
        assert self._slot is not None
        self._slot.release()
        try:
            return await awaited
        finally:
            await self._slot.acquire()

    async def child(self, wait: int, capability: str, opened: WaitState) -> Settled:
        """Start the child of a wait, if it has not started, and wait for what it comes to."""
        requested = Requested(capability, opened.input, parent=Parent(self.id, wait), by=self.state.by)
        cause = Cause(self.stream.encode(), self.activation.folded.revision, 0, opened.opened)
        child = child_id(self.id, wait)
        await self.host.place(child, requested, cause)
        return await self.durably(self.host.outcome(child, wait))

    async def keep(self, name: str, content: bytes) -> Artifact:
        """Put an artifact of this task into the blobs."""
        return await keep(self.host.log, self.stream, name, content)

    async def recall(self, key: str) -> bytes | None:
        """What the agent remembers under a key, packed."""
        assert self._agent is not None
        return await self.host.recall(self._agent.name, key)

    async def remember(self, key: str, value: bytes, wait: int) -> None:
        """Have the agent remember; once for each wait."""
        assert self._agent is not None
        await self.host.remember(self._agent.name, key, value, self.host.command_id(f"{self.stream}#{wait}"))

    async def read_inbox(self) -> None:
        """Read what others have left for this task, and act on it."""
        inbox = f"inbox/{self.stream}"
        async with self._inbox:
            async for commit in self.host.log.read(inbox, self.state.inbox + 1):
                for event in commit.events:
                    if isinstance(event, Stated):
                        await self._hear(event, commit.revision)

    async def _hear(self, stated: Stated, revision: int) -> None:
        try:
            key = self.host.doorman.person_key(person_of(stated))
            statement = read(stated, self.host.log.identity.log_id, self.id, key)
            if statement.decision == "cancel":
                await self.cancel(statement.person, statement.note)
            else:
                self.decide(statement, stated, revision)
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
        if self.state.finished:
            raise SettledError(f"task {self.id} is {self.state.status} already")
        children = [child_id(self.id, wait) for wait in self.state.open if self.state.waits[wait].kind == "child"]
        await self.waits.flush(Cancelled(by, reason))
        await self._stop_run()
        for child in children:
            await self.host.cancel(child, by, f"its parent {self.id} was cancelled")

    async def close(self) -> None:
        """Passivate: the handler is stopped where it stands; nothing is recorded, everything is on the log."""
        await self._stop_run()
        self.activation.snapshot()

    async def _stop_run(self) -> None:
        run, self._run = self._run, None
        if run and not run.done() and run is not asyncio.current_task():
            run.cancel()
            await asyncio.wait([run])
