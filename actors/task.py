"""What a handler is given: the task it works on, and everything it may durably await."""

import asyncio
import hashlib
import math
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar, Unpack, overload

import msgspec

from ..eventstore.artifacts import Artifact
from ..eventstore.codec import NIL
from .agent import Handler
from .approvals import Rules
from .conversation import Answer, ModelOptions, converse
from .delegation import Delegation
from .errors import BudgetError, StepError, TaskCancelledError
from .events import INTERRUPTED, Checkpointed, Progressed, Settled, WaitKind
from .memory import Memory
from .messages import Updates
from .model import Estimate, Message, find_model
from .packing import failure_of, name_of, pack, pack_input, returns, unpack
from .reservation import Reservation
from .saga import Saga
from .spending import REFUSED, Plan
from .statements import Approval
from .steps import StepOptions, step_options
from .talks import Talks
from .task_budget import TaskBudget
from .task_state import WaitState, abandoned

if TYPE_CHECKING:
    from .cell import TaskCell

P = ParamSpec("P")
T = TypeVar("T")
Run = Callable[[int, WaitState], Awaitable[Settled]]
_AT_ONCE = 50


class ContinueAsNew(BaseException):
    """Raised by `Task.continue_as_new` through the handler."""

    def __init__(self, given: bytes) -> None:
        super().__init__()
        self.given = given


