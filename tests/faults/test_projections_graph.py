"""The graphs, exactly once at every crash point: a short run of the campaign on Ladybug and Neo4j."""

import asyncio
import random
from pathlib import Path

import pytest

from agent_party.projections.backends.graph_memory import MemoryGraph
from agent_party.projections.worker import Worker
from tests.campaigns import projections as campaign
from tests.faults.projecting import Subject, a_log, rebuild_under_load
from tests.faults.projecting_graph import Ladybug, graphs
from tests.graph_kit import emptied
from tests.services_kit import Services


@pytest.fixture(params=["ladybug", "neo4j"])
async def subject(request: pytest.FixtureRequest) -> Subject:
    if request.param == "ladybug":
        return Ladybug()
    services: Services = request.getfixturevalue("services")
    await emptied(services.neo4j)
    return graphs(services.neo4j)["neo4j"]


async def test_every_commit_counts_once_wherever_a_worker_crashes(subject: Subject, tmp_path: Path) -> None:
    found = await campaign.injected(subject, tmp_path, range(5), seed=2)
    assert min(found[where] for where in ("before", "inside", "after", "whole")) > 1
    assert found["crashes"] >= 30


async def test_a_rebuild_under_load_swaps_at_once(subject: Subject, tmp_path: Path) -> None:
    async with a_log(tmp_path / "log", 30, 4) as log:
        found = await rebuild_under_load(subject, log, tmp_path, random.Random(4), 2)
    assert (found["rebuilt"], found["read"] >= 2, found["written"] > 0) == (2, True, True)


async def test_an_edit_by_hand_is_found_and_mended(subject: Subject, tmp_path: Path) -> None:
    async with a_log(tmp_path / "log", 30, 1) as log:
        sink = subject.open(tmp_path)
        worker = Worker(log, subject.projection(), sink)
        await worker.catch_up()
        live = await sink.digest(worker.projection)
        assert (await worker.check(MemoryGraph())).ok
        await subject.edit(sink)
        found = await worker.check(MemoryGraph())
        assert not found.ok
        assert [one.id for one in found.differences] == [("fold", "note/s0")]
        assert await worker.rebuild() == live
        assert (await worker.check(MemoryGraph())).ok
        await sink.close()


@pytest.mark.parametrize("name", ["ladybug", "neo4j"])
def test_every_commit_counts_once_whenever_a_worker_is_killed(
    name: str, services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(campaign, "KILLED_COMMITS", 120)
    asyncio.run(emptied(services.neo4j))
    found = campaign.killed(graphs(services.neo4j)[name], tmp_path / "killed", 3, seed=3)
    assert found == {"kills": 3, "while it caught up": 2, "while it rebuilt": 1}
