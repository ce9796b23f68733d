"""What a task's waits do: running effects, starting children, keeping artifacts, remembering."""

import functools
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from ..eventstore.artifacts import Artifact, fetch, fetch_pieces, keep, keep_pieces
from ..eventstore.errors import AppendError, LogError, StoreError
from ..eventstore.parts import file_pieces
from .agent import Agent
from .decider import stream_of
from .delegation import cause_of, child_id
from .effects import CurrentStep, Trial
from .errors import (
    DeadlineError,
    MailboxFullError,
    MovedError,
    RuntimeUnavailableError,
    SettledError,
    StepCrashedError,
    UnknownTaskError,
)
from .events import Attempted, Failure, Held, Received, Requested, Settled, Source
from .packing import failure_of, name_of
from .people import Roles
from .slots import Slot
from .steps import StepOptions, step_options
from .task_state import WaitState
from .teams import counterpart, memory_of, message_id

if TYPE_CHECKING:
    from .cell import TaskCell

T = TypeVar("T")
_OURS = (AppendError, LogError, StoreError, MovedError, MailboxFullError, DeadlineError, RuntimeUnavailableError)
"""What keeps this process from going on with a task, and says nothing about the task."""
CRASHES = 3
"""How often a step is tried again at least, whatever its retries, when nothing failed but the process it ran in."""


