"""A live task: its stream, and the run of its handler. Plain async code; a host runs it."""

import asyncio
import contextlib
import logging
from collections.abc import Collection, Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from ..eventstore.errors import EventStoreError
from ..eventstore.reading import Commit
from ..eventstore.verify import Cause
from .activation import Activation
from .agent import Agent, Capability, Handler, capability_of
from .delegation import DETACHED, child_id
from .effects import StepExitError, cancelled
from .errors import CallError, ReplayError, SettledError
from .events import (
    INTERRUPTED,
    Cancelled,
    Cancelling,
    Completed,
    Continued,
    Failed,
    Failure,
    Paused,
    Requested,
    Resumed,
    Settled,
    Started,
    Stopped,
    WaitKind,
)
from .messages import Messages
from .packing import failure_of, pack
from .slots import Slot
from .task import ContinueAsNew, Task
from .task_state import TASK, TaskState
from .waits import Waits
from .work import Work

if TYPE_CHECKING:
    from .host import Host

_log = logging.getLogger("agent_party")
STOPPING = 5.0
"""Seconds a handler has to end when it is cancelled; it can record nothing by then."""


class TaskCell:
    """One task, live in this process, for one run of its handler. ``cleaning``: how many sagas are open in it."""

    def __init__(self, host: "Host", task: str) -> None:
        self.host, self.id, self.stream = host, task, f"task/{task}"
        self.activation: Activation[TaskState] = Activation(host.log, TASK, self.stream, host.snapshots)
        self.closed = False
        self.cleaning = 0
        self._run: asyncio.Task[None] | None = None
        self.work = Work(self)
        self._stopping = False
        self._stirred = asyncio.Event()
        self._services: set[asyncio.Task[None]] = set()
        self._interruptible: dict[int, asyncio.Task[Any]] = {}
        self._interrupted: set[int] = set()
        self._begin()

    def _begin(self) -> None:
        """Everything that belongs to one run of the handler."""
        self.waits = Waits(self.state, self._record)
        self.messages = Messages(self)
        self.known = self.activation.folded.revision

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
        self._begin()

    async def request(self, requested: Requested, cause: Cause | None) -> None:
        """Record what is asked for, once: the same id with another request is `IdReusedError`."""
        identity = msgspec.msgpack.encode((requested.capability, requested.input))
        await self.activation.command(
            self.host.command_id(self.stream), identity, lambda state: [requested] if not state.status else [], cause
        )

    async def _record(self, events: Sequence[Any]) -> Commit:
        commit = await self.activation.record(events)
        self.stir()
        return commit

    def stir(self) -> None:
        """Something has changed: those who wait for the task to move look again."""
        self._stirred.set()

    async def moved(self) -> None:
        """Wait until something has changed."""
        self._stirred.clear()
        await self._stirred.wait()

    # The handler

    def go(self, agent: Agent, capability: Capability) -> None:
        """Run the handler, unless it runs or has run: a cell is good for one run."""
        if not (self.state.finished or not self.state.status or self._run or self.closed):
            self._run = asyncio.get_running_loop().create_task(self._drive(agent, capability))

    def serve(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside the handler, for as long as it runs."""
        service = asyncio.get_running_loop().create_task(work)
        self._services.add(service)
        service.add_done_callback(self._served)

    def _served(self, service: asyncio.Task[None]) -> None:
        self._services.discard(service)
        if not service.cancelled() and (error := service.exception()) and not self._stopping:
            if isinstance(error, ReplayError) and self._run:
                self._run.cancel()
            _log.warning("task %s does not go on with what it does beside: %s", self.id, error)

    async def _end_services(self) -> None:
        self._stopping = True
        services = list(self._services)
        for service in services:
            service.cancel()
        if services:
            await asyncio.wait(services, timeout=STOPPING)

    async def _drive(self, agent: Agent, capability: Capability) -> None:
        self.work.begin(agent, Slot(self.host.limit(agent)))
        try:
            while await self._handle(agent, capability):
                self._begin()
                self._stopping = False
        except (EventStoreError, CallError) as error:
            # The log or the grant is lost to this process, not the task: whoever has them goes on.
            _log.warning("task %s is set aside: %s", self.id, error)
        except Exception:
            _log.exception("task %s is set aside, by a fault of this program", self.id)
        finally:
            self.work.slot.let_go()
            self.drop()
        if self.state.finished:
            await self._cancel_children(f"its parent {self.id} has ended", self.id)

    async def _handle(self, agent: Agent, capability: Capability) -> bool:
        """Run the handler to its end; whether it is to begin anew."""
        state = self.state
        replays = sum(wait.settled is not None for wait in state.waits)
        # A run that only goes over what is recorded leaves no trace: else one that cannot go on would fill the log.
        self.waits.note(Started(agent.name, agent.version, state.runs + 1, replays), soon=not state.waits)
        deadline = asyncio.timeout(self._left())
        try:
            async with deadline:
                await self.work.slot.take()
                arguments = capability.arguments(msgspec.msgpack.decode(state.input))
                result = await capability.handler(Task(self), **arguments)
            self.waits.replay.ended("returns")
            await self._end_services()
            packed = pack(result, f"the result of {capability.name}")
            await self.waits.flush(self._cancelled() or Completed(packed))
        except ContinueAsNew as anew:
            self.waits.replay.ended("continues as new")
            await self._end_services()
            await self._cancel_children(f"its parent {self.id} begins anew", self.id)
            await self.waits.flush(Continued(anew.given))
            self.waits.stop()
            return True
        except asyncio.CancelledError as error:
            if cancelled():
                raise
            await self._failed(StepExitError("the handler was cancelled from within"), error)
        except (Exception, SystemExit) as error:
            if deadline.expired() and isinstance(error, TimeoutError):
                late = Failure("TimeoutError", f"it did not finish within {state.within:g} seconds")
                await self._end_services()
                await self.waits.flush(Failed(late))
            else:
                await self._failed(error, error)
        return False

    def _cancelled(self) -> Cancelled | None:
        asked = self.state.cancelling
        return Cancelled(asked.by, asked.reason) if asked else None

    async def _failed(self, error: BaseException, cause: BaseException) -> None:
        """Record how the handler ended, unless it is not the handler that failed."""
        await self._end_services()
        if trouble := self.waits.trouble or self.work.trouble:
            raise trouble from cause
        try:
            self.waits.replay.ended(f"raises {failure_of(error).kind}")
        except ReplayError as differs:
            error = differs
        failure = failure_of(error)
        if not isinstance(error, ReplayError):
            await self.waits.flush(self._cancelled() or Failed(failure))
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

    # What the handler's task asks for

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

    async def unpaused(self) -> None:
        """Wait until nobody has the task paused: nothing new begins before."""
        while self.state.paused and not self.closed:
            await self.work.durably(self.moved())

    @contextlib.contextmanager
    def interruptible(self, wait: int) -> Iterator[None]:
        """Meanwhile the wait may be settled by a cancellation of the task, which then ends what is being done."""
        running = asyncio.current_task()
        assert running is not None
        self._interruptible[wait] = running
        try:
            yield
        finally:
            del self._interruptible[wait]

    def interrupted(self, wait: int) -> Settled | None:
        """The outcome of a wait that a cancellation of the task has settled while it was under way."""
        if wait not in self._interrupted:
            return None
        self._interrupted.discard(wait)
        running = asyncio.current_task()
        if running:
            running.uncancel()
        return self.waits.settled(wait)

    def abandon(self, wait: int, kind: WaitKind) -> None:
        """The handler does not await something any more, while it goes on itself."""
        if self._stopping or self.closed or self.state.finished or self.waits.is_settled(wait):
            return
        self.waits.abandon(wait)
        if kind == "child":
            self.serve(self._cancel_child(wait, f"its parent {self.id} does not await it any more", self.id))

    # What others ask of the task

    async def cancel(self, by: str, reason: str = "") -> None:
        """Stop the task: recorded first, then its handler is cancelled, then its children.

        A handler in a saga is given `TaskCancelledError` wherever it waits, and time to clean up; cancelled again, it
        is stopped at once.
        """
        if self.state.finished or not self.state.status:
            raise SettledError(f"task {self.id} is {self.state.status or 'unknown'} already")
        if self.cleaning and not self.state.cancelling:
            self.waits.note(Cancelling(by, reason), soon=False)
            self._interrupt(by)
            await self.waits.flush()
            return
        await self.waits.flush(Cancelled(by, reason))
        await self._stop_run()
        await self._cancel_children(f"its parent {self.id} was cancelled", by)

    def _interrupt(self, by: str) -> None:
        """Settle all that the handler awaits."""
        for wait in self.waits.awaited:
            if not self.waits.is_settled(wait):
                self.waits.settle(Settled(wait, failure=Failure(INTERRUPTED, f"task {self.id} was cancelled by {by}")))
                if wait in self.state.open and self.state.waits[wait].kind == "child":
                    self.serve(self._cancel_child(wait, f"its parent {self.id} was cancelled", by))
                if running := self._interruptible.get(wait):
                    self._interrupted.add(wait)
                    running.cancel()

    async def pause(self, by: str, reason: str = "") -> None:
        """Let nothing new begin; what is under way ends, and is recorded."""
        if self.state.finished:
            raise SettledError(f"task {self.id} is {self.state.status} already")
        if not self.state.paused:
            await self.waits.flush(Paused(by, reason))

    async def resume(self, by: str) -> None:
        """Go on after a pause."""
        if self.state.paused and not self.state.finished:
            await self.waits.flush(Resumed(by))

    async def _cancel_children(self, reason: str, by: str) -> None:
        for wait in sorted(self.state.open):
            if self.state.waits[wait].kind == "child" and self.state.waits[wait].terms != DETACHED:
                await self._cancel_child(wait, reason, by)

    async def _cancel_child(self, wait: int, reason: str, by: str) -> None:
        try:
            await self.host.cancel(child_id(self.id, wait, self.state.begun), by, reason)
        except (EventStoreError, CallError) as error:  # whoever runs the child finds out by itself
            _log.warning("a child of task %s is not cancelled yet: %s", self.id, error)

    # Passivation

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
        self.closed = self._stopping = True
        for service in self._services:
            service.cancel()
        self.waits.stop()
        self.host.ran(self)
        self.stir()

    async def _stop_run(self) -> None:
        self._stopping = True
        run = self._run
        if run and not run.done() and run is not asyncio.current_task():
            run.cancel()
            _, still = await asyncio.wait([run], timeout=STOPPING)
            if still:
                _log.warning("the handler of task %s does not end: it is left behind, and can record nothing", self.id)
        self.drop()
