"""Running a test in virtual time."""

import asyncio
import contextlib
import functools
import os
import secrets
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, ParamSpec, TypeVar
from unittest import mock

from ..actors import effects, watch
from .clock import REAL_LIMIT, VIRTUAL_LIMIT, VirtualLoop
from .errors import HangError, NotVirtualError

P = ParamSpec("P")
T = TypeVar("T")
SEED = "PARTY_TEST_SEED"
"""The environment variable that gives the seed where a test does not."""
_CLEANUP = 10.0
_SELDOM = 86_400.0


def run(
    main: Callable[[], Awaitable[T]],
    *,
    seed: int | None = None,
    real_limit: float = REAL_LIMIT,
    virtual_limit: float = VIRTUAL_LIMIT,
) -> T:
    """Run an async function in virtual time, from a seed. Limits in seconds; beyond them, `HangError`.

    Without a seed, ``PARTY_TEST_SEED`` gives it, else chance. An error that comes out carries the seed as a note.
    """
    seed = _seed() if seed is None else seed
    loop = VirtualLoop(seed, real_limit=real_limit, virtual_limit=virtual_limit)
    try:
        with _standing_in(), _alarm(loop, real_limit):
            try:
                return loop.run_until_complete(_awaited(main))
            finally:
                _clean_up(loop)
    except BaseException as error:
        error.add_note(f"the seed of this run in virtual time was {seed}: {SEED}={seed} repeats it")
        raise
    finally:
        loop.close()


async def _awaited(main: Callable[[], Awaitable[T]]) -> T:
    return await main()


def virtual(
    *, seed: int | None = None, real_limit: float = REAL_LIMIT, virtual_limit: float = VIRTUAL_LIMIT
) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, T]]:
    """Make an async test one that pytest can call, with or without pytest-asyncio: its time is virtual. See `run`."""

    def decorate(test: Callable[P, Awaitable[T]]) -> Callable[P, T]:
        @functools.wraps(test)
        def called(*args: P.args, **kwargs: P.kwargs) -> T:
            return run(lambda: test(*args, **kwargs), seed=seed, real_limit=real_limit, virtual_limit=virtual_limit)

        return called

    return decorate


def virtual_loop() -> VirtualLoop:
    """The running loop, if it is one of virtual time; else `NotVirtualError`."""
    with contextlib.suppress(RuntimeError):
        if isinstance(loop := asyncio.get_running_loop(), VirtualLoop):
            return loop
    raise NotVirtualError("a party of the test kit lives in virtual time: run it by testing.run or @testing.virtual()")


def _seed() -> int:
    given = os.environ.get(SEED)
    return int(given) if given else secrets.randbelow(1 << 32)


def _clean_up(loop: VirtualLoop) -> None:
    """End what is still running; whatever hangs even now is left behind."""
    with contextlib.suppress(HangError):
        loop.extend(_CLEANUP)
        for life in {id(life): life for life in loop.tasks.values() if life and life.frozen}.values():
            loop.bury(life)
        left = [task for task in loop.tasks if not task.done()]
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())


class _Thread(threading.Thread):
    """A thread that the virtual loop waits for."""

    def start(self) -> None:
        virtual_loop().stand_still(self)


class _Threading:
    """What `actors.effects` sees of `threading`."""

    Thread = _Thread


@contextlib.contextmanager
def _standing_in() -> Iterator[None]:
    """Effects' threads are waited for; who only looks whether the log is still being read looks seldom."""
    with mock.patch.object(effects, "threading", _Threading), mock.patch.object(watch, "_LOOK", _SELDOM):
        yield


@contextlib.contextmanager
def _alarm(loop: VirtualLoop, seconds: float) -> Iterator[None]:
    """Break code that never comes back to the loop, where nobody else uses the alarm."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGALRM) is not signal.SIG_DFL:
        yield
        return

    def ring(*_: Any) -> None:
        loop.hung = HangError(f"{seconds:g} real seconds have passed in code that does not come back")
        raise loop.hung

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds + 2)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
