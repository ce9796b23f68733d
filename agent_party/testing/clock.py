"""Virtual time: an event loop whose clock jumps to the next timer when there is nothing else to do.

Nothing here waits for anything real. Time passes only when nothing is ready, and then at once and never beyond the
next timer, so that timers fire in their order, each at its time, and never early. What blocks runs while the loop
stands still. So a run depends on nothing but its inputs and its seed.

A *life* is what runs as one process. When it dies, nothing of it runs any more: what was ready of it stays where it
is, and its timers never fire.
"""

import asyncio
import contextvars
import heapq
import itertools
import math
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, Protocol

from ..eventstore.ambient import Ambient
from .errors import HangError, RealInputOutputError
from .ordering import VirtualFuture, VirtualTask

START = 1_767_225_600_000_000
"""When virtual time begins: 2026-01-01T00:00:00Z, in microseconds since 1970."""
REAL_LIMIT = 60.0
VIRTUAL_LIMIT = 366 * 86_400.0
HOUSEKEEPING = frozenset({"Supervisor._keep_reconciling", "Supervisor._keep_sweeping", "Log._tail"})
"""Background tasks that look again and again for something new. Where nothing is new, they look ever more seldom."""
_LONGEST_QUIET, _QUIET_LIMIT = 86_400.0, 3 * 86_400.0
_MICRO = 1_000_000


class Life(Protocol):
    """Something that can die. What belongs to it does not run while it is ``frozen``."""

    frozen: bool


current_life: contextvars.ContextVar[Life | None] = contextvars.ContextVar("current_life", default=None)


def life_of(context: contextvars.Context) -> Life | None:
    """The life that a callback or task belongs to."""
    return context.get(current_life)


