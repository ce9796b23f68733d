"""How a step is run: the options that stand on its function."""

import inspect
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, ParamSpec, TypeVar

from .errors import ConfigurationError

P = ParamSpec("P")
T = TypeVar("T")
OnCrash = Literal["retry", "ask", "compensate"]
Where = Literal["thread", "process", "ray"]


class StepOptions(NamedTuple):
    """See `step`."""

    retries: int = 0
    timeout: float | None = None
    on_crash: OnCrash = "retry"
    backoff: float = 0.1
    factor: float = 2.0
    longest: float = 60.0
    jitter: float = 0.1
    only: tuple[type[BaseException], ...] = (Exception,)
    heartbeat: float | None = None
    undo: Callable[..., Any] | None = None
    where: Where = "thread"

    def again(self, error: BaseException) -> bool:
        """Whether an error is one that trying again may mend."""
        return isinstance(error, self.only)

    def pause(self, attempt: int, chance: float) -> float:
        """Seconds before the attempt after this one; ``chance``, from 0 to 1, picks among the jitter's lengths."""
        from tenacity import RetryCallState, wait_exponential

        state = RetryCallState(retry_object=None, fn=None, args=(), kwargs={})  # type: ignore[arg-type]
        state.attempt_number = attempt
        wait = wait_exponential(multiplier=self.backoff, max=self.longest, exp_base=self.factor)(state)
        return min(self.longest, float(wait) * (1 + self.jitter * chance))


def step(
    *,
    retries: int = 0,
    timeout: float | None = None,
    on_crash: OnCrash = "retry",
    backoff: float = 0.1,
    factor: float = 2.0,
    longest: float = 60.0,
    jitter: float = 0.1,
    only: type[BaseException] | tuple[type[BaseException], ...] = Exception,
    heartbeat: float | None = None,
    undo: Callable[..., Any] | None = None,
    where: Where = "thread",
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Say how a function is run as a step. The function stays what it was and can be called as ever.

    ``retries`` after the first attempt, for errors of the classes ``only``, after ``backoff`` seconds, then ``factor``
    times as many each time, up to ``longest``, and up to ``jitter`` of it more by chance. ``timeout``: seconds of one
    attempt. ``heartbeat``: an attempt ends that says nothing by `CurrentStep.heartbeat` for so many seconds.
    ``on_crash``: what becomes of a step of which a crash left open whether it was done: it is tried again with the same
    idempotency key; a person is asked; or ``undo`` is called with its arguments and the step fails. A crash is one of
    the process in which the step runs, be it the task's or its own; of the latter it survives three, whatever its
    retries. ``undo`` is also what a saga calls. ``where``: a function that is not async runs in a thread, in a process
    of its own, or, on Ray, on whichever node has room.
    """
    if retries < 0 or any(seconds is not None and seconds <= 0 for seconds in (timeout, heartbeat)):
        raise ConfigurationError("a step's retries must be 0 or more, its timeout and heartbeat more than 0 seconds")
    if backoff < 0 or factor < 1 or longest < 0 or jitter < 0:
        raise ConfigurationError("a step's backoff, longest and jitter must be 0 or more, and its factor 1 or more")
    if on_crash == "compensate" and undo is None:
        raise ConfigurationError("a step with on_crash='compensate' needs undo=, the function that takes it back")
    classes = only if isinstance(only, tuple) else (only,)
    options = StepOptions(retries, timeout, on_crash, backoff, factor, longest, jitter, classes, heartbeat, undo, where)

    def mark(function: Callable[P, T]) -> Callable[P, T]:
        if where != "thread" and inspect.iscoroutinefunction(function):
            raise ConfigurationError(f"{function.__qualname__} is async: it runs where the task is, not in a {where}")
        function.__step__ = options  # type: ignore[attr-defined]
        return function

    return mark


def step_options(function: Callable[..., Any]) -> StepOptions:
    """The options that stand on a function, or the defaults."""
    options = getattr(function, "__step__", None)
    return options if isinstance(options, StepOptions) else StepOptions()
