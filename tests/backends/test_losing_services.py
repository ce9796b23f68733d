"""Each service is lost while a party works: it goes on where it can, waits where it must, says so, loses nothing."""

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_party import Agent, Party, Task, TaskHandle
from agent_party.cluster.services import Running, attach, start
from agent_party.cluster.services.processes import gone, tell
from agent_party.eventstore.audit import verify_log
from agent_party.eventstore.errors import StoreBusyError
from tests.eventstore_kit import until

STEPS, TASKS = 12, 3
LARGE = 100_000
"""Characters of a result that goes to the blobs."""
PATIENCE = 300.0
worker = Agent("worker")
effects: list[str] = []
"""Which effects were done, in order, by whom."""


class Pace:
    """Lets so many effects through."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """For another event loop."""
        self.allowed, self.changed = 0, asyncio.Condition()

    async def allow(self, count: int) -> None:
        async with self.changed:
            self.allowed += count
            self.changed.notify_all()

    async def passed(self) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: self.allowed > 0)
            self.allowed -= 1


pace = Pace()


@worker.on("work")
async def work(task: Task, name: str, large: bool) -> int:
    """Many steps, one after the other; their outcomes are small or large."""
    total = 0
    for number in range(STEPS):
        total += len(await task.step(effect, name, number, large))
    return total


async def effect(name: str, number: int, large: bool) -> str:
    await pace.passed()
    effects.append(f"{name} {number}")
    return "x" * (LARGE if large else 10)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Servers of this module alone."""
    with start(tmp_path_factory.mktemp("lost") / "services") as running:
        yield running


@pytest.fixture
def settings(servers: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A party of this test alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PARTY_STATE_DIR", str(tmp_path / "state"))
    found = dict(servers.settings)
    found["journal"] = found["journal"].rpartition("/")[0] + f"/{tmp_path.name}?partitions=2"
    found["blobs"] = found["blobs"].replace("@agent-party?", f"@{tmp_path.name.replace('_', '-').lower()[:60]}?")
    for name, value in found.items():
        monkeypatch.setenv(f"PARTY_{name.upper()}", value)
    effects.clear()
    pace.begin()
    yield found
    start(servers.place.folder)


def kill(servers: Running, name: str) -> None:
    """SIGKILL, and wait until it is gone."""
    for node in attach(servers.place.folder).place.state.of(name):
        assert tell(node.pid, node.born, signal.SIGKILL)
        assert gone(node.pid, node.born, 120)


def doctor() -> list[dict[str, Any]]:
    """What the doctor finds, as a command of its own."""
    command = [str(Path(sys.executable).with_name("party")), "doctor", "--json"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    findings: list[dict[str, Any]] = json.loads(told.stdout)["checks"]
    return findings


async def asked(party: Party, large: bool) -> list[TaskHandle[int]]:
    using = [party.using(request_id=f"r{n}") for n in range(TASKS)]
    return [await one.ask(work, name=f"t{n}", large=large) for n, one in enumerate(using)]


async def results(tasks: list[TaskHandle[int]]) -> list[int]:
    """Who is told that the log cannot be read just now asks again."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(StoreBusyError):
                return list(await asyncio.gather(*(task.result() for task in tasks)))


async def shown_in_order(party: Party, tasks: list[TaskHandle[int]], large: bool, again: int) -> None:
    """Everything is there, once: results, effects, chains; and the views are what a rebuild makes."""
    assert await results(tasks) == [STEPS * (LARGE if large else 10)] * TASKS
    times = Counter(effects)
    assert times.keys() == {f"t{n} {step}" for n in range(TASKS) for step in range(STEPS)}
    assert times.total() - len(times) <= again
    await party.stack.log.refresh()
    audit = await verify_log(party.stack.log)
    assert (audit.ok, audit.finding, audit.findings.get("gap", 0)) == (True, "", 0)
    await party.stack.worker.catch_up()
    live = await party.stack.views.digest(party.stack.worker.projection)
    assert await party.stack.worker.rebuild() == live


CANNOT = {"neo4j": "graph", "redis": "views", "minio": "blobs", "kafka": "brokers"}
"""What the doctor calls it."""


@pytest.mark.parametrize(
    ("service", "large", "goes_on"),
    [
        ("neo4j", False, True),
        ("redis", False, True),
        ("minio", False, True),
        ("minio", True, False),
        ("kafka", True, False),
    ],
)
async def test_a_service_is_lost(
    service: str, large: bool, goes_on: bool, servers: Running, settings: dict[str, str]
) -> None:
    async with Party.open(agents=[worker], runtime="local") as party:
        tasks = await asked(party, large)
        await pace.allow(5)
        await until(lambda: len(effects) == 5, "some were done", PATIENCE)
        kill(servers, service)
        await pace.allow(100 * TASKS * STEPS)
        if goes_on:
            assert await results(tasks) == [STEPS * (LARGE if large else 10)] * TASKS
        troubles = {finding["check"] for finding in await asyncio.to_thread(doctor) if finding["status"] == "problem"}
        assert CANNOT[service] in troubles
        waiting = asyncio.create_task(results(tasks))
        if not goes_on:
            await asyncio.sleep(0)
            assert not waiting.done()
        await asyncio.to_thread(start, servers.place.folder, [service])
        await waiting
        await shown_in_order(party, tasks, large, again=0 if goes_on else 2 * TASKS)


async def test_what_is_derived_is_deleted_and_comes_back(settings: dict[str, str], tmp_path: Path) -> None:
    """Graph, views, index and snapshots are gone; the same questions have the same answers."""
    async with Party.open(agents=[worker], runtime="local") as party:
        await pace.allow(TASKS * STEPS)
        await results(await asked(party, large=False))
        moment = ",".join(f"{number}:{size - 1}" for number, size in party.stack.log.index.sizes().items())
        before = await answers(party, moment)
        assert len(before["tasks"]) == TASKS
        assert before["graph"].edges
        await party.stack.views.drop(party.stack.worker.projection)
        await party.graph.store.drop(party.graph.worker.projection)
    for path in (tmp_path / ".party").iterdir():
        if path.is_file() and path.name != ".gitignore":
            path.unlink()
    async with Party.open(agents=[worker], runtime="local") as party:
        assert await answers(party, moment) == before


async def answers(party: Party, moment: str) -> dict[str, Any]:
    """What the party says of itself, as of a moment."""
    rows = await party.stack.registry.tasks()
    return {
        "tasks": [(row.id, row.status, row.agent) for row in rows],
        "results": [await party.task(row.id).result() for row in rows],
        "graph": await party.graph.at(moment),
    }
