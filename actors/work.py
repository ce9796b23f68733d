"""What a task's waits do: running effects, starting children, keeping artifacts, remembering."""

import hashlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from ..eventstore.artifacts import Artifact, fetch, keep
from ..eventstore.errors import AppendError, LogError, StoreError
from .agent import Agent
from .delegation import cause_of, child_id
from .effects import CurrentStep, Trial
from .errors import DeadlineError, MailboxFullError, MovedError
from .events import Failure, Held, Requested, Settled
from .packing import name_of
from .slots import Slot
from .steps import StepOptions, step_options
from .task_state import WaitState

if TYPE_CHECKING:
    from .cell import TaskCell

T = TypeVar("T")
_OURS = (AppendError, LogError, StoreError, MovedError, MailboxFullError, DeadlineError)
"""What keeps this process from going on with a task, and says nothing about the task."""


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
        if options.on_crash != "retry" and opened.revision <= self._cell.known and not opened.freed:
            if options.on_crash == "compensate" and options.undo:
                settled = await self._run(wait, opened, options.undo, step_options(options.undo), given)
                open_left = Failure("CrashedError", "a crash left open whether it was done: it was taken back")
                return Settled(wait, failure=settled.failure or open_left, attempts=opened.attempts + 1)
            await self.hold(wait, f"a crash left open whether {name_of(function)} was done: shall it be done?")
            if refused := self._cell.waits.settled(wait):
                return refused
        return await self._run(wait, opened, function, options, given)

    async def _run(
        self, wait: int, opened: WaitState, function: Callable[..., Any], options: StepOptions, given: tuple[Any, Any]
    ) -> Settled:
        cell = self._cell
        key = idempotency_key(cell.stream, wait, cell.state.begun)
        step = CurrentStep(cell.id, wait, 1, key, opened.detail, lambda piece: cell.host.publish(cell.id, wait, piece))
        trial = Trial(cell.waits.note, cell.now, self._ratio, (opened.attempts, opened.next))
        async with self.slot.working():
            return await cell.host.effects.run(step, function, options, given, trial)

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

    async def keep(self, name: str, content: bytes) -> Artifact:
        """Put an artifact of this task into the blobs."""
        return await self._ours(keep(self._cell.host.log, self._cell.stream, name, content))

    async def open(self, artifact: Artifact) -> bytes:
        """The content of an artifact."""
        return await self._ours(fetch(self._cell.host.log, artifact))

    async def recall(self, key: str) -> bytes | None:
        """What the agent remembers under a key, packed."""
        return await self._ours(self._cell.host.recall(self.agent.name, key))

    async def remember(self, key: str, value: bytes, wait: int) -> None:
        """Have the agent remember; once for each wait."""
        cell = self._cell
        command = cell.host.command_id(f"{cell.stream}#{wait}" + (f"#{cell.state.begun}" if cell.state.begun else ""))
        await self._ours(cell.host.remember(self.agent.name, key, value, command))


def idempotency_key(stream: str, wait: int, begun: int) -> str:
    """The key of a step: the same however often it is tried, and no other step's."""
    again = f"\0{begun}" if begun else ""
    return hashlib.sha256(f"{stream}\0{wait}{again}".encode()).hexdigest()
