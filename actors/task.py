"""What a handler is given: the task it works on, and everything it may durably await."""

import asyncio
import contextvars
import hashlib
import inspect
import random
import typing
import uuid
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar, overload

import msgspec

from ..eventstore.ambient import readable_id
from ..eventstore.artifacts import Artifact
from ..eventstore.errors import PayloadError
from .agent import Handler, StepOptions, step_options
from .errors import RejectedError, StepError, TaskCancelledError, TaskFailedError
from .events import Checkpointed, Failure, Progressed, Settled
from .statements import Approval
from .task_state import WaitState

if TYPE_CHECKING:
    from .cell import TaskCell

P = ParamSpec("P")
T = TypeVar("T")
_BACKOFF = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class CurrentStep(NamedTuple):
    """What a step may know of itself. ``idempotency_key`` is the same however often the step is tried."""

    task: str
    wait: int
    attempt: int
    idempotency_key: str


_current: contextvars.ContextVar[CurrentStep] = contextvars.ContextVar("current_step")


def current_step() -> CurrentStep:
    """The step that is running; `LookupError` outside of one."""
    return _current.get()


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
        name = getattr(function, "__qualname__", str(function))
        wait, recorded = await self._cell.waits.enter("step", name, self._pack((args, kwargs), f"the input of {name}"))
        settled = recorded.settled
        if settled is None:
            settled = await self._attempts(function, name, wait, args, kwargs)
            self._cell.waits.settle(settled)
        if settled.failure:
            raise StepError(name, settled.failure.kind, settled.failure.message)
        return _unpack(settled.value, _returns(function))

    async def _attempts(
        self, function: Callable[..., Any], name: str, wait: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Settled:
        options, key = step_options(function), hashlib.sha256(f"{self._cell.stream}\0{wait}".encode()).hexdigest()
        attempt = 0
        while True:
            attempt += 1
            _current.set(CurrentStep(self._cell.id, wait, attempt, key))
            try:
                value = await self._cell.effect(_call(function, options, args, kwargs))
                return Settled(wait, self._pack(value, f"the result of {name}"), attempts=attempt)
            except PayloadError as error:
                return Settled(wait, failure=_failure(error), attempts=attempt)
            except Exception as error:
                if attempt > options.retries:
                    return Settled(wait, failure=_failure(error), attempts=attempt)
            await asyncio.sleep(_BACKOFF[min(attempt, len(_BACKOFF)) - 1])

    async def ask(self, capability: str | Handler, **given: Any) -> Any:
        """Delegate to whoever has the capability, and wait for the result.

        Raises `TaskFailedError` or `TaskCancelledError` as the child ends; a child waits while nobody can do it.
        """
        name = self._cell.capability_of(capability)
        wait, recorded = await self._cell.waits.enter("child", name, self._pack(given, f"the input of {name}"))
        settled = recorded.settled
        if settled is None:
            settled = await self._cell.child(wait, name, recorded)
            self._cell.waits.settle(settled)
        if settled.failure:
            error = TaskCancelledError if settled.failure.kind == "TaskCancelledError" else TaskFailedError
            raise error(child_id(self.id, wait), settled.failure.message)
        return _unpack(settled.value, self._cell.output_of(name))

    async def approval(self, name: str, show: Any = None) -> Approval:
        """Wait for a person, for days if need be. ``show`` is what they sign; `RejectedError` if they say no."""
        wait, _ = await self._cell.waits.enter("approval", name, self._pack(show, f"what {name} shows"))
        settled = await self._cell.durably(self._cell.waits.answer(wait))
        answer = _unpack(settled.value, Approval)
        assert isinstance(answer, Approval)
        if not answer.approved:
            reason = f": {answer.note}" if answer.note else ""
            raise RejectedError(self.id, f"{answer.person} rejected {name!r}{reason}")
        return answer

    async def sleep(self, seconds: float) -> None:
        """Sleep durably: the time counts on while the program is down."""
        if seconds < 0:
            raise ValueError(f"a task cannot sleep {seconds} seconds")
        due = int(self._value("due", lambda: self._cell.now() + int(seconds * 1_000_000)))
        wait, recorded = await self._cell.waits.enter("sleep", "sleep", self._pack(due, "a time"))
        if recorded.settled is None:
            await self._cell.durably(asyncio.sleep(max(0, due - self._cell.now()) / 1_000_000))
            self._cell.waits.settle(Settled(wait))

    def now(self) -> int:
        """The time, recorded: microseconds since 1970."""
        return int(self._value("now", self._cell.now))

    def random(self) -> float:
        """A random number from 0 to 1, recorded."""
        return float(self._value("random", random.SystemRandom().random))

    def uuid(self) -> str:
        """A random UUID, recorded."""
        return str(self._value("uuid", lambda: str(uuid.uuid4())))

    def _value(self, name: str, make: Callable[[], Any]) -> Any:
        return msgspec.msgpack.decode(self._cell.waits.value(name, lambda: self._pack(make(), name)))

    def progress(self, done: int, total: int = 0, note: str = "") -> None:
        """Say how far the task has come; recorded with its next commit."""
        if not self._cell.replaying:
            self._cell.waits.note(Progressed(done, total, note))

    async def checkpoint(self, state: Any) -> None:
        """Keep state on the log, where `state` shows it and `restored` finds it. Large state goes to the blobs."""
        if not self._cell.replaying:
            await self._cell.waits.flush(Checkpointed(self._pack(state, "a checkpoint")))

    async def artifact(self, name: str, content: bytes | str) -> Artifact:
        """Keep a document or file beside the log, encrypted, by its hash; what is returned goes into results."""
        data = content.encode() if isinstance(content, str) else content
        digest = hashlib.sha256(data).digest()
        wait, recorded = await self._cell.waits.enter("step", f"artifact {name}", self._pack(digest, name))
        settled = recorded.settled
        if settled is None:
            made = await self._cell.keep(name, data)
            settled = Settled(wait, self._pack(made, name), attachments=[made.blob])
            self._cell.waits.settle(settled)
        return msgspec.msgpack.decode(settled.value, type=Artifact)

    @property
    def memory(self) -> "Memory":
        """What the agent remembers beyond this task."""
        return Memory(self._cell)

    @staticmethod
    def _pack(value: Any, what: str) -> bytes:
        try:
            return msgspec.msgpack.encode(value)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise PayloadError(
                f"{what} cannot be stored ({error}): use numbers, text, bytes, lists, dicts, dataclasses or Structs"
            ) from error


class Memory:
    """Keys and values that an agent keeps on its own stream. Reads are recorded in the task that makes them."""

    def __init__(self, cell: "TaskCell") -> None:
        self._cell = cell

    async def get(self, key: str, default: Any = None) -> Any:
        """The value under a key."""
        wait, recorded = await self._cell.waits.enter("value", f"memory.get {key}")
        settled = recorded.settled
        if settled is None:
            settled = Settled(wait, await self._cell.recall(key) or Task._pack(default, key))
            self._cell.waits.settle(settled)
        return msgspec.msgpack.decode(settled.value)

    async def set(self, key: str, value: Any) -> None:
        """Keep a value under a key, once."""
        packed = Task._pack(value, f"the value of {key}")
        wait, recorded = await self._cell.waits.enter("step", f"memory.set {key}", packed)
        if recorded.settled is None:
            await self._cell.remember(key, packed, wait)
            self._cell.waits.settle(Settled(wait))


async def _call(
    function: Callable[..., Any], options: StepOptions, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    async with asyncio.timeout(options.timeout):
        if inspect.iscoroutinefunction(function):
            return await function(*args, **kwargs)
        value = await asyncio.to_thread(function, *args, **kwargs)
        return await value if inspect.isawaitable(value) else value


def _failure(error: BaseException) -> Failure:
    if isinstance(error, TimeoutError) and not str(error):
        return Failure("TimeoutError", "it took longer than its timeout")
    return Failure(type(error).__name__, str(error)[:2_000])


def _returns(function: Callable[..., Any]) -> Any:
    try:
        return typing.get_type_hints(function).get("return", Any)
    except (NameError, TypeError):
        return Any


def _unpack(data: bytes, kind: Any) -> Any:
    """A recorded value as its declared type; as it lies in MessagePack where the type cannot be decoded into."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (TypeError, msgspec.ValidationError):
        return msgspec.msgpack.decode(data)


__all__ = ["CurrentStep", "Memory", "Task", "WaitState", "child_id", "current_step"]
