"""Leaving Ray while calls to it are under way: it would end the whole program, without a word."""

import asyncio
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from agent_party.actors.errors import RuntimeUnavailableError
from agent_party.cluster import ray_calls
from tests.cluster.conftest import Head
from tests.unit.world import until


class Handle:
    """Stands in for something of Ray's."""


class Left:
    """Stands in for ``ray.shutdown``: what was true when it was called."""

    def __init__(self) -> None:
        self.left = threading.Event()
        self.handle: weakref.ref[Handle] = lambda: None  # type: ignore[assignment]
        self.held: list[bool] = []

    def __call__(self) -> None:
        self.held.append(self.handle() is not None)
        self.left.set()


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> Iterator[Left]:
    left = Left()
    monkeypatch.setattr(ray, "shutdown", left)
    yield left
    assert ray_calls.STATE.running == 0


async def test_it_is_left_when_no_call_is_under_way(left: Left) -> None:
    begun, end, handle = threading.Event(), threading.Event(), Handle()
    left.handle = weakref.ref(handle)

    def call(given: Handle) -> None:
        begun.set()
        assert end.wait(60)

    calling = asyncio.ensure_future(ray_calls.in_thread(call, handle))
    del handle
    await asyncio.to_thread(begun.wait, 60)
    calling.cancel()  # the thread goes on
    await asyncio.gather(calling, return_exceptions=True)
    leaving = asyncio.ensure_future(ray_calls.leave())
    await until(lambda: ray_calls.STATE.leaving)
    assert not left.left.is_set(), "it was left under a call"
    end.set()
    await leaving
    assert left.held == [False], "the thread still had what it was given"


async def test_who_comes_meanwhile_is_told_so(left: Left, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, end = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        assert end.wait(60)

    monkeypatch.setattr(ray, "shutdown", slow)
    leaving = asyncio.ensure_future(ray_calls.leave())
    await asyncio.to_thread(begun.wait, 60)
    with pytest.raises(RuntimeUnavailableError, match="has left Ray"):
        await ray_calls.in_thread(print)
    with pytest.raises(RuntimeUnavailableError, match="has left Ray"):
        await ray_calls.ask(None)
    end.set()
    await leaving
    with pytest.raises(RuntimeUnavailableError, match="has left Ray"):
        await ray_calls.in_thread(print)
    monkeypatch.setattr(ray, "is_initialized", lambda: True)  # it was joined anew
    assert await ray_calls.in_thread(lambda: 1) == 1


async def test_who_waits_for_an_answer_is_told_that_none_comes(left: Left) -> None:
    class Reference:
        def future(self) -> Any:
            from concurrent.futures import Future

            return Future()

    waiting = asyncio.ensure_future(ray_calls.answer(Reference()))
    await asyncio.sleep(0)
    await ray_calls.leave()
    with pytest.raises(RuntimeUnavailableError, match="has left Ray"):
        await waiting
    assert left.left.is_set()


async def test_a_call_that_never_ends_holds_up_nobody_for_ever(left: Left, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_calls, "PATIENCE", 0.1)
    end = threading.Event()
    calling = asyncio.ensure_future(ray_calls.in_thread(end.wait, 60))
    await until(lambda: ray_calls.STATE.running)
    await ray_calls.leave()
    assert left.left.is_set()
    end.set()
    assert await calling


PROGRAM = """
import asyncio, sys
import ray
from agent_party import Agent, Party, PartyError
from agent_party.cluster.ray_calls import in_thread

busy = Agent("busy")

@busy.on("busy.work")
async def work(task) -> int:
    return 1

async def main() -> None:
    for _ in range(2):
        async with Party.open(agents=[busy], journal=sys.argv[1], runtime="ray", hosts=1) as party:
            task = await party.ask(work)
            asking = [asyncio.ensure_future(keep(party, looks)) for looks in [False] * 4 + [True] * 12]
            await task.result(120)
        assert sum(await asyncio.wait_for(asyncio.gather(*asking), 60)) > 0

async def keep(party, looks) -> int:
    place, asked = party.runtime.placement, 0
    while True:
        try:
            if looks:
                await in_thread(ray.get_actor, place.pooled(0), namespace=place.namespace)
            else:
                await place.call(place.pooled(0), "ready")
            asked += 1
        except ValueError:  # the host has ended, and Ray is not left yet
            await asyncio.sleep(0)
        except PartyError:
            return asked

asyncio.run(main())
print("to its end")
"""


def test_a_program_that_closes_while_it_asks(tmp_path: Path, head: Head) -> None:
    command = [sys.executable, "-c", PROGRAM, f"sqlite:///{tmp_path}/log.db"]
    environment = {**os.environ, **head.environment, "PARTY_STATE_DIR": str(tmp_path / "state")}
    ended = subprocess.run(
        command,
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, "to its end\n"), ended.stderr[-2_000:]


def test_nothing_else_leaves_ray_or_asks_it_on_other_threads() -> None:
    root = Path(ray_calls.__file__).resolve().parents[1]
    files = [path for folder in ("cluster", "agent_party") for path in (root / folder).rglob("*.py")]
    found = [path.name for path in files if any(what in path.read_text() for what in ("ray.shutdown", "to_thread(ray"))]
    assert found == ["ray_calls.py"]
