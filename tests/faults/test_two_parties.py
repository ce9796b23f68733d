"""Two processes, one log: what lives is not stolen, the same request is one task, and anyone may wait and approve."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from agent_party import Party, TaskHandle
from agent_party.actors.task_state import TaskState
from tests.faults.two_parties_app import plod, plodder

ROOT = Path(__file__).parents[2]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts a process and waits until its party is open; what still runs at the end is killed."""
    monkeypatch.setenv("PARTY_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("PARTY_JOURNAL", f"sqlite:///{tmp_path}/.party/log.db")
    monkeypatch.setenv("PARTY_IDLE", "3600")  # who waits here stays, and does not come back as one more run
    with contextlib.ExitStack() as stack:

        def begin(*arguments: str) -> "subprocess.Popen[str]":
            command = [sys.executable, "-m", "tests.faults.two_parties_app", str(tmp_path / "trace"), *arguments]
            process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
            stack.callback(process.wait)
            stack.callback(process.kill)
            assert process.stdout is not None
            stack.callback(process.stdout.close)
            assert process.stdout.readline() == "open\n"
            return process

        yield begin


@contextlib.asynccontextmanager
async def watching(request: str) -> AsyncIterator[TaskHandle[int]]:
    """A third party, without code, that only knows the request id."""
    async with Party.open(runtime="local") as party:
        yield party.task(party.using(request_id=request).task_id())


async def until(task: TaskHandle[int], condition: Callable[[TaskState], bool]) -> TaskState:
    async for state in task.watch(300):
        if condition(state):
            return state
    raise AssertionError("it did not come true in time")


def asks(state: TaskState) -> bool:
    """Whether the task waits for a person."""
    return any(state.waits[wait].kind == "approval" for wait in state.open)


def test_what_lives_is_not_stolen(start: Start, tmp_path: Path) -> None:
    async def story() -> None:
        first = start("one")
        async with watching("one") as task:
            assert (await until(task, asks)).runs == 1
            second = start()
            await task.approve("go on")
            assert await task.result(300) == 20
            assert (await task.state()).runs == 1, "the second process took a task whose owner lived"
        lines = (tmp_path / "trace").read_text().split("\n")
        assert {line.split()[1] for line in lines if line} == {str(first.pid)}
        second.kill()
        first.kill()

    asyncio.run(story())


def test_the_same_request_in_two_processes_is_one_task(start: Start) -> None:
    async def story() -> None:
        start("three")
        async with Party.open(agents=[plodder], runtime="local") as party, watching("three") as task:
            await until(task, asks)
            again = await party.using(request_id="three").ask(
                plod, trace=_trace(await task.state()), steps=20, ask_at=10
            )
            assert again.id == task.id
            await task.approve()
            assert await again.result(300) == 20
            assert (await again.state()).runs == 1

    asyncio.run(story())


def _trace(state: TaskState) -> str:
    return str(msgspec.msgpack.decode(state.input)["trace"])
