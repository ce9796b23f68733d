"""The owner of a part of a projection, as Ray starts it, and the one who watches the owners."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

from agent_party import Agent, Party, Task
from agent_party.actors.errors import RuntimeUnavailableError
from agent_party.cluster import projecting
from agent_party.cluster.projecting import ProjectionActor, actor_name, carry_on_ray
from agent_party.cluster.projections import share_out, workers
from agent_party.cluster.settings import load
from agent_party.projections.backends.views_memory import MemoryViews
from agent_party.projections.parts import Part
from agent_party.projections.worker import Worker
from tests.unit.world import until

agent = Agent("worker", version="1")


@agent.on("work")
async def work(task: Task, what: str) -> str:
    """Does it."""
    return what


async def test_owners_carry_their_slices_and_another_goes_on_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARTY_STATE_DIR", str(tmp_path / "state"))
    settings = load({"journal": f"sqlite:///{tmp_path}/party/log.db", "runtime": "local"})
    parts = [Part(number, 2) for number in range(2)]
    assert [actor_name("results", part) for part in parts] == ["projection:results:0/2", "projection:results:1/2"]
    async with Party.open(agents=[agent], journal=settings.journal, runtime="local") as party:
        tasks = [await party.ask("work", what=str(number)) for number in range(6)]
        for task in tasks:
            await task.result()
        await share_out(party.stack, "results", 2)
        assert [one.projection.name for one in await workers(party.stack, "results")] == ["results:0/2", "results:1/2"]
        owners = [ProjectionActor(settings, "results", part) for part in parts]

        async def all_there() -> bool:
            return len(await party.stack.views.scan("result")) == len(tasks)

        await until(all_there, 120)
        for owner in owners:
            await owner.stop()
        more = await party.ask("work", what="more")
        await more.result()
        tasks.append(more)
        owners = [ProjectionActor(settings, "results", part) for part in parts]
        await until(all_there, 120)

        async def none_behind() -> bool:
            """All has been carried, also what the party may write yet by itself."""
            await party.stack.log.refresh()
            told = [await owner.status() for owner in owners]
            carried = sum(one["commits"] for one in told)
            return carried == sum(party.stack.log.index.sizes().values()) and not any(one["lag"] for one in told)

        await until(none_behind, 120)
        for one in await workers(party.stack, "results"):
            assert (await one.check(MemoryViews())).ok
        for owner in owners:
            await owner.stop()


async def test_an_owner_says_what_ended_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARTY_STATE_DIR", str(tmp_path / "state"))
    settings = load({"journal": f"sqlite:///{tmp_path}/party/log.db", "runtime": "local"})
    async with Party.open(journal=settings.journal, runtime="local"):
        pass

    async def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Worker, "run", broken)
    owner = ProjectionActor(settings, "results", Part())

    async def ended() -> bool:
        try:
            await owner.status()
        except ZeroDivisionError:
            return True
        return False

    await until(ended, 120)
    await owner.stop()


CARRIED = [{"commits": 3}]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Watches an owner that says these things, one after the other, until it says the last; what came of it."""

    async def watch(*says: Any) -> int:
        over, left = asyncio.Event(), list(says)

        async def statuses(handles: list[Any], deadline: float) -> Any:
            said = left.pop(0) if len(left) > 1 else left[0]
            if len(left) == 1:
                over.set()
            if isinstance(said, Exception):
                raise said
            return said

        monkeypatch.setattr(projecting, "connect", lambda settings: False)
        monkeypatch.setattr(projecting, "_create", lambda *_: None)
        monkeypatch.setattr(projecting, "_LOOK", 0.001)
        monkeypatch.setattr(projecting, "until_told", over.wait)
        monkeypatch.setattr(projecting, "_statuses", statuses)
        return await carry_on_ray(load({}, {}), "results", 1, lambda line: None)

    return watch


SILENT = ray.exceptions.GetTimeoutError("no answer")


async def test_an_owner_that_takes_long_to_come_back_is_waited_for(watched: Callable[..., Any]) -> None:
    assert await watched(CARRIED, SILENT, SILENT, [{"commits": 5}]) == 5


async def test_an_owner_that_stays_silent_is_given_up(
    watched: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projecting, "_START", 0.0)
    with pytest.raises(RuntimeUnavailableError, match="does not answer"):
        await watched(CARRIED, SILENT, CARRIED)
