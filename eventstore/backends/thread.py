"""A thread for a store whose driver blocks: it does one thing after the other, and the event loop goes on meanwhile.

`ThreadPoolExecutor(1)` does the same, with a second future, a lock and a condition for each call; where a commit is a
fifth of a millisecond of fsync, that was an eighth of the time of an append.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

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