class Task:
    """A handler's side of a task. Each await below is recorded once and replayed after a crash."""

    def __init__(self, cell: "TaskCell") -> None:
        self._cell = cell
        self._unpatched: set[str] = set()
        self._talks = Talks()

    @property
    def id(self) -> str:
        """The task's id."""
        return self._cell.id

    @overload
    async def step(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    async def step(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    async def step(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call a function once, durably: its outcome is recorded, and after a crash replayed instead of done again.

        A function that is not async runs in a thread. Raises `StepError` when its retries are used up.
        """
        return await self._step(name_of(function), function, step_options(function), args, kwargs)

    async def _step(
        self, name: str, function: Callable[..., Any], options: StepOptions, args: tuple[Any, ...], kwargs: Any
    ) -> Any:
        async def run(wait: int, opened: WaitState) -> Settled:
            return await self._cell.work.effect(wait, opened, function, options, (args, kwargs))

        plan, formerly = self._cell.spending.step(name), getattr(function, "__formerly__", None)
        given = pack_input((args, kwargs), f"the input of {name}")
        settled = await self.wait_for("step", name, given, run, plan=plan, formerly=formerly)
        if settled.failure:
            raise StepError(name, settled.failure.kind, settled.failure.message)
        return unpack(settled.value, returns(function))

    async def wait_for(
        self,
        kind: WaitKind,
        name: str,
        given: bytes,
        run: Run,
        *,
        terms: bytes = b"",
        due: int = 0,
        plan: Plan | None = None,
        formerly: Callable[[], bytes] | None = None,
    ) -> Settled:
        """Open a wait, run what settles it unless that is recorded, and hand its outcome to the handler.

        The one way by which a handler awaits anything. Who stops awaiting it, abandons it: that is its outcome then.
        ``plan``: what it asks of the budget; ``formerly``: see `Waits.open`. Raises `TaskCancelledError` if the task is
        cancelled meanwhile and cleans up, `BudgetError` if the budget does not allow it.
        """
        waits, cell = self._cell.waits, self._cell
        if not waits.replay.running:
            await cell.unpaused()
        number, recorded = waits.open(kind, name, given, terms=terms, due=due, formerly=formerly)
        try:
            if recorded and number % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)  # a long record does not keep the others of this process waiting
            if recorded is None:
                await cell.spending.claim(number, plan)
            opened = recorded or await waits.opened(number)
            settled = waits.settled(number)
            if settled is None:
                if kind in ("step", "child"):
                    await waits.replay.over()
                with cell.interruptible(number):
                    settled = await cell.spending.admitted(number, plan) or await run(number, opened)
                waits.settle(cell.spending.charged(settled))
            elif abandoned(settled):
                await asyncio.get_running_loop().create_future()
            await waits.take(number)
        except asyncio.CancelledError:
            if not (interrupted := cell.interrupted(number)):
                cell.abandon(number, kind)
                raise
            settled = interrupted
            await waits.take(number)
        if settled.failure and settled.failure.kind == INTERRUPTED:
            raise TaskCancelledError(self.id, settled.failure.message)
        if settled.failure and settled.failure.kind == REFUSED and not settled.attempts:
            raise BudgetError(settled.failure.message)
        return settled

    @overload
    async def model(
        self, name: str, messages: str | Sequence[Message], *, output: None = None, **options: Unpack[ModelOptions]
    ) -> Answer[None]: ...
    @overload
    async def model(
        self, name: str, messages: str | Sequence[Message], *, output: type[T], **options: Unpack[ModelOptions]
    ) -> Answer[T]: ...
    async def model(
        self, name: str, messages: str | Sequence[Message], *, output: Any = None, **options: Unpack[ModelOptions]
    ) -> Answer[Any]:
        """Have a model of the agent answer, and run the tools it calls; each call is a step. See `converse`."""
        agent, cell = self._cell.work.agent, self._cell
        model = find_model(agent.models, cell.state.models.get(name, name), agent.name)
        more: dict[str, Any] = {"describe": cell.describe, "talks": self._talks, **options}
        return await converse(self, model, name, messages, output=output, **more)

    # Doing several things at once

    async def first(self, *awaitables: Coroutine[Any, Any, T]) -> tuple[int, T]:
        """The place and the result of the one that is done first; the others are stopped, and that is recorded."""
        running = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
        try:
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            winner = int(self._value("first", lambda: min(running.index(one) for one in done)))
            return winner, await running[winner]
        finally:
            for one in running:
                one.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def within(self, seconds: float, awaitable: Coroutine[Any, Any, T]) -> T:
        """The result of something, if it comes in so many seconds, also over a crash; else `TimeoutError`."""

        async def last() -> T:
            await self.sleep(seconds)
            raise TimeoutError(f"it took longer than {seconds:g} seconds")

        return (await self.first(awaitable, last()))[1]

    def saga(self) -> Saga:
        """Steps that are taken back in reverse order if one fails or the task is cancelled: ``async with``."""
        return Saga(self, self._cell)

    # Delegating

    async def ask(self, capability: str | Handler, /, **given: Any) -> Any:
        """Delegate to whoever has the capability, and wait for the result.

        Raises `TaskFailedError` or `TaskCancelledError` as the child ends; a child waits while nobody can do it.
        """
        return await self.using().ask(capability, **given)

    def using(self, **options: Any) -> Delegation:
        """Options for what is delegated next: see `Delegation`."""
        return Delegation(self, self._cell, **options)

    # People and other tasks

    @overload
    async def approval(self, name: str, show: Any = None, **rules: Unpack[Rules]) -> Approval[None]: ...
    @overload
    async def approval(self, name: str, show: Any = None, *, form: type[T], **rules: Unpack[Rules]) -> Approval[T]: ...
    async def approval(self, name: str, show: Any = None, *, form: Any = None, **rules: Unpack[Rules]) -> Approval[Any]:
        """Wait for people, for days if need be. ``show`` is what they sign; ``form``: a type whose values they fill in
        and sign with it; `Rules` say who, how many and until when. `RejectedError` if they say no, or nobody in time;
        `ConfigurationError` for rules by which nobody could decide."""
        return await self._cell.messages.decisions.ask(self, name, show, form, rules)

    async def signal(self, name: str, kind: Any = Any) -> Any:
        """Wait for a signal of this name; those that came before are kept, and given one by one, the oldest first."""
        return unpack(await self.receive("signal", name), kind)

    async def receive(self, kind: WaitKind, name: str) -> bytes:
        """The next message of a kind and a name, packed."""

        async def run(wait: int, _: WaitState) -> Settled:
            return await self._cell.work.durably(self._cell.messages.awaited(kind, name, wait))

        return (await self.wait_for(kind, name, NIL, run)).value

    async def tell(self, task: str, name: str, value: Any = None) -> None:
        """Send another task a signal, once. Raises `StepError` for a task that has finished or is not there."""
        given = pack_input(value, f"signal {name}")

        async def run(wait: int, opened: WaitState) -> Settled:
            return await self._cell.work.tell(task, name, given, wait, opened)

        told = f"tell {name}"
        settled = await self.wait_for("step", told, msgspec.msgpack.encode((task, given)), run)
        if settled.failure:
            raise StepError(told, settled.failure.kind, settled.failure.message)

    def on_update(self, name: str, handle: Callable[..., Any], *, validate: Callable[..., Any] | None = None) -> None:
        """Take updates of this name from now on: ``handle(**input)`` may be async and use the task; what it returns
        is the answer. ``validate(**input)`` refuses by raising, and then nothing is recorded."""
        self._cell.messages.on_update(self, name, Updates(handle, validate))

    def on_query(self, name: str, answer: Callable[..., Any]) -> None:
        """Answer queries of this name from now on; ``answer(**input)`` changes nothing, and nothing is recorded."""
        self._cell.messages.on_query(name, answer)

    # Time and chance

    async def sleep(self, seconds: float) -> None:
        """Sleep durably: the time counts on while the program is down."""
        if not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(f"a task cannot sleep {seconds} seconds")
        due = int(self._value("due", lambda: self._cell.now() + int(seconds * 1_000_000)))
        await self._until(due, seconds)

    async def sleep_until(self, due: int) -> None:
        """Sleep until a time, in microseconds since 1970; `ValueError` for one that passed more than a second ago."""
        now = self.now()
        if due < now - 1_000_000:
            raise ValueError(f"a task cannot sleep until {due}: that was {(now - due) / 1_000_000:g} seconds ago")
        await self._until(due, max(0.0, (due - now) / 1_000_000))

    async def _until(self, due: int, longest: float) -> None:
        async def run(wait: int, _: WaitState) -> Settled:
            # No longer than was asked for, even if the clock has been set back meanwhile.
            left = min(longest, (due - self._cell.now()) / 1_000_000)
            await self._cell.work.durably(asyncio.sleep(max(0.0, left)))
            return Settled(wait)

        await self.wait_for("sleep", "sleep", pack(due, "a time"), run, due=due)

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

    # The course of the handler

    def patched(self, change: str) -> bool:
        """Whether the handler may go a way that was added later: true but for what was recorded before it was.

        Put new code under ``if task.patched("name"):`` and leave the old code beside it for tasks in flight.
        """
        name, recorded = f"patched {change}", self._cell.waits.peek()
        if name in self._unpatched or (recorded and (recorded.kind, recorded.name) != ("value", name)):
            self._unpatched.add(name)
            return False
        return bool(self._value(name, lambda: True))

    def continue_as_new(self, **given: Any) -> NoReturn:
        """Begin the handler anew with another input and an empty record: for tasks that never end."""
        raise ContinueAsNew(pack_input(given, "the input to continue with"))

    def progress(self, done: int, total: int = 0, note: str = "") -> None:
        """Say how far the task has come; recorded with its next commit."""
        if not self._cell.replaying:
            self._cell.waits.note(Progressed(done, total, note))

    async def checkpoint(self, state: Any) -> None:
        """Keep state on the log, where the task's state shows it. Large state goes to the blobs."""
        if not self._cell.replaying:
            await self._cell.waits.flush(Checkpointed(pack(state, "a checkpoint")))

    # The budget

    @property
    def budget(self) -> TaskBudget:
        """What this task and all that it delegates may use."""
        return TaskBudget(self._cell, self.wait_for)

    def budget_for_call(self, estimate: Estimate) -> AbstractAsyncContextManager[Reservation]:
        """Within it, the next step is a call of a model that uses this much at most."""
        return self.budget.for_call(estimate)

    # What lies beside the log

    async def artifact(self, name: str, content: bytes | str | Path) -> Artifact:
        """Keep a document or file beside the log, encrypted, by its hash; what is returned goes into results.

        ``content``: of any size if it is the path of a file, which is read once and not looked at again on replay.
        `StepError` for one that cannot be read.
        """
        data = bytes(content, "utf-8") if isinstance(content, str) else content

        async def run(wait: int, _: WaitState) -> Settled:
            try:
                made = await self._cell.work.keep(name, data)
            except OSError as error:
                return Settled(wait, failure=failure_of(error))
            return Settled(wait, pack(made, name), attachments=[made.blob])

        given = b"a file" if isinstance(data, Path) else hashlib.sha256(data).digest()
        settled = await self.wait_for("step", f"artifact {name}", pack(given, name), run)
        if settled.failure:
            raise StepError(f"artifact {name}", settled.failure.kind, settled.failure.message)
        return msgspec.msgpack.decode(settled.value, type=Artifact)

    async def open(self, artifact: Artifact) -> bytes:
        """The content of an artifact, verified against its hash. Not recorded: an artifact never changes."""
        return await self._cell.work.open(artifact)

    def pieces(self, artifact: Artifact) -> AsyncIterator[bytes]:
        """The same piece by piece, in bounded memory, each verified before it is given out."""
        return self._cell.work.pieces(artifact)

    @property
    def memory(self) -> Memory:
        """What the agent remembers beyond this task."""
        return Memory(self, self._cell)
