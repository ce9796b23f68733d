"""SIGTERM: effects in flight end, and are not done again by who goes on."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from agent_party import Agent, Party, Task, step
from agent_party.actors.events import Attempted, Started
from agent_party.cluster.ray_runtime import RayRuntime

slow = Agent("slow")
PROGRAM = """
import asyncio, sys
from agent_party import Party
from tests.cluster.test_ending import slow, work

async def main():
    async with Party.open(agents=[slow], journal=sys.argv[1], runtime="local") as party:
        task = await party.using(request_id="one").ask(work, ledger=sys.argv[2])
        await task.result()

asyncio.run(main())
"""


def hold(ledger: Path) -> Path:
    """The file that holds the second step; without it the step ends."""
    return ledger.with_name("hold")


def effect(ledger: str, number: int) -> int:
    """Leaves a line when it begins and one when it ends; the second one lasts as long as it is held."""
    with Path(ledger).open("a", encoding="ascii") as file:
        file.write(f"begins {number}\n")
    while number == 1 and hold(Path(ledger)).exists():
        time.sleep(0.02)
    with Path(ledger).open("a", encoding="ascii") as file:
        file.write(f"ends {number}\n")
    return number


@step(where="ray")
def far_effect(ledger: str, number: int) -> int:
    """The same elsewhere."""
    return effect(ledger, number)


LONGER = 0.5
"""Seconds for which the step is held after the signal was heard: whoever does not wait for it is gone by then."""
_looking: set[asyncio.Task[None]] = set()


def heard(ledger: Path) -> Path:
    """The file that says that the host was told to end: a signal may take its time."""
    return ledger.with_name("heard")


def tells(task: Task, ledger: str) -> None:
    """Have the host of a task make that file, once it begins nothing more."""
    host = task._cell.host

    async def look() -> None:
        while not host.ending:  # noqa: ASYNC110 (nobody tells when it is)
            await asyncio.sleep(0.01)
        heard(Path(ledger)).touch()

    _looking.add(asyncio.ensure_future(look()))


@slow.on("slow.work")
async def work(task: Task, ledger: str) -> int:
    """Three steps."""
    tells(task, ledger)
    return sum([await task.step(effect, ledger, number) for number in range(3)])


@slow.on("slow.work_far")
async def work_far(task: Task, ledger: str) -> int:
    """The same, in processes of Ray's."""
    tells(task, ledger)
    return sum([await task.step(far_effect, ledger, number) for number in range(3)])


def waits(file: str) -> int:
    """Ends when a file is there."""
    while not Path(file).exists():
        time.sleep(0.02)
    return 0


@slow.on("slow.work_beside")
async def work_beside(task: Task, ledger: str, file: str) -> int:
    """A step on Ray, and beside it two others, one after the other."""
    tells(task, ledger)

    async def beside() -> int:
        return await task.step(waits, file) + await task.step(effect, ledger, 2)

    return sum(await asyncio.gather(task.step(far_effect, ledger, 1), beside()))


def _wait_for(file: Path, line: str = "") -> None:
    until_ = time.monotonic() + 300
    while not file.exists() or line not in file.read_text(encoding="ascii"):
        assert time.monotonic() < until_, f"{file.name} {line!r} never came"
        time.sleep(0.02)


def _hold_longer(ledger: Path) -> None:
    """The step goes on while whoever was told to end waits for it."""
    _wait_for(heard(ledger))
    time.sleep(LONGER)


WHOLE = [f"{what} {number}" for number in range(3) for what in ("begins", "ends")]


def test_a_program_that_is_told_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARTY_STATE_DIR", str(tmp_path / "state"))
    ledger, journal = tmp_path / "ledger", f"sqlite:///{tmp_path}/log.db"
    hold(ledger).touch()
    command = [sys.executable, "-c", PROGRAM, journal, str(ledger)]
    program = subprocess.Popen(command, cwd=Path(__file__).parents[2], env={**os.environ})
    _wait_for(ledger, "begins 1")
    program.send_signal(signal.SIGTERM)
    _hold_longer(ledger)
    assert program.poll() is None, "it did not wait for what was in flight"
    hold(ledger).unlink()
    assert program.wait(300) == -signal.SIGTERM
    assert ledger.read_text(encoding="ascii").splitlines() == WHOLE[:4], "what was in flight has ended"

    async def go_on() -> int:
        async with Party.open(agents=[slow], journal=journal, runtime="local") as party:
            task = await party.using(request_id="one").ask(work, ledger=str(ledger))
            return await task.result(300)

    assert asyncio.run(go_on()) == 3
    assert ledger.read_text(encoding="ascii").splitlines() == WHOLE, "nothing was done twice"


@pytest.mark.parametrize("capability", [work, work_far], ids=["in the host", "on Ray"])
async def test_a_host_on_ray_that_is_told_to_end(place: Path, capability: Any) -> None:
    ledger = place / "ledger"
    hold(ledger).touch()
    async with Party.open(agents=[slow], runtime="ray", hosts=1) as party:
        assert isinstance(party.runtime, RayRuntime)
        hosts = party.runtime.placement
        pid = int(await hosts.call(hosts.pooled(0), "ready", deadline=300))
        task = await party.ask(capability, ledger=str(ledger))
        await asyncio.to_thread(_wait_for, ledger, "begins 1")
        os.kill(pid, signal.SIGTERM)
        await asyncio.to_thread(_hold_longer, ledger)
        hold(ledger).unlink()
        assert await task.result(300) == 3
        assert int(await hosts.call(hosts.pooled(0), "ready", deadline=300)) != pid
        history = await task.history()
    assert ledger.read_text(encoding="ascii").splitlines() == WHOLE, "nothing was done twice"
    assert not [line for line in history if isinstance(line.detail, Attempted)], "no attempt failed"
    starts = [line.detail.replays for line in history if isinstance(line.detail, Started)]
    assert starts == [0, 2], "who was told to end began nothing new"


async def test_nothing_begins_in_a_host_that_waits_for_ray(place: Path) -> None:
    """Ray waits for steps that are elsewhere before it ends a process, and then no more for what began meanwhile."""
    ledger, file = place / "ledger", place / "file"
    hold(ledger).touch()
    async with Party.open(agents=[slow], runtime="ray", hosts=1) as party:
        assert isinstance(party.runtime, RayRuntime)
        hosts = party.runtime.placement
        pid = int(await hosts.call(hosts.pooled(0), "ready", deadline=300))
        task = await party.ask(work_beside, ledger=str(ledger), file=str(file))
        await asyncio.to_thread(_wait_for, ledger, "begins 1")
        os.kill(pid, signal.SIGTERM)
        await asyncio.to_thread(_hold_longer, ledger)
        file.touch()
        await asyncio.sleep(LONGER)
        assert ledger.read_text(encoding="ascii").splitlines() == ["begins 1"], "it began something new"
        hold(ledger).unlink()
        assert await task.result(300) == 3
    assert sorted(ledger.read_text(encoding="ascii").splitlines()) == sorted(WHOLE[2:]), "nothing was done twice"
