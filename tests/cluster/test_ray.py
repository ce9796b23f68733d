"""The Ray runtime on a real cluster of one node."""

import asyncio
import contextlib
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray

from agent_party import Agent, Party, Task, TaskFailedError
from agent_party.actors.errors import InputError, RuntimeUnavailableError, UnknownTaskError
from agent_party.cluster.placement import Placement
from agent_party.cluster.ray_runtime import connect
from agent_party.cluster.settings import Settings
from tests.cluster.conftest import Head
from tests.cluster.killing import survive
from tests.cluster.tally import Add, Tally

HELLO = Path(__file__).parents[2] / "examples" / "hello.py"
ravens = Agent("ravens", version="3")


@ravens.on("ravens.count")
async def count(task: Task, trees: int) -> int:
    """Counts."""
    total = 0
    for tree in range(trees):
        total += await task.step(abs, -tree)
    return total


@ravens.on("ravens.scare")
async def scare(task: Task) -> None:
    """Fails."""
    raise ValueError("they have gone")


def test_the_hello_program_runs_on_ray(place: Path, head: Head) -> None:
    environment = {**head.environment, "PARTY_STATE_DIR": str(place / "state")}
    command = [sys.executable, str(HELLO)]
    ran = subprocess.run(command, env=environment, cwd=place, capture_output=True, text=True, timeout=600, check=False)
    assert ran.stdout.strip() == "hash chains has 11 letters", ran.stderr


async def test_a_driver_that_knows_only_the_agents_name(place: Path) -> None:
    async with Party.open(agents=[ravens], runtime="ray", hosts=1):
        agent: Any = ray.get_actor("agent:ravens", namespace="agent-party")
        meta = {"command_id": "one"}
        task = await agent.ask.remote("ravens.count", {"trees": 4}, meta)
        assert await agent.ask.remote("ravens.count", {"trees": 4}, meta) == task
        assert await agent.result.remote(task, timeout=600) == 6
        assert (await agent.state.remote(at=1))["registered"]["version"] == "3"
        assert (await agent.history.remote(from_revision=1))[0]["type"] == "agent.registered"
        early = await agent.state.remote(task=task, at=1)
        assert (early["status"], early["revision"]) == ("requested", 1)
        assert (await agent.state.remote(task=task))["status"] == "completed"
        with pytest.raises(InputError):
            await agent.ask.remote("ravens.count", {"bushes": 4})
        with pytest.raises(UnknownTaskError):
            await agent.result.remote("0000000000000000", timeout=60)
        failed = await agent.ask.remote("ravens.scare")
        with pytest.raises(TaskFailedError, match="they have gone"):
            await agent.result.remote(failed, timeout=600)


async def test_an_entity_lives_in_a_pooled_host(place: Path) -> None:
    async with Party.open(agents=[ravens], runtime="ray", hosts=1) as party:
        tally = party.entity(Tally, "trees")
        await asyncio.gather(*(tally.send(Add(1), command_id=f"c{n % 10}") for n in range(20)))
        reply = await tally.send(Add(5))
        assert (reply.state, reply.revision) == (15, 11)
        assert await tally.state(at=10) == 10


async def test_a_task_survives_its_host_being_killed_ten_times(place: Path) -> None:
    seen = await survive(place / "trace", kills=10, seed=11)
    assert seen["outcomes"] == seen["steps"] == 120


