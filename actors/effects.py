"""Running effects: a step's function, with its retries, its timeouts and its heartbeats."""

import asyncio
import concurrent.futures
import contextlib
import contextvars
import functools
import inspect
import multiprocessing
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from ..eventstore.errors import PayloadError
from .errors import PartyError, StepCancelledError, StepCrashedError
from .events import Attempted, Settled
from .packing import failure_of, name_of, pack, unpack
from .steps import StepOptions
from .turns import Turns

EFFECTS = 32
"""How many effects a host runs at once."""
PROCESSES = 2
BEAT = 1.0
"""Seconds between two heartbeats of an effect that are recorded; those in between only count as signs of life."""
_MICRO = 1_000_000
Elsewhere = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs a call on another machine."""


class StepExitError(PartyError):
    """A step tried to end the program, or ended as if it had been cancelled."""


class CurrentStep:
    """What a step may know of itself. ``idempotency_key`` is the same however often the step is tried; ``attempt``
    counts from 1, also over crashes."""

    def __init__(
        self,
        task: str,
        wait: int,
        attempt: int,
        idempotency_key: str,
        detail: bytes = b"",
        publish: Callable[[str, int], None] = lambda piece, attempt: None,
    ) -> None:
        self.task, self.wait, self.attempt, self.idempotency_key = task, wait, attempt, idempotency_key
        self._publish = publish
        self._detail = detail
        self._loop = asyncio.get_running_loop()
        self._beat: Callable[[bytes], None] = lambda detail: None
        self._cancelled = False

    def again(self, attempt: int) -> "CurrentStep":
        """The same step, for another attempt."""
        return CurrentStep(self.task, self.wait, attempt, self.idempotency_key, self._detail, self._publish)

    def publish(self, piece: str) -> None:
        """Show a piece of text to those who watch the task; nothing is recorded."""
        if asyncio._get_running_loop() is self._loop:
            self._publish(piece, self.attempt)
        else:
            self._loop.call_soon_threadsafe(self._publish, piece, self.attempt)

    def detail(self, kind: Any = Any) -> Any:
        """What the last heartbeat of an earlier attempt said; None if there was none."""
        return unpack(self._detail, kind) if self._detail else None

    def heartbeat(self, detail: Any = None) -> None:
        """Say that the step is alive, and how far it has come: the next attempt goes on from there.

        Raises `StepCancelledError` once nobody waits for the step any more: the way for a thread to end.
        """
        if self._cancelled:
            raise StepCancelledError(f"step {self.wait} of task {self.task} was cancelled")
        packed = pack(detail, "a heartbeat")
        self._detail = packed
        self._loop.call_soon_threadsafe(self._beat, packed)


_current: contextvars.ContextVar[CurrentStep] = contextvars.ContextVar("current_step")


def current_step() -> CurrentStep:
    """The step that is running; `LookupError` outside of one, also in a process of a step's own."""
    return _current.get()


class Trial:
    """What an effect needs of the task that it is run for. ``note`` records how an attempt went; ``now``: in
    microseconds since 1970; ``chance`` gives random numbers from 0 to 1; ``last``: attempts that failed before this
    run, and when the next one is due."""

    def __init__(
        self,
        note: Callable[[Attempted], None],
        now: Callable[[], int],
        chance: Callable[[], float],
        last: tuple[int, int] = (0, 0),
    ) -> None:
        self.note, self.now, self.chance, self.last = note, now, chance, last


