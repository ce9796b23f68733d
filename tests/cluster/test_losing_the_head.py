"""The head of the cluster is killed in the middle of a task: what was not finished goes on at the next one."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent_party import Party
from tests.cluster.conftest import move_to, running_head, turn_to
from tests.cluster.killing import executed, host_pid
from tests.cluster.losing import HELD, REQUEST, STEPS, count, counter, hold, patient
from tests.unit.world import until

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def program(trace: Path) -> Iterator["subprocess.Popen[str]"]:
    """The program of `losing`, in this environment."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.cluster.losing", str(trace)]
    with (trace.parent / "errors").open("w") as errors:
        running = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        yield running
    finally:
        running.kill()
        running.communicate()


def gone(pid: int) -> bool:
    """Whether a process is no more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


async def test_what_was_not_finished_goes_on_at_the_next_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    move_to(tmp_path, monkeypatch)
    trace = tmp_path / "trace"
    hold(trace).touch()
    with running_head() as first:
        turn_to(first, monkeypatch)
        with program(trace) as driver:
            assert driver.stdout is not None
            said = driver.stdout.readline().split()
            assert len(said) == 3, (tmp_path / "errors").read_text()
            counting, waiting, host = said[0], said[1], int(said[2])
            await until(lambda: trace.exists() and executed(trace)[HELD], 300)
            os.kill(first.pid, signal.SIGKILL)
            await until(lambda: gone(host), 300)
    assert executed(trace).total() == HELD + 1, "the head was not lost in the middle of the task"
    hold(trace).unlink()
    with running_head() as second:
        assert second.address != first.address
        turn_to(second, monkeypatch)
        async with Party.open(agents=[counter, patient], runtime="ray", hosts=1) as party:
            assert await host_pid(party) != host
            assert await party.task(counting).result(300) == STEPS * (STEPS - 1) // 2  # nobody asks for it again
            again = await party.using(request_id=REQUEST).ask(count, trace=str(trace))
            assert again.id == counting
            assert (await party.task(waiting).state()).finished is False
            await party.task(waiting).signal("go", "on")
            assert await party.task(waiting).result(300) == "on"
            history = await party.task(counting).history()
    settled = [line.detail.wait for line in history if line.event == "wait.settled"]
    assert settled == list(range(STEPS)), "an outcome was lost, or recorded twice"
    assert set(executed(trace)) == set(range(STEPS)), "an effect never ran"
    assert executed(trace).total() == STEPS + 1, "more ran again than what was in flight"
