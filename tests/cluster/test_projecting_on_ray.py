"""Projections carried by Ray actors, by the command that an operator runs: beside a cluster, and as a job in it."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray

from agent_party import Agent, Party, Task, TaskHandle
from agent_party.cluster.projections import workers
from agent_party.cluster.ray_runtime import connect
from agent_party.cluster.settings import load
from agent_party.projections.backends.views_memory import MemoryViews
from tests.cluster.conftest import Head
from tests.unit.world import until

PROGRAMS = Path(sys.executable).parent
PATIENCE = 300
agent = Agent("worker", version="1")


@agent.on("work")
async def work(task: Task, what: str) -> str:
    """Does it."""
    return what


@pytest.fixture
def connected(place: Path) -> Iterator[None]:
    """This program is connected to the head, so as to look at actors."""
    connect(load({}))
    yield
    ray.shutdown()


def begin(*arguments: str) -> "subprocess.Popen[str]":
    """The command, against the running cluster."""
    command = [str(PROGRAMS / "party"), "projection", "run", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@contextmanager
def job(head: Head, place: Path, *arguments: str) -> Iterator[str]:
    """The command as a job in the cluster, by its id; it is stopped at the end."""
    variables = {"PARTY_JOURNAL": f"sqlite:///{place}/.party/log.db"}
    variables |= {name: os.environ[name] for name in ("PARTY_STATE_DIR", "RAY_AUTH_MODE")}
    said = _ray(
        head, "submit", "--no-wait", "--runtime-env-json", json.dumps({"env_vars": variables}),
        "--", str(PROGRAMS / "party"), "projection", "run", *arguments,
    )  # fmt: skip
    found = re.search(r"Job '(raysubmit_\w+)' submitted", said)
    assert found, said
    try:
        yield found[1]
    except BaseException as error:
        error.add_note(_ray(head, "status", found[1]) + _ray(head, "logs", found[1]))
        raise
    finally:
        _ray(head, "stop", found[1])


def _ray(head: Head, verb: str, *arguments: str) -> str:
    command = [str(PROGRAMS / "ray"), "job", verb, f"--address={head.jobs}", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


async def ask(party: Party, *whats: str) -> list[TaskHandle[Any]]:
    """Tasks that are done."""
    tasks = [await party.ask("work", what=what) for what in whats]
    for task in tasks:
        await task.result()
    return tasks


async def until_projected(party: Party, tasks: list[TaskHandle[Any]]) -> None:
    """Wait until the result of each of these tasks, and no other, stands in the views."""

    async def there() -> bool:
        return {key for key, _ in await party.stack.views.scan("result")} == {task.id for task in tasks}

    await until(there, PATIENCE)


async def until_gone(name: str) -> None:
    """Wait until Ray has let go of an actor."""

    def gone() -> bool:
        try:
            ray.get_actor(name, namespace="agent-party")
        except ValueError:
            return True
        return False

    await until(gone, PATIENCE)


async def until_none_behind(party: Party, owners: list[str]) -> None:
    """Wait until the owners have carried everything; then what stands is what the log gives."""

    async def none_behind() -> bool:
        parts = [await worker.lag() for worker in await workers(party.stack, "results")]
        return not any(lag.commits for lag in parts)

    await until(none_behind, PATIENCE)
    parts = await workers(party.stack, "results")
    assert [one.projection.name for one in parts] == owners
    assert all([(await one.check(MemoryViews())).ok for one in parts])


@pytest.mark.usefixtures("connected")
async def test_owners_share_out_the_slices_and_come_back_when_they_die(place: Path) -> None:
    async with Party.open(agents=[agent], runtime="local") as party:
        tasks = await ask(party, *map(str, range(8)))
        running = begin("results", "--owners", "2")
        try:
            assert running.stderr is not None
            said = [running.stderr.readline()]
            while said[-1] and not said[-1].startswith("carrying"):  # Ray may have something to say on a slow machine
                said.append(running.stderr.readline())
            assert said[-1].startswith("carrying results by projection:results:0/2, projection:results:1/2"), said
            await until_projected(party, tasks)
            for part in range(2):
                ray.kill(ray.get_actor(f"projection:results:{part}/2", namespace="agent-party"), no_restart=False)
            tasks += await ask(party, "more", "and more")
            await until_projected(party, tasks)
            await until_none_behind(party, ["results:0/2", "results:1/2"])
        finally:
            running.send_signal(signal.SIGTERM)
            told, errors = running.communicate(timeout=PATIENCE)
        assert running.returncode == 0, errors
        assert "commits projected" in told


@pytest.mark.usefixtures("connected")
async def test_a_job_carries_it_and_when_it_was_stopped_another_goes_on(place: Path, head: Head) -> None:
    owner = "projection:results"
    async with Party.open(agents=[agent], runtime="local") as party:
        tasks = await ask(party, "one", "two")
        with job(head, place, "results"):
            await until_projected(party, tasks)
            ray.kill(ray.get_actor(owner, namespace="agent-party"), no_restart=False)
            tasks += await ask(party, "three")
            await until_projected(party, tasks)
        await until_gone(owner)
        tasks += await ask(party, "four")
        assert len(await party.stack.views.scan("result")) == 3, "somebody else carries it"
        with job(head, place, "results"):
            await until_projected(party, tasks)
            await until_none_behind(party, ["results"])
        await until_gone(owner)


async def test_one_that_looks_across_streams_has_one_owner(place: Path) -> None:
    async with Party.open(runtime="local"):
        running = begin("task-lists", "--owners", "2", "--json")
        told, _ = running.communicate(timeout=PATIENCE)
    assert running.returncode != 0
    assert "one owner" in json.loads(told)["message"]
