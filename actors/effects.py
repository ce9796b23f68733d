"""Running effects: a step's function, in this loop or in a thread, with its retries and its timeouts."""

import asyncio
import contextlib
import contextvars
import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from ..eventstore.errors import PayloadError
from .agent import StepOptions
from .errors import PartyError
from .events import Settled
from .packing import failure_of, name_of, pack

EFFECTS = 32
"""How many effects a host runs at once."""
BACKOFF = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds before each further attempt."""


class StepExitError(PartyError):
    """A step tried to end the program, or ended as if it had been cancelled."""


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


class Effects:
    """The effects of one host, `EFFECTS` at once."""

    def __init__(self, limit: int = EFFECTS) -> None:
        self._limit = asyncio.Semaphore(limit)

    async def run(
        self, step: CurrentStep, function: Callable[..., Any], options: StepOptions, given: tuple[Any, Any]
    ) -> Settled:
        """What a step comes to, after as many attempts as its options allow."""
        while True:
            try:
                value = await self._attempt(step, function, options, given)
                return Settled(step.wait, pack(value, f"the result of {name_of(function)}"), attempts=step.attempt)
            except Exception as error:
                if step.attempt > options.retries or isinstance(error, PayloadError):
                    return Settled(step.wait, failure=failure_of(error), attempts=step.attempt)
            await asyncio.sleep(BACKOFF[min(step.attempt, len(BACKOFF)) - 1])
            step = step._replace(attempt=step.attempt + 1)

    async def _attempt(
        self, step: CurrentStep, function: Callable[..., Any], options: StepOptions, given: tuple[Any, Any]
    ) -> Any:
        async with self._limit:
            token = _current.set(step)
            try:
                async with asyncio.timeout(options.timeout):
                    if inspect.iscoroutinefunction(function):
                        return await function(*given[0], **given[1])
                    value = await in_thread(functools.partial(function, *given[0], **given[1]))
                    return await value if inspect.isawaitable(value) else value
            except SystemExit as error:
                raise StepExitError(f"it called for the program to end ({error})") from error
            except asyncio.CancelledError as error:
                if cancelled():
                    raise
                raise StepExitError("it was cancelled from within") from error
            finally:
                _current.reset(token)


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
