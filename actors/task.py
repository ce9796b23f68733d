"""What a handler is given: the task it works on, and everything it may durably await."""

import asyncio
import hashlib
import math
import uuid
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

import msgspec

from ..eventstore.ambient import readable_id
from ..eventstore.artifacts import Artifact
from .agent import Handler, step_options
from .effects import CurrentStep, current_step
from .errors import RejectedError, StepError, TaskCancelledError, TaskFailedError
from .events import Checkpointed, Progressed, Settled, WaitKind
from .packing import name_of, pack, pack_input, returns, unpack
from .statements import Approval
from .task_state import WaitState

if TYPE_CHECKING:
    from .cell import TaskCell

P = ParamSpec("P")
T = TypeVar("T")


def child_id(task: str, wait: int) -> str:
    """The id of the child that a wait opens: the same each time, so that it starts once."""
    return readable_id(hashlib.sha256(f"agent-party child\0{task}\0{wait}".encode()).digest()[:10])


class Task:
    """A handler's side of a task. Each await below is recorded once and replayed after a crash."""

    def __init__(self, cell: "TaskCell") -> None:
        self._cell = cell

    @property
    def id(self) -> str:
        """The task's id."""
        return self._cell.id

    @overload
    async def step(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    async def step(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...
    async def step(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function once, durably: its outcome is recorded, and after a crash replayed instead of done again.

        A function that is not async runs in a thread. Raises `StepError` when its retries are used up.
        """
        name = name_of(function)

        async def run(wait: int, _: WaitState) -> Settled:
            key = hashlib.sha256(f"{self._cell.stream}\0{wait}".encode()).hexdigest()
            return await self._cell.effect(
                CurrentStep(self.id, wait, 1, key), function, step_options(function), (args, kwargs)
            )

        settled = await self._await("step", name, pack_input((args, kwargs), f"the input of {name}"), run)
        if settled.failure:
            raise StepError(name, settled.failure.kind, settled.failure.message)
        return unpack(settled.value, returns(function))

    async def _await(
        self, kind: WaitKind, name: str, given: bytes, run: Callable[[int, WaitState], Awaitable[Settled]]
    ) -> Settled:
        """Open a wait, run what settles it unless that is recorded, and hand its outcome to the handler."""
        waits = self._cell.waits
        wait, recorded = await waits.enter(kind, name, given)
        settled = recorded.settled
        if settled is None:
            if kind in ("step", "child"):
                await waits.replay.over()
            settled = await run(wait, recorded)
            waits.settle(settled)
        await waits.take(wait)
        return settled

    async def ask(self, capability: str | Handler, **given: Any) -> Any:
        """Delegate to whoever has the capability, and wait for the result.

        Raises `TaskFailedError` or `TaskCancelledError` as the child ends; a child waits while nobody can do it.
        """
        name = self._cell.capability_of(capability)

        async def run(wait: int, opened: WaitState) -> Settled:
            return await self._cell.child(wait, name, opened)

        settled = await self._await("child", name, pack_input(given, f"the input of {name}"), run)
        if settled.failure:
            error = TaskCancelledError if settled.failure.kind == "TaskCancelledError" else TaskFailedError
            raise error(child_id(self.id, settled.wait), settled.failure.message)
        return unpack(settled.value, self._cell.output_of(name))

    async def approval(self, name: str, show: Any = None) -> Approval:
        """Wait for a person, for days if need be. ``show`` is what they sign; `RejectedError` if they say no."""
        settled = await self._await(
            "approval",
            name,
            pack_input(show, f"what {name} shows"),
            lambda wait, _: self._cell.durably(self._cell.waits.answer(wait)),
        )
        answer = msgspec.msgpack.decode(settled.value, type=Approval)
        if not answer.approved:
            reason = f": {answer.note}" if answer.note else ""
            raise RejectedError(self.id, f"{answer.person} rejected {name!r}{reason}")
        return answer

    async def sleep(self, seconds: float) -> None:
        """Sleep durably: the time counts on while the program is down."""
        if not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(f"a task cannot sleep {seconds} seconds")
        due = int(self._value("due", lambda: self._cell.now() + int(seconds * 1_000_000)))

        async def run(wait: int, _: WaitState) -> Settled:
            # No longer than was asked for, even if the clock has been set back meanwhile.
            left = min(seconds, (due - self._cell.now()) / 1_000_000)
            await self._cell.durably(asyncio.sleep(max(0.0, left)))
            return Settled(wait)

        await self._await("sleep", "sleep", pack(due, "a time"), run)

    def now(self) -> int:
        """The time, recorded: microseconds since 1970."""
        return int(self._value("now", self._cell.now))

    def random(self) -> float:
        """A random number from 0 to 1, recorded."""
        return float(self._value("random", lambda: int.from_bytes(self._cell.chance(7)) / (1 << 56)))

    def uuid(self) -> str:
        """A random UUID, recorded."""
        return str(self._value("uuid", lambda: str(uuid.UUID(bytes=self._cell.chance(16), version=4))))

    def _value(self, name: str, make: Callable[[], Any]) -> Any:
        return msgspec.msgpack.decode(self._cell.waits.value(name, lambda: pack(make(), name)))

    def progress(self, done: int, total: int = 0, note: str = "") -> None:
        """Say how far the task has come; recorded with its next commit."""
        if not self._cell.replaying:
            self._cell.waits.note(Progressed(done, total, note))

    async def checkpoint(self, state: Any) -> None:
        """Keep state on the log, where the task's state shows it. Large state goes to the blobs."""
        if not self._cell.replaying:
            await self._cell.waits.flush(Checkpointed(pack(state, "a checkpoint")))

    async def artifact(self, name: str, content: bytes | str) -> Artifact:
        """Keep a document or file beside the log, encrypted, by its hash; what is returned goes into results."""
        data = content.encode() if isinstance(content, str) else content

        async def run(wait: int, _: WaitState) -> Settled:
            made = await self._cell.keep(name, data)
            return Settled(wait, pack(made, name), attachments=[made.blob])

        settled = await self._await("step", f"artifact {name}", pack(hashlib.sha256(data).digest(), name), run)
        return msgspec.msgpack.decode(settled.value, type=Artifact)

    async def open(self, artifact: Artifact) -> bytes:
        """The content of an artifact, verified against its hash. Not recorded: an artifact never changes."""
        return await self._cell.open(artifact)

    @property
    def memory(self) -> "Memory":
        """What the agent remembers beyond this task."""
        return Memory(self, self._cell)


class Memory:
    """Keys and values that an agent keeps on its own stream. Reads are recorded in the task that makes them."""

    def __init__(self, task: Task, cell: "TaskCell") -> None:
        self._task, self._cell = task, cell

    async def get(self, key: str, default: Any = None) -> Any:
        """The value under a key."""

        async def run(wait: int, _: WaitState) -> Settled:
            return Settled(wait, await self._cell.recall(key) or pack(default, key))

        settled = await self._task._await("step", f"memory.get {key}", b"\xc0", run)
        return msgspec.msgpack.decode(settled.value)

    async def set(self, key: str, value: Any) -> None:
        """Keep a value under a key, once. None forgets the key."""
        packed = pack_input(value, f"the value of {key}")

        async def run(wait: int, _: WaitState) -> Settled:
            await self._cell.remember(key, packed, wait)
            return Settled(wait)

        await self._task._await("step", f"memory.set {key}", packed, run)


__all__ = ["CurrentStep", "Memory", "Task", "WaitState", "child_id", "current_step"]