def test_jobs_from_a_folder_with_packages_of_the_same_names(place: Path, head: Head) -> None:
    work = place / "work"
    (work / "actors").mkdir(parents=True)
    (work / "actors" / "__init__.py").write_text("raise ImportError('the folder of the user was imported')\n")
    for name in ("cluster.py", "eventstore.py"):
        (work / name).write_text("raise ImportError('the file of the user was imported')\n")
    shutil.copy(HELLO, work / "hello.py")
    (work / "again.py").write_text(HELLO.read_text().replace("print(await task.result())",
        "print(await task.result(), (await task.state()).runs, len(await task.history()))"))  # fmt: skip
    local = {**head.environment, "PARTY_STATE_DIR": str(place / "state"), "PARTY_RUNTIME": "local"}
    local.pop("RAY_ADDRESS")
    subprocess.run([sys.executable, "hello.py"], cwd=work, env=local, check=True, capture_output=True, timeout=600)
    assert (work / ".party" / "log.db").exists()
    data = {**head.environment, "XDG_DATA_HOME": str(place / "data"), "PARTY_STATE_DIR": str(place / "state2")}
    first = _submit(head, work, data, "hello.py")
    assert "hash chains has 11 letters" in first
    second = _submit(head, work, data, "again.py")
    assert "hash chains has 11 letters 1 " in second, "the second job did not go on with the first one's log"
    assert (place / "data" / "agent-party" / ".party" / "log.db").exists()
    _nothing_secret_was_uploaded(head, work, place)


def _submit(head: Head, work: Path, environment: dict[str, str], script: str) -> str:
    ray_command = str(Path(sys.executable).with_name("ray"))
    passed = {name: environment[name] for name in ("XDG_DATA_HOME", "PARTY_STATE_DIR", "RAY_AUTH_MODE")}
    runtime = "{" + ", ".join(f'"{name}": "{value}"' for name, value in passed.items()) + "}"
    ran = subprocess.run(
        [ray_command, "job", "submit", f"--address={head.jobs}", "--working-dir", ".",
         "--runtime-env-json", f'{{"env_vars": {runtime}}}', "--", sys.executable, script],
        cwd=work, env=environment, capture_output=True, text=True, timeout=600, check=False)  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def _nothing_secret_was_uploaded(head: Head, work: Path, place: Path) -> None:
    """Look into every copy of the working directory that Ray made."""
    copies = [path.parent for path in Path(_session_folder(head)).rglob("again.py")]
    assert copies, "Ray has no copy of the working directory: the test looks in the wrong place"
    for copy in copies:
        names = {path.name for path in copy.rglob("*")}
        assert not names & {".party", "log.db", "keys.db", "root.key"}, f"{copy} holds {names}"
    log = (work / ".party" / "log.db").read_bytes()
    assert all(log[:4096] not in path.read_bytes() for copy in copies for path in copy.rglob("*") if path.is_file())


def _session_folder(head: Head) -> str:
    ray.init(address=head.address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        node = ray._private.worker.global_worker.node
        assert node is not None
        return str(node.get_session_dir_path())
    finally:
        ray.shutdown()


async def test_an_agent_that_stays_is_found_by_a_later_program(place: Path, head: Head) -> None:
    async with Party.open(agents=[ravens], runtime="ray", hosts=1, stay=True):
        pass
    ray.init(address=head.address, namespace="agent-party", log_to_driver=False, logging_level=logging.ERROR)
    try:
        agent: Any = ray.get_actor("agent:ravens")
        task = await agent.ask.remote("ravens.count", {"trees": 3})
        assert await agent.result.remote(task, timeout=600) == 3
        for name in ray.util.list_named_actors():
            with contextlib.suppress(ValueError):  # of an earlier party, and gone by now
                ray.kill(ray.get_actor(name))
    finally:
        ray.shutdown()


def test_ray_that_cannot_be_reached_is_a_clear_error(place: Path) -> None:
    with pytest.raises(RuntimeUnavailableError, match="runtime='local'"):
        connect(Settings(journal="sqlite:////x", runtime="ray", ray_address="127.0.0.1:1"))


def test_placement_spreads_and_agrees() -> None:
    placement = Placement("n", "s", 4)
    indexes = [placement.index_of(f"t{n}") for n in range(400)]
    assert {indexes.count(n) > 60 for n in range(4)} == {True}
    assert placement.host_of("t1") == placement.pooled(indexes[1])