class VirtualLoop(asyncio.SelectorEventLoop):
    """``real_limit`` and ``virtual_limit``, in seconds: beyond either, `HangError` says what everybody waits for."""

    def __init__(self, seed: int = 0, *, real_limit: float = REAL_LIMIT, virtual_limit: float = VIRTUAL_LIMIT) -> None:
        self._open = False
        self._micro, self._virtual = 0, 0.0
        super().__init__()
        self.seed, self.jumps = seed, 0
        self.random = random.Random(seed)
        self.real_limit, self.virtual_limit = real_limit, virtual_limit
        self._until = time.monotonic() + real_limit
        self._quiet_since = self._looked = 0.0
        self._housekeeping: set[asyncio.TimerHandle] = set()
        self._still: list[asyncio.Handle] = []
        self._tidy_at, self.serials = 200, itertools.count()
        self.hung: HangError | None = None
        self.reporters: list[Callable[[], list[str]]] = []
        self.tasks: dict[asyncio.Task[Any], Life | None] = {}
        self._open = True

    # The clock

    def time(self) -> float:
        """Virtual seconds since the loop began."""
        return self._virtual

    @property
    def micro(self) -> int:
        """The same in microseconds."""
        return self._micro

    def reseed(self, seed: int) -> None:
        """Draw from another seed from now on."""
        self.seed, self.random = seed, random.Random(seed)

    def news(self) -> None:
        """Something has happened that background tasks look for: they look as often as ever again."""
        self._quiet_since = self._looked = self._virtual

    def _jump(self) -> None:
        """Let time pass until the next timer."""
        due = self._next()
        if due is None:
            raise self._hang("nothing can happen any more: no timer is set, and nothing is ready")
        if due > self.virtual_limit:
            raise self._hang(f"{self.virtual_limit:g} virtual seconds have passed")
        if due > self._virtual:
            self.jumps += 1
            # In whole microseconds, as the log has them; rounded up, so that nothing fires early.
            self._micro = max(self._micro + 1, math.ceil(due * _MICRO - 0.001))
            self._virtual = max(due, self._micro / _MICRO)

    def _next(self) -> float | None:
        """When time is to stop next. Housekeeping alone makes it stop only now and then while nothing is new."""
        timers: list[asyncio.TimerHandle] = self._scheduled
        while timers and (timers[0]._cancelled or self._is_dead(timers[0])):
            self._take_timer()
        if not timers or timers[0] not in self._housekeeping:
            return timers[0].when() if timers else None
        first = timers[0].when()
        others = (t.when() for t in timers if t not in self._housekeeping and not t._cancelled and not self._is_dead(t))
        pause = min(_LONGEST_QUIET, self._looked - self._quiet_since)
        look = max(first, self._looked + pause)
        other = min(others, default=math.inf)
        if other == math.inf and self._looked > self._quiet_since + _QUIET_LIMIT:
            raise self._hang("nothing happens any more: everybody waits for something that nobody does")
        if look < other:
            self._looked = look
        return min(look, other)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """As ever; timers of housekeeping are known as such."""
        timer = super().call_at(when, callback, *args, context=context)
        running = asyncio.current_task(self)
        if running and getattr(running.get_coro(), "__qualname__", "") in HOUSEKEEPING:
            self._housekeeping.add(timer)
        return timer

    # Running

    _scheduled: list[asyncio.TimerHandle]
    _timer_cancelled_count: int

    def _take_timer(self) -> asyncio.TimerHandle:
        timer = heapq.heappop(self._scheduled)
        timer._scheduled = False  # type: ignore[attr-defined]
        self._housekeeping.discard(timer)
        if timer._cancelled:
            self._timer_cancelled_count = max(0, self._timer_cancelled_count - 1)
        elif self._is_dead(timer):
            self._still.append(timer)
        return timer

    def _run_once(self) -> None:
        """One round: what is ready, in the order in which it became so."""
        if self.hung:
            raise self.hung
        if time.monotonic() > self._until:
            raise self._hang(f"{self.real_limit:g} real seconds have passed")
        ready = self._ready  # type: ignore[attr-defined]
        self._process_events(self._selector.select(0))  # type: ignore[attr-defined]
        if not ready and not self._stopping:  # type: ignore[attr-defined]
            self._jump()
        while self._scheduled and self._scheduled[0].when() <= self._virtual:
            timer = self._take_timer()
            if not timer._cancelled and not self._is_dead(timer):
                ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if self._is_dead(handle):
                self._still.append(handle)
            elif not handle._cancelled:
                handle._run()

    def _is_dead(self, handle: Any) -> bool:
        life = life_of(handle._context)
        return life is not None and life.frozen

    def create_task(self, coro: Any, *, name: Any = None, context: contextvars.Context | None = None) -> Any:
        """As ever; every task is known, with the life it belongs to."""
        task: asyncio.Task[Any] = VirtualTask(coro, loop=self, name=name, context=context)
        self.tasks[task] = life_of(context or contextvars.copy_context())
        if len(self.tasks) > self._tidy_at:
            self.tasks = {known: life for known, life in self.tasks.items() if not known.done()}
            self._tidy_at = 2 * len(self.tasks) + 200
        return task

    def create_future(self) -> Any:
        """As ever, but for its place in sets."""
        return VirtualFuture(loop=self)

    def bury(self, life: Life) -> list[asyncio.Task[Any]]:
        """Let what is left of a dead life unwind: nothing it does counts any more. Its tasks, cancelled."""
        assert life.frozen
        mine = [handle for handle in self._still if life_of(handle._context) is life]  # type: ignore[attr-defined]
        self._still = [handle for handle in self._still if handle not in mine]
        left = [task for task, whose in self.tasks.items() if whose is life and not task.done()]
        life.frozen = False
        for handle in mine:
            self._ready.append(handle)  # type: ignore[attr-defined]
        for task in left:
            task.cancel()
        return left

    # What blocks, and what is real

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> "asyncio.Future[Any]":
        """Run it while everything else stands still."""
        done: asyncio.Future[Any] = self.create_future()
        value, error = None, None

        def work() -> None:
            nonlocal value, error
            try:
                value = func(*args)
            except BaseException as raised:  # whatever it is, it is the caller's
                error = raised

        self.stand_still(threading.Thread(target=work, name="blocking", daemon=True))
        if isinstance(error, StopIteration):
            error = RuntimeError("a blocking call raised StopIteration")
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(value)
        return done

    def stand_still(self, thread: threading.Thread) -> None:
        """Start a thread and wait for it. Time does not pass meanwhile."""
        threading.Thread.start(thread)
        thread.join(max(0.0, self._until - time.monotonic()))
        if thread.is_alive():
            self.hung = self._hang(f"{self.real_limit:g} real seconds have passed in a call that blocks", thread)
            raise self.hung

    def _add_reader(self, fd: Any, callback: Callable[..., Any], *args: Any) -> Any:
        if self._open:
            raise RealInputOutputError("there is no real input or output under virtual time: give the step a stand-in")
        return super()._add_reader(fd, callback, *args)  # type: ignore[misc]

    def _add_writer(self, fd: Any, callback: Callable[..., Any], *args: Any) -> Any:
        raise RealInputOutputError("there is no real input or output under virtual time: give the step a stand-in")

    async def subprocess_exec(self, *args: Any, **options: Any) -> Any:
        """Refused."""
        raise RealInputOutputError("no program is started under virtual time: give the step a stand-in")

    async def subprocess_shell(self, *args: Any, **options: Any) -> Any:
        """Refused."""
        raise RealInputOutputError("no program is started under virtual time: give the step a stand-in")

    async def getaddrinfo(self, *args: Any, **options: Any) -> Any:
        """Refused."""
        raise RealInputOutputError("no name is looked up under virtual time: give the step a stand-in")

    # Hanging

    def extend(self, seconds: float) -> None:
        """Give what follows this much real time, and any virtual time."""
        self._until = time.monotonic() + seconds
        self.virtual_limit, self.hung = math.inf, None

    def _hang(self, why: str, thread: threading.Thread | None = None) -> HangError:
        lines = [f"{why}, {self._virtual:g} virtual seconds after the start (seed {self.seed}). Waiting are:"]
        lines += [_waiting(task) for task, life in self.tasks.items() if not task.done() and not (life and life.frozen)]
        lines += [f"  {line}" for report in self.reporters for line in report()]
        if thread:
            lines += _stack_of(thread)
        return HangError("\n".join(lines))


def _waiting(task: asyncio.Task[Any]) -> str:
    """One line: where a task stands, from its own function down to what it awaits."""
    places: list[str] = []
    awaited: Any = task.get_coro()
    while awaited is not None and len(places) < 40:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "ag_frame", None)
        if frame is None:
            break
        places.append(f"{awaited.__qualname__}:{frame.f_lineno}")
        awaited = getattr(awaited, "cr_await", None)
    return f"  {task.get_name()}: {' → '.join(places)}"


def _stack_of(thread: threading.Thread) -> list[str]:
    frame = sys._current_frames().get(thread.ident or 0)
    return [line.rstrip() for line in traceback.format_stack(frame)[-8:]] if frame else []


class VirtualAmbient(Ambient):
    """The time of a virtual loop, and randomness from its seed. Not for real keys."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def now(self) -> int:
        return START + self._loop.micro

    def random(self, size: int) -> bytes:
        return self._loop.random.randbytes(size)
