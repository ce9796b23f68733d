"""Calls to Ray, and leaving it.

Ray ends the whole program, without a word, where one of its objects is used or let go of at the moment in which it is
left. So what we ask of it goes through here, and it is left when nothing of that is under way.
"""

import asyncio
import contextlib
import functools
import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import ray

from ..actors.errors import RuntimeUnavailableError

T = TypeVar("T")
PATIENCE = 30.0
"""Seconds that calls which are under way have to end before Ray is left all the same."""


class _State:
    """``running``: calls that are under way, of all threads; ``awaited``: answers that somebody waits for;
    ``leaving``: Ray is being left; ``left``: it was, at some time."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.running, self.leaving, self.left = 0, False, False
        self.awaited: set[asyncio.Future[Any]] = set()


STATE = _State()
"""Of this process: it has one connection to Ray."""


@contextlib.contextmanager
def counted() -> Iterator[None]:
    """Something is asked of Ray, now and on this thread. `RuntimeUnavailableError` once Ray is being left: asked after
    that, Ray would start anew by itself."""
    state = STATE
    with state.changed:
        go_on()
        state.running += 1
    try:
        yield
    finally:
        with state.changed:
            state.running -= 1
            state.changed.notify_all()


def go_on() -> None:
    """For what takes long: `RuntimeUnavailableError` if Ray is being left."""
    if STATE.leaving or (STATE.left and not ray.is_initialized()):
        raise _left()


def _left() -> RuntimeUnavailableError:
    return RuntimeUnavailableError("this program has left Ray: open a party anew")


async def in_thread(call: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """Ask something of Ray that blocks, on another thread."""
    held: list[Callable[[], T]] = [functools.partial(call, *arguments, **options)]
    del arguments, options  # or an error that somebody keeps would keep them
    return await asyncio.to_thread(_call, held)


def _call(held: list[Callable[[], T]]) -> T:
    with counted():
        call = held.pop()
        try:
            return call()
        finally:
            del call  # what it was given is let go of here, and not when the thread comes to it


async def ask(method: Any, *arguments: Any) -> Any:
    """Call an actor's method: what it comes to. `RuntimeUnavailableError` also where Ray is left meanwhile."""
    with counted():
        reference = method.remote(*arguments)
    return await answer(reference)


async def answer(reference: Any) -> Any:
    """What a call comes to that was begun before."""
    future = asyncio.wrap_future(reference.future())
    STATE.awaited.add(future)
    try:
        return await future
    finally:
        STATE.awaited.discard(future)
        del reference


async def ask_all(methods: Sequence[Any], within: float) -> list[Any]:
    """Call several actors' methods at once; the first error, or `TimeoutError` after so many seconds."""
    asked = [asyncio.ensure_future(ask(method)) for method in methods]
    try:
        return await asyncio.wait_for(asyncio.gather(*asked), within)
    finally:
        for one in asked:
            one.cancel()


async def end(actors: Sequence[Any], within: float) -> None:
    """Have actors stop within so many seconds, and end them. One that is gone already is no error."""
    with contextlib.suppress(ray.exceptions.RayError, TimeoutError):
        await ask_all([actor.stop for actor in actors], within)
    for actor in actors:
        with contextlib.suppress(ray.exceptions.RayError, ValueError):
            await in_thread(ray.kill, actor)


async def leave() -> None:
    """Leave Ray, once nothing of ours is under way there. Who still waits for an answer is told that none comes."""
    for future in tuple(STATE.awaited):
        future.get_loop().call_soon_threadsafe(_give_up, future)
    until = asyncio.get_running_loop().time() + PATIENCE
    while STATE.awaited and asyncio.get_running_loop().time() < until:  # noqa: ASYNC110 - it is many that are waited for
        await asyncio.sleep(0.001)
    await asyncio.to_thread(_leave)


def _give_up(future: "asyncio.Future[Any]") -> None:
    if not future.done():
        future.set_exception(_left())


def _leave() -> None:
    with STATE.changed:
        STATE.leaving = True
        STATE.changed.wait_for(lambda: not STATE.running, PATIENCE)
    try:
        gc.collect()  # what is garbage by now is let go of now
        ray.shutdown()
    finally:
        STATE.left, STATE.leaving = True, False
