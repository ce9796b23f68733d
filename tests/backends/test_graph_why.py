"""`why` on graphs of thousands of edges, in the stores that keep them: as a brute-force fold of the log gives it."""

import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent_party.projections.backends.graph_ladybug import LadybugGraph
from agent_party.projections.backends.graph_neo4j import Neo4jGraph
from agent_party.projections.backends.neo4j_connection import Connection
from agent_party.projections.graph import Graph, Ref
from agent_party.projections.questions import why
from tests import graph_brute as brute
from tests.campaigns import graph_large as campaign
from tests.graph_kit import Life, emptied, project
from tests.services_kit import Services

LOG = b"l" * 32
ASKS, BATCH = 20, 1_000


@contextlib.asynccontextmanager
async def opened(kind: str, folder: Path, services: Services) -> AsyncIterator[Graph]:
    """An empty graph."""
    if kind == "neo4j":
        await emptied(services.neo4j)
    made: Graph = LadybugGraph(folder, LOG) if kind == "ladybug" else Neo4jGraph(Connection(services.neo4j), LOG)
    yield made
    await made.close()


@pytest.mark.parametrize(("seed", "steps", "edges"), [(1, 4_300, 5_000), (2, 1_200, 1_200), (3, 1_200, 1_200)])
@pytest.mark.parametrize("kind", ["ladybug", "neo4j"])
async def test_why_is_what_a_fold_of_the_log_gives(
    kind: str, seed: int, steps: int, edges: int, services: Services, tmp_path: Path
) -> None:
    chance, life = random.Random(seed), Life(seed, steps)
    async with opened(kind, tmp_path, services) as graph:
        await project(graph, life.shuffled(chance), BATCH)
        counted = await graph.query("MATCH ()-[e]->() RETURN count(e)", {})
        assert counted.rows[0][0] >= edges
        longest = 0
        by_tasks = [one for one in life.made if one not in life.shelf]
        for artifact in [*chance.sample(by_tasks, ASKS), life.shelf[0]]:
            ref = Ref("artifact", artifact.blob.hex())
            told = await why(graph, ref)
            assert [(e.kind, e.made.stream, e.made.revision) for e in told.chain] == brute.why(life.commits, ref)
            assert told.complete
            longest = max(longest, len(told.chain))
    assert longest > 3, "no chain went over another task"


async def test_why_on_fifty_thousand_edges_is_right_and_quick(services: Services) -> None:
    """The one time that a test asserts, because it is the one that a person waits for; see `campaign.TARGET`."""
    found = await campaign.campaign(services.neo4j, edges=50_000, asks=200, seed=2, tries=10, brute=10)
    assert found["edges"] >= 50_000
    assert (found["right"], found["by_fold"]) == (200, 10)
    assert found["why_p95_microseconds"] < campaign.TARGET * 1e6
