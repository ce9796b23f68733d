"""An end in good order: SIGTERM lets the effects in flight end and passivates the rest, where that is possible."""

import asyncio
import atexit
import concurrent.futures.thread  # noqa: F401 - its own end is registered when it is imported: ours comes first
import contextlib
import os
import signal
import threading
from collections.abc import Callable

from ..actors.host import Host

LIMIT = 20.0
"""Seconds that effects in flight have to end; those who stop programs wait for half a minute, as a rule."""


def drains_on_sigterm(host: Host) -> Callable[[], None]:
    """Have SIGTERM drain the host and then end this program as ever. Call what is returned when the host is closed.

    A program that has its own way with SIGTERM keeps it: it may call `Host.drain` itself.
    """
    loop, ending = asyncio.get_running_loop(), set[asyncio.Task[None]]()
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if not ours:
        return lambda: None

    async def end() -> None:
        try:
            await host.drain(LIMIT)
        finally:
            loop.remove_signal_handler(signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)

    def told() -> None:
        if not ending:
            ending.add(loop.create_task(end()))

    try:
        loop.add_signal_handler(signal.SIGTERM, told)
    except (NotImplementedError, ValueError, RuntimeError):  # a loop that has no signals
        return lambda: None

    def undo() -> None:
        with contextlib.suppress(RuntimeError, ValueError):
            loop.remove_signal_handler(signal.SIGTERM)

    return undo


async def until_told() -> None:
    """Return when this program is told to end, by SIGTERM or an interrupt."""
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    try:
        await told.wait()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def before_threads_end(call: Callable[[], None]) -> None:
    """Have something called when this program ends in good order, while its threads and executors still work.

    What `atexit` is given comes too late for that: by then executors take nothing more, and whatever a task begins
    would fail for it.
    """
    register: Callable[[Callable[[], None]], object] = getattr(threading, "_register_atexit", atexit.register)
    register(call)
