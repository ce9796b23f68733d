"""Several parties on one journal, each a process of its own, and one of them killed."""

import asyncio
import functools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent_party import Agent, Party, Task
from agent_party.actors.errors import DeadlineError
from tests.unit.world import until

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 300.0

agent = Agent("worker")


def note(name: str) -> str:
    """An effect: a line in a file outside the party, with the process that did it."""
    with open("effects", "a") as file:
        file.write(f"{name} {os.getpid()}\n")
    return name


@agent.on("work")
async def work(task: Task, steps: int) -> int:
    for n in range(steps):
        await task.step(note, f"before-{n}")
    await task.approval("go on", show=steps)
    for n in range(steps):
        await task.step(note, f"after-{n}")
    return steps


async def ask_and_wait() -> None:
    """The first process: asks, and works until it is killed."""
    async with Party.open(agents=[agent], runtime="local") as party:
        task = await party.using(request_id="r").ask(work, steps=5)
        print(task.id, flush=True)
        await task.result()


async def join_and_wait() -> None:
    """Another process with the code, which asks for nothing."""
    async with Party.open(agents=[agent], runtime="local"):
        print("joined", flush=True)
        await asyncio.Event().wait()


async def approve(task: str) -> None:
    """A person's process, which has no code."""
    async with Party.open(runtime="local") as party:
        await party.task(task).approve(note="from elsewhere")


class Running:
    """A process that runs one of the functions above."""

    def __init__(self, call: str) -> None:
        script = f"import asyncio, tests.faults.test_parties as t\nasyncio.run(t.{call})\n"
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
        )

    def line(self) -> str:
        """The next line it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(how)
        self.process.wait(300)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PARTY_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("PARTY_IDLE", "3600")  # who waits here stays, and does not come back as one more run
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def waiting(party: Party, task: str) -> None:
    """Wait until the task asks for approval."""

    async def asks() -> bool:
        state = await party.task(task).state()
        return any(state.waits[number].kind == "approval" for number in state.open)

    await until(asks, DEADLINE)


async def test_the_second_finishes_what_the_first_cannot(folder: Path) -> None:
    first, second = Running("ask_and_wait()"), Running("join_and_wait()")
    task = first.line()
    assert second.line() == "joined"
    try:
        async with Party.open(runtime="local") as party:
            await waiting(party, task)
            with pytest.raises(DeadlineError):
                await party.task(task).result(timeout=0.1)
            owners = {line.split()[1] for line in (folder / "effects").read_text().splitlines()}
            assert owners == {str(first.process.pid)}, "a task is not taken from a process that lives"
            first.end()
            person = Running(f"approve('{task}')")
            assert await party.task(task).result(DEADLINE) == 5
            assert person.process.wait(300) == 0
            person.end()
            lines = [line.split() for line in (folder / "effects").read_text().splitlines()]
            assert [name for name, _ in lines] == [f"{when}-{n}" for when in ("before", "after") for n in range(5)]
            assert [pid for _, pid in lines] == [str(r.process.pid) for r in (first, second) for _ in range(5)]
            assert (await party.task(task).state()).runs == 2
    finally:
        second.end()


def done(effects: Path, number: int) -> bool:
    """Whether that many effects were done."""
    return effects.exists() and effects.read_text().count("\n") >= number


async def test_a_kill_at_any_step_costs_no_more_than_the_step_in_flight(folder: Path) -> None:
    for n in range(3):
        first = Running("ask_and_wait()")
        task = first.line()
        await until(functools.partial(done, folder / "effects", 2 + n), DEADLINE)
        first.end()
        if n < 2:
            continue
        async with Party.open(agents=[agent], runtime="local") as party:
            await waiting(party, task)
            await party.task(task).approve()
            assert await party.task(task).result(DEADLINE) == 5
    names = [line.split()[0] for line in (folder / "effects").read_text().splitlines()]
    assert set(names) == {f"{when}-{n}" for when in ("before", "after") for n in range(5)}
    assert len(names) <= 10 + 3, "at most one for each kill"


async def test_two_parties_in_one_process(folder: Path) -> None:
    async with (
        Party.open(agents=[agent], runtime="local") as one,
        Party.open(agents=[agent], runtime="local") as two,
    ):
        handles = [await party.using(request_id="same").ask(work, steps=1) for party in (one, two)]
        assert handles[0].id == handles[1].id
        await waiting(two, handles[0].id)
        await two.task(handles[0].id).approve()
        assert [await handle.result(DEADLINE) for handle in handles] == [1, 1]
        assert (folder / "effects").read_text().count("\n") == 2