class Effects:
    """The effects of one host, `EFFECTS` at once. ``elsewhere``: how a step marked ``where="ray"`` is run."""

    def __init__(self, limit: int = EFFECTS) -> None:
        self._limit = Turns(limit)
        self._processes: concurrent.futures.ProcessPoolExecutor | None = None
        self.elsewhere: Elsewhere | None = None

    async def run(
        self,
        step: CurrentStep,
        function: Callable[..., Any],
        options: StepOptions,
        given: tuple[Any, Any],
        trial: Trial | None = None,
    ) -> Settled:
        """What a step comes to, after as many attempts as its options allow. `StepCrashedError` is for the caller."""
        if trial and trial.last[0]:
            step = step.again(trial.last[0] + 1)
            await asyncio.sleep(max(0.0, (trial.last[1] - trial.now()) / _MICRO))
        while True:
            try:
                value = await self._attempt(step, function, options, given, trial)
                return Settled(step.wait, pack(value, f"the result of {name_of(function)}"), attempts=step.attempt)
            except StepCrashedError as crash:
                crash.attempt = step.attempt
                raise
            except Exception as error:
                failure, asked = failure_of(error), float(getattr(error, "retry_after", 0.0) or 0.0)
                if step.attempt > options.retries or isinstance(error, PayloadError) or not options.again(error):
                    return Settled(step.wait, failure=failure, attempts=step.attempt)
            pause = max(asked, options.pause(step.attempt, trial.chance() if trial else 0.0))
            if trial:
                due = trial.now() + int(pause * _MICRO)
                trial.note(Attempted(step.wait, step.attempt, failure, next=due))
            await asyncio.sleep(pause)
            step = step.again(step.attempt + 1)

    async def _attempt(
        self,
        step: CurrentStep,
        function: Callable[..., Any],
        options: StepOptions,
        given: tuple[Any, Any],
        trial: Trial | None,
    ) -> Any:
        async with self._limit.turn(step.task):
            token = _current.set(step)
            pulse = _Pulse(step, options.heartbeat, trial)
            try:
                async with asyncio.timeout(options.timeout), pulse:
                    return await self._call(function, options, given)
            except TimeoutError:
                if pulse.stopped:
                    raise TimeoutError(f"no sign of life for {options.heartbeat:g} seconds") from None
                raise
            except SystemExit as error:
                raise StepExitError(f"it called for the program to end ({error})") from error
            except asyncio.CancelledError as error:
                if cancelled():
                    raise
                raise StepExitError("it was cancelled from within") from error
            finally:
                step._cancelled = True
                _current.reset(token)

    async def _call(self, function: Callable[..., Any], options: StepOptions, given: tuple[Any, Any]) -> Any:
        if inspect.iscoroutinefunction(function):
            return await function(*given[0], **given[1])
        call = functools.partial(function, *given[0], **given[1])
        if options.where == "ray" and self.elsewhere:
            return await self.elsewhere(call)
        if options.where != "thread":
            return await self._in_process(call)
        value = await in_thread(call)
        return await value if inspect.isawaitable(value) else value

    async def _in_process(self, call: Callable[[], Any]) -> Any:
        if self._processes is None:
            context = multiprocessing.get_context("spawn")
            self._processes = concurrent.futures.ProcessPoolExecutor(PROCESSES, mp_context=context)
        processes = self._processes
        try:
            return await asyncio.get_running_loop().run_in_executor(processes, call)
        except concurrent.futures.process.BrokenProcessPool as error:
            if self._processes is processes:  # else somebody has begun new ones already
                self._processes = None
            raise StepCrashedError(f"a process for steps ended: {error}") from error

    def close(self) -> None:
        """Let go of the processes that were started for steps."""
        if self._processes:
            self._processes.shutdown(wait=False, cancel_futures=True)
            self._processes = None


class _Pulse:
    """Listens to the heartbeats of one attempt; ends it where they stop for too long."""

    def __init__(self, step: CurrentStep, patience: float | None, trial: Trial | None) -> None:
        self._step, self._patience, self._trial = step, patience, trial
        self._alarm: asyncio.TimerHandle | None = None
        self._recorded = float("-inf")
        self.stopped = False

    async def __aenter__(self) -> None:
        self._running = asyncio.current_task()
        self._step._beat = self._beat
        self._wind()

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._step._beat = lambda detail: None
        if self._alarm:
            self._alarm.cancel()
        if self.stopped and kind is asyncio.CancelledError and self._running and not self._running.uncancel():
            raise TimeoutError

    def _wind(self) -> None:
        if self._alarm:
            self._alarm.cancel()
        if self._patience:
            self._alarm = asyncio.get_running_loop().call_later(self._patience, self._stop)

    def _stop(self) -> None:
        self.stopped = True
        if self._running:
            self._running.cancel()

    def _beat(self, detail: bytes) -> None:
        self._wind()
        now = asyncio.get_running_loop().time()
        if self._trial and now >= self._recorded + BEAT:
            self._recorded = now
            self._trial.note(Attempted(self._step.wait, self._step.attempt - 1, detail=detail))


def cancelled() -> bool:
    """Whether somebody has asked for the running asyncio task to be cancelled."""
    running = asyncio.current_task()
    return running is not None and running.cancelling() > 0


async def in_thread(call: Callable[[], Any]) -> Any:
    """Run a blocking call in a thread of its own, which does not keep the program from ending if it never returns."""
    loop, context = asyncio.get_running_loop(), contextvars.copy_context()
    done: asyncio.Future[Any] = loop.create_future()

    def settle(value: Any, error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(value)
        elif isinstance(error, StopIteration | KeyboardInterrupt | asyncio.CancelledError):
            done.set_exception(StepExitError(f"it raised {type(error).__name__}"))
        else:
            done.set_exception(error)

    def work() -> None:
        value, error = None, None
        try:
            value = context.run(call)
        except BaseException as raised:  # whatever it is, it belongs to the step, not to this thread
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, value, error)

    threading.Thread(target=work, name="effect", daemon=True).start()
    return await done