class Work:
    """The work of one live task. ``trouble``: why this process cannot go on with it, if it cannot."""

    agent: Agent
    slot: Slot

    def __init__(self, cell: "TaskCell") -> None:
        self._cell = cell
        self.trouble: Exception | None = None

    def begin(self, agent: Agent, slot: Slot) -> None:
        """An agent takes the task on."""
        self.agent, self.slot = agent, slot

    async def effect(
        self, wait: int, opened: WaitState, function: Callable[..., Any], options: StepOptions, given: tuple[Any, Any]
    ) -> Settled:
        """Run a step under the limits of the agent and of the host. One that a crash left open is run again, or taken
        back, or held until a person lets it go on, as its options say."""
        left_open = max(opened.revision, opened.admitted, opened.freed_at) <= self._cell.known
        left_open = left_open and options.on_crash != "retry"
        while True:
            if left_open and (settled := await self._left_open(wait, opened, function, options, given)):
                return settled
            try:
                return await self._tries(wait, opened, function, options, given)
            except StepCrashedError as crash:
                if self._cell.host.ending:
                    self.trouble = MovedError(f"who goes on with the task decides what becomes of a step: {crash}")
                    raise self.trouble from crash
            left_open = True

    async def _left_open(
        self, wait: int, opened: WaitState, function: Callable[..., Any], options: StepOptions, given: tuple[Any, Any]
    ) -> Settled | None:
        """What a step comes to of which it is open whether it was done; None if it is to be done."""
        if options.on_crash == "compensate" and options.undo:
            undoing = step_options(options.undo)._replace(on_crash="retry")
            settled = await self._tries(wait, opened, options.undo, undoing, given)
            open_left = Failure("CrashedError", "a crash left open whether it was done: it was taken back")
            return Settled(wait, failure=settled.failure or open_left, attempts=opened.attempts + 1)
        await self.hold(wait, f"a crash left open whether {name_of(function)} was done: shall it be done?")
        return self._cell.waits.settled(wait)

    async def _tries(
        self, wait: int, opened: WaitState, function: Callable[..., Any], options: StepOptions, given: tuple[Any, Any]
    ) -> Settled:
        """Run a step, again where the process it ran in ended under it, if its options leave that to us."""
        while True:
            try:
                return await self._run(wait, opened, function, options, given)
            except StepCrashedError as crash:
                if options.on_crash != "retry" or self._cell.host.ending:
                    raise
                if crash.attempt > max(CRASHES, options.retries):
                    return Settled(wait, failure=failure_of(crash), attempts=crash.attempt)
                due = self._cell.now() + int(options.pause(crash.attempt, self._ratio()) * 1_000_000)
                self._tried(wait, Attempted(wait, crash.attempt, failure_of(crash), next=due))
                opened = msgspec.structs.replace(opened, attempts=crash.attempt, next=due)

    async def _run(
        self, wait: int, opened: WaitState, function: Callable[..., Any], options: StepOptions, given: tuple[Any, Any]
    ) -> Settled:
        cell = self._cell
        key = idempotency_key(cell.stream, wait, cell.state.begun)
        publish = functools.partial(cell.host.streams.publish, cell.id, wait)
        step = CurrentStep(cell.id, wait, 1, key, opened.detail, publish)
        trial = Trial(lambda tried: self._tried(wait, tried), cell.now, self._ratio, (opened.attempts, opened.next))
        try:
            async with self.slot.working():
                return await cell.host.effects.run(step, function, options, given, trial)
        finally:
            cell.host.streams.end(cell.id, wait)

    def _tried(self, wait: int, tried: Attempted) -> None:
        if tried.failure:
            self._cell.spending.attempted(wait, tried.failure)
        self._cell.waits.note(tried)

    def _ratio(self) -> float:
        return int.from_bytes(self._cell.chance(4)) / (1 << 32)

    async def hold(self, wait: int, reason: str) -> None:
        """Let a wait go on only when a person says so; it is settled instead if the person refuses."""
        cell = self._cell
        held = cell.state.waits[wait]
        if not held.held or held.freed:
            await cell.waits.flush(Held(wait, reason))
        while not (cell.state.waits[wait].freed or cell.waits.is_settled(wait)):
            await self.durably(cell.moved())

    async def durably(self, awaited: Awaitable[T]) -> T:
        """Await something that may take days: the agent's slot is free meanwhile."""
        async with self.slot.parked():
            return await awaited

    async def _ours(self, call: Awaitable[T]) -> T:
        """Await something of this process, whose troubles are not the handler's."""
        try:
            return await call
        except _OURS as error:
            self.trouble = error
            raise

    async def child(self, wait: int, requested: Requested, opened: WaitState) -> Settled:
        """Start the child of a wait, if it has not started, and wait for what it comes to."""
        child = await self.start(wait, requested, opened)
        return await self.durably(self._ours(self._cell.host.outcome(child, wait)))

    async def start(self, wait: int, requested: Requested, opened: WaitState) -> str:
        """Have the task of a wait on the log: its id."""
        cell = self._cell
        child = child_id(cell.id, wait, cell.state.begun)
        await self._ours(cell.host.place(child, requested, cause_of(cell.stream, opened)))
        return child

    async def keep(self, name: str, content: bytes | Path) -> Artifact:
        """Put an artifact of this task into the blobs; `OSError` for a file that cannot be read."""
        log, stream = self._cell.host.log, self._cell.stream
        if isinstance(content, Path):
            return await self._ours(keep_pieces(log, stream, name, file_pieces(content)))
        return await self._ours(keep(log, stream, name, content))

    async def open(self, artifact: Artifact) -> bytes:
        """The content of an artifact."""
        return await self._ours(fetch(self._cell.host.log, artifact))

    def pieces(self, artifact: Artifact) -> AsyncIterator[bytes]:
        """The same, piece by piece."""
        return fetch_pieces(self._cell.host.log, artifact)

    async def roles(self) -> Roles:
        """Who has which role now."""
        return await self._ours(self._cell.host.doorman.roles())

    async def hear(self) -> None:
        """Read all that was left for the task until now."""
        await self._ours(self._cell.host.log.refresh())
        await self._ours(self._cell.messages.read_inbox())

    async def recall(self, key: str) -> tuple[bytes | None, Source]:
        """What the agent remembers under a key, packed, and a commit of its memory by which it did."""
        memory = memory_of(self.agent.name, self._cell.state.team)
        value = await self._ours(self._cell.host.recall(memory, key))
        return value, await self._seen(memory)

    async def memories(self, prefix: str) -> tuple[dict[str, bytes], Source]:
        """What the agent remembers under keys with a prefix, packed, and a commit of its memory by which it did."""
        memory = memory_of(self.agent.name, self._cell.state.team)
        found = await self._ours(self._cell.host.memories(memory, prefix))
        return found, await self._seen(memory)

    async def remember(self, key: str, value: bytes, wait: int) -> Source:
        """Have the agent remember; once for each wait. A commit of its memory by which it does."""
        cell = self._cell
        memory = memory_of(self.agent.name, cell.state.team)
        command = cell.host.command_id(wait_key(cell.stream, wait, cell.state.begun))
        await self._ours(cell.host.remember(memory, key, value, command))
        return await self._seen(memory)

    async def _seen(self, memory: str) -> Source:
        """A memory as it is now, which is no earlier than what was read or written just before."""
        log = self._cell.host.log
        if self._cell.host.runtime:
            await self._ours(log.refresh())
        stream = stream_of("agent", memory)
        return Source(stream, (await log.state(stream)).revision)

    async def tell(self, task: str, name: str, value: bytes, wait: int, opened: WaitState) -> Settled:
        """Send another task a signal, once for each wait; within a team fork, its counterpart in the fork."""
        cell = self._cell
        identity = message_id(cell.stream, wait, cell.state.begun)
        source = Source(cell.stream, opened.revision)
        try:
            target = await counterpart(cell.host.log, cell.state.team, task)
            message = Received("signal", name, value, identity, cell.state.by, source)
            await self._ours(cell.host.deliver(target, message))
        except (SettledError, UnknownTaskError) as error:
            return Settled(wait, failure=failure_of(error))
        return Settled(wait)


def wait_key(stream: str, wait: int, begun: int) -> str:
    """What names a wait for ever, also where its task has begun anew."""
    return f"{stream}#{wait}" + (f"#{begun}" if begun else "")


def idempotency_key(stream: str, wait: int, begun: int) -> str:
    """The key of a step: the same however often it is tried, and no other step's."""
    again = f"\0{begun}" if begun else ""
    return hashlib.sha256(f"{stream}\0{wait}{again}".encode()).hexdigest()
