"""A live task: its stream, and the run of its handler. Plain async code; a host runs it."""

import asyncio
import logging
from collections.abc import Collection, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from ..eventstore.errors import EventStoreError
from ..eventstore.log import Writer
from ..eventstore.reading import Commit
from ..eventstore.verify import Cause
from .activation import Activation
from .agent import Agent, Capability, Handler, capability_of
from .delegation import child_id
from .effects import StepExitError, cancelled
from .errors import CallError, ReplayError
from .events import (
    Cancelled,
    Cancelling,
    Completed,
    Continued,
    Failed,
    Failure,
    Requested,
    Started,
    Stopped,
)
from .messages import Messages
from .packing import failure_of, pack
from .spending import Ended, Spending
from .stopping import Stopping
from .task import ContinueAsNew, Task
from .task_state import TASK, TaskState
from .waits import Waits
from .work import Work

if TYPE_CHECKING:
    from .host import Host

_log = logging.getLogger("agent_party")
STOPPING = 5.0
"""Seconds a handler has to end when it is cancelled; it can record nothing by then."""


class TaskCell(Stopping):
    """One task, live in this process, for one run of its handler. ``cleaning``: how many sagas are open in it;
    ``callers``: how many wait for an answer of it."""

    def __init__(self, host: "Host", task: str) -> None:
        self.host, self.id, self.stream = host, task, f"task/{task}"
        self.activation: Activation[TaskState] = Activation(host.log, TASK, self.stream, host.snapshots)
        self.closed = False
        self.cleaning = self.callers = 0
        self._run: asyncio.Task[None] | None = None
        self.work = Work(self)
        self._stopping = False
        self._cancelling: Cancelling | None = None
        self._stirred = asyncio.Event()
        self._services: set[asyncio.Task[None]] = set()
        self._interruptible: dict[int, asyncio.Task[Any]] = {}
        self._interrupted: set[int] = set()
        self._begin()

    def _begin(self) -> None:
        """Everything that belongs to one run of the handler."""
        self.waits = Waits(self.state, self._record)
        self.waits.own = self.id
        self.messages = Messages(self)
        self.spending = Spending(self)
        # Of a fork that never ran, nothing can have been left half done by a crash.
        unborn = self.state.forked is not None and not self.state.runs
        self.known = 0 if unborn else self.activation.folded.revision

    @property
    def state(self) -> TaskState:
        """The fold of the task's stream."""
        return self.activation.state

    @property
    def replaying(self) -> bool:
        """Whether the handler still goes over what was recorded before."""
        return self.waits.replay.running

    @property
    def is_held_back(self) -> bool:
        """Whether nothing new begins in it, because its agent is paused or its host is about to end."""
        return self.host.holds_back(self.work.agent.name)

    @property
    def stands_still(self) -> bool:
        """Whether all that the handler does is to await what may take days, and nothing of the task is under way."""
        runs = self._run is not None and not self.closed and hasattr(self.work, "slot")
        serves = len(self._services) > self.messages.standing  # something else than updates that may come
        return runs and not serves and self.waits.is_quiet and self.work.slot.at_rest

    async def start(self, grants: Collection[bytes], kept: Writer | None = None) -> None:
        """Take the stream over and load it; `MovedError` if other grants than these are in force by then. ``kept``: key
        and grant that this process has had since it passivated the task."""
        await self.activation.start(lambda stream: self.host.doorman.successor(stream, grants), kept)
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
        self.host.passivation.touch(self.id)

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
        self.work.begin(agent, self.host.slot(self.id, agent, capability.name))
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
        if state.forked and not state.runs:
            await self.waits.flush()
        self.spending.go_on()
        deadline = asyncio.timeout(self._left())
        try:
            async with deadline:
                await self.work.slot.take()
                arguments = capability.arguments(msgspec.msgpack.decode(state.input))
                task = Task(self)
                await self.messages.decisions.start(task, agent, capability, msgspec.msgpack.decode(state.input))
                result = await capability.handler(task, **arguments)
            self.waits.replay.ended("returns")
            await self._end_services()
            packed = pack(result, f"the result of {capability.name}")
            await self._end(self._cancelled() or Completed(packed))
        except ContinueAsNew as anew:
            self.waits.replay.ended("continues as new")
            await self._end_services()
            await self._cancel_children(f"its parent {self.id} begins anew", self.id)
            await self.spending.closed()
            again = Continued(anew.given)
            await self.waits.flush(lambda: [*self.spending.leftovers(), again])
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
                await self._end(Failed(late))
            else:
                await self._failed(error, error)
        return False

    async def _end(self, ended: Ended) -> None:
        """Record how the task ended, once nothing of its budget is reserved any more."""
        await self.spending.closed()
        await self.waits.flush(self.spending.ending(ended))

    def wind_up(self) -> None:
        """End a task that was cancelled: its handler does not go on."""
        if not (self.state.finished or self._run or self.closed):
            self._run = asyncio.get_running_loop().create_task(self._wind_up())

    async def _wind_up(self) -> None:
        try:
            await self._end(self._cancelled() or Cancelled(""))
        except (EventStoreError, CallError) as error:
            _log.warning("task %s is set aside: %s", self.id, error)
        except Exception:
            _log.exception("task %s is set aside, by a fault of this program", self.id)
        finally:
            self.drop()

    def _cancelled(self) -> Cancelled | None:
        asked = self.state.cancelling or self._cancelling
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
            await self._end(self._cancelled() or Failed(failure))
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
        return capability_of(target, self.host.code)

    def output_of(self, capability: str) -> Any:
        """The declared type of a capability's result, as far as it is known here."""
        known = (agent.capabilities.get(capability) for agent in self.host.code)
        return next((found.output for found in known if found), Any)

    async def describe(self, capability: str) -> dict[str, Any]:
        """The schema of a capability's input, as far as it is known here."""
        known = (agent.capabilities.get(capability) for agent in self.host.code)
        return next((found.schema() for found in known if found), {"type": "object"})

    async def unpaused(self) -> None:
        """Wait until nobody has the task paused: nothing new begins before."""
        while (self.state.paused or self.is_held_back) and not self.closed:
            await self.work.durably(self.moved())

    # Passivation

    async def release(self) -> None:
        """Let the task go, so that another process can take it."""
        await self.waits.flush()
        self.drop()
        await self.activation.release(self.host.doorman.release)

    async def rest(self) -> None:
        """Passivate what stands still: the handler is cancelled, and nothing of that is recorded."""
        self.drop()
        await self._stop_run()

    def child(self, wait: int) -> str:
        """The id of the child that a wait is for."""
        return child_id(self.id, wait, self.state.begun)

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
        self.host.streams.close(self.id)
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
