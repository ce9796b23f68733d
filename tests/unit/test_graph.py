"""The graph's answers agree with a brute-force fold of the log, on random histories read in any order."""

import itertools
import random
from collections.abc import Iterable

import pytest

from agent_party.projections.backends.graph_memory import MemoryGraph
from agent_party.projections.blast import blast
from agent_party.projections.graph import Changes, EdgeRow, GraphWrite, NodeRow, Ref
from agent_party.projections.questions import at, diff, why
from agent_party.projections.sink import Checkpoint
from tests import graph_brute as brute
from tests.graph_kit import RELATIONSHIPS, Life, moments, project


def edges(rows: Iterable[EdgeRow]) -> set[brute.Fact]:
    return {(row.kind, row.source, row.target, row.made.commit) for row in rows}


def nodes(rows: Iterable[NodeRow]) -> dict[Ref, str]:
    return {row.ref: row.fields.get("status", "") for row in rows}


async def graph_of(life: Life, chance: random.Random) -> MemoryGraph:
    graph = MemoryGraph()
    await project(graph, life.shuffled(chance), chance.choice([1, 7, 1_000]))
    return graph


@pytest.mark.parametrize("seed", range(12))
async def test_at_and_diff(seed: int) -> None:
    chance, life = random.Random(seed), Life(seed)
    graph, asked = await graph_of(life, chance), moments(life, chance, 4)
    for when in asked:
        picture, fold = await at(graph, when, limit=100_000), brute.Fold(brute.before(life.commits, when))
        assert edges(picture.edges) == fold.edges
        assert nodes(picture.nodes) == fold.nodes
    for one, other in itertools.pairwise(asked):
        told = await diff(graph, one, other, 100_000)
        was, now = (brute.Fold(brute.before(life.commits, when)) for when in (one, other))
        assert edges(told.came.edges) == now.edges - was.edges
        assert edges(told.went.edges) == was.edges - now.edges
        assert set(nodes(told.came.nodes)) == now.nodes.keys() - was.nodes.keys()
        assert set(nodes(told.went.nodes)) == was.nodes.keys() - now.nodes.keys()
        assert nodes(told.ended) == {
            ref: now.nodes[ref] for ref in now.ended.keys() & was.own.keys() - was.ended.keys()
        }


@pytest.mark.parametrize("seed", range(12))
async def test_why(seed: int) -> None:
    life = Life(seed, 150)
    graph = await graph_of(life, random.Random(seed))
    for artifact in life.made:
        ref = Ref("artifact", artifact.blob.hex())
        told = await why(graph, ref)
        assert [(e.kind, e.made.stream, e.made.revision) for e in told.chain] == brute.why(life.commits, ref)
        assert told.complete


@pytest.mark.parametrize("seed", range(12))
async def test_blast(seed: int) -> None:
    chance, life = random.Random(seed), Life(seed, 150)
    graph = await graph_of(life, chance)
    refs = [Ref("artifact", made.blob.hex()) for made in life.made] + [Ref("agent", name) for name in life.agents]
    for ref in [*refs, *(Ref("task", task) for task in life.tasks)]:
        for since in (None, *moments(life, chance, 1)[1:]):
            told = await blast(graph, ref, since, 100_000)
            assert {one.ref for one in told.reached} == brute.blast(life.commits, ref, since), (ref, since)


@pytest.mark.parametrize("life_seed", [7, 9])
async def test_the_order_in_which_slices_are_read_changes_nothing(life_seed: int) -> None:
    life, hashes = Life(life_seed, 300), set[str]()
    for seed in range(10):
        hashes.add(await (await graph_of(life, random.Random(seed))).digest(RELATIONSHIPS))
    assert len(hashes) == 1


@pytest.mark.parametrize("seed", range(6))
async def test_what_a_batch_comes_to_gives_writes_that_come_to_the_same(seed: int) -> None:
    life, graph = Life(seed, 200), MemoryGraph()
    ahead = graph.ahead(RELATIONSHIPS, Checkpoint())
    given: list[GraphWrite] = []
    for commit in life.commits:
        given += ahead.add(await RELATIONSHIPS.writes(commit, ahead.read))
    plain, kept = Changes(given), Changes.of(ahead.writes)
    assert kept is ahead.writes
    for one in (kept, Changes(list(kept))):
        assert plain.edges
        assert (one.edges, one.ends) == (plain.edges, plain.ends)
        assert one.nodes == plain.nodes


async def test_no_payload_is_in_it() -> None:
    graph = await graph_of(Life(3, 300), random.Random(3))
    assert "secret" not in repr([(side.nodes, side.edges) for side in graph._sides.values()])
