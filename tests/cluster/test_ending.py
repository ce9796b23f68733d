"""SIGTERM: effects in flight end, and are not done again by who goes on."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent_party import Agent, Party, Task
from agent_party.actors.events import Attempted
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


def effect(ledger: str, number: int) -> int:
    """Takes a second, and leaves a line when it begins and one when it ends."""
    with Path(ledger).open("a", encoding="ascii") as file:
        file.write(f"begins {number}\n")
    time.sleep(1)
    with Path(ledger).open("a", encoding="ascii") as file:
        file.write(f"ends {number}\n")
    return number


@slow.on("slow.work")
async def work(task: Task, ledger: str) -> int:
    """Three slow steps."""
    return sum([await task.step(effect, ledger, number) for number in range(3)])


def _wait_for(ledger: Path, line: str) -> None:
    until_ = time.monotonic() + 60
    while not ledger.exists() or line not in ledger.read_text(encoding="ascii"):
        assert time.monotonic() < until_, f"{line!r} never came"
        time.sleep(0.02)


WHOLE = [f"{what} {number}" for number in range(3) for what in ("begins", "ends")]


def test_a_program_that_is_told_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARTY_STATE_DIR", str(tmp_path / "state"))
    ledger, journal = tmp_path / "ledger", f"sqlite:///{tmp_path}/log.db"
    command = [sys.executable, "-c", PROGRAM, journal, str(ledger)]
    program = subprocess.Popen(command, cwd=Path(__file__).parents[2], env={**os.environ})
    _wait_for(ledger, "begins 1")
    program.send_signal(signal.SIGTERM)
    assert program.wait(30) == -signal.SIGTERM
    assert ledger.read_text(encoding="ascii").splitlines() == WHOLE[:4], "what was in flight has ended"

    async def go_on() -> int:
        async with Party.open(agents=[slow], journal=journal, runtime="local") as party:
            task = await party.using(request_id="one").ask(work, ledger=str(ledger))
            return await task.result(30)

    assert asyncio.run(go_on()) == 3
    assert ledger.read_text(encoding="ascii").splitlines() == WHOLE, "nothing was done twice"


async def test_a_host_on_ray_that_is_told_to_end(place: Path) -> None:
    ledger = place / "ledger"
    async with Party.open(agents=[slow], runtime="ray", hosts=1) as party:
        assert isinstance(party.runtime, RayRuntime)
        hosts = party.runtime.placement
        pid = int(await hosts.call(hosts.pooled(0), "ready"))
        task = await party.ask(work, ledger=str(ledger))
        await asyncio.to_thread(_wait_for, ledger, "begins 1")
        os.kill(pid, signal.SIGTERM)
        assert await task.result(120) == 3
        assert int(await hosts.call(hosts.pooled(0), "ready")) != pid
        history = await task.history()
    assert ledger.read_text(encoding="ascii").splitlines() == WHOLE, "nothing was done twice"
    assert not [line for line in history if isinstance(line.detail, Attempted)], "no attempt failed"
