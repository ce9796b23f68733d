"""The thread of a store whose driver blocks: order, errors, callers who go, loops that close."""

import asyncio
import threading
import time

import pytest

from agent_party.eventstore.backends.thread import Thread


async def test_it_does_one_thing_after_the_other() -> None:
    thread, order = Thread("worker"), list[int]()
    waiting = [thread.run(lambda n=n: order.append(n)) for n in range(20)]  # type: ignore[misc]
    await asyncio.gather(*waiting)
    assert order == list(range(20))
    assert await thread.run(lambda: threading.current_thread().name) == "worker"
    thread.close()


async def test_an_error_is_the_callers() -> None:
    thread = Thread("worker")
    with pytest.raises(ZeroDivisionError):
        await thread.run(lambda: 1 // 0)
    assert await thread.run(lambda: 1) == 1
    thread.close()


async def test_what_was_begun_is_done_though_its_caller_has_gone() -> None:
    thread, may, done = Thread("worker"), threading.Event(), list[int]()
    waiting = thread.run(lambda: done.append(1) if may.wait(60) else None)
    waiting.cancel()
    may.set()
    assert await thread.run(lambda: len(done)) == 1
    thread.close()


def test_a_loop_that_closes_first_harms_nobody() -> None:
    thread, may, done = Thread("worker"), threading.Event(), threading.Event()

    async def leave() -> None:
        thread.run(lambda: may.wait(60))
        thread.run(done.set)

    asyncio.run(leave())
    may.set()
    assert done.wait(60)
    assert asyncio.run(_ask(thread)) == 2
    thread.close()


async def _ask(thread: Thread) -> int:
    return await thread.run(lambda: 2)


async def test_it_ends_when_it_is_closed() -> None:
    thread = Thread("worker to be closed")
    await thread.run(time.monotonic)
    thread.close()
    thread._thread.join(60)
    assert not thread._thread.is_alive()
