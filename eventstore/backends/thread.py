"""A thread for a store whose driver blocks: it does one thing after the other, and the event loop goes on meanwhile.

`ThreadPoolExecutor(1)` does the same, with a second future, a lock and a condition for each call; where a commit is a
fifth of a millisecond of fsync, that was an eighth of the time of an append.
"""

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

SLOW, RETURN = 0.005, 200
T = TypeVar("T")
_Call = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[[], Any]]


class Thread:
    """Starts with the first call; a daemon, so that a log which nobody closed does not keep a program from ending."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def run(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        """Have it called on the thread. A caller who is cancelled does not keep it from being done."""
        if not self._thread.ident:
            self._thread.start()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._calls.put((loop, done, work))
        return done

    def close(self) -> None:
        """End the thread after what it was given."""
        self._calls.put(None)

    def _work(self) -> None:
        while call := self._calls.get():
            _do(*call)
            del call  # what was asked and answered is not this thread's to keep


class Pace:
    """Says whether something that blocks shortly, such as a small commit, is done on the event loop or by a thread.

    Handing it to a thread and back takes a tenth of a millisecond or two, as long as the commit where the disk is
    quick; and a thread waits for the interpreter's lock while the loop is busy. So the loop does it, until two in a
    row took longer than `SLOW`; then the thread does the next `RETURN` of them.
    """

    def __init__(self) -> None:
        self._slow = self._left = 0

    def quick(self) -> bool:
        """Whether the next one is for the loop."""
        if self._left:
            self._left -= 1
            return False
        return True

    def timed(self, work: Callable[[], T]) -> T:
        """Do it here and now, and remember how long it took."""
        started = time.perf_counter()
        try:
            return work()
        finally:
            self._slow = self._slow + 1 if time.perf_counter() - started > SLOW else 0
            if self._slow > 1:
                self._slow, self._left = 0, RETURN


def _do(loop: asyncio.AbstractEventLoop, done: "asyncio.Future[Any]", work: Callable[[], Any]) -> None:
    answer: Any = None
    error: BaseException | None = None
    try:
        answer = work()
    except BaseException as raised:  # whatever it is, it is the caller's
        error = raised
    with contextlib.suppress(RuntimeError):  # a loop that was closed meanwhile has nobody left to be told
        loop.call_soon_threadsafe(_tell, done, answer, error)


def _tell(done: "asyncio.Future[Any]", answer: Any, error: BaseException | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(answer)
    else:
        done.set_exception(error)
