"""The contract of a graph, over every implementation."""

import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent_party.projections.backends.graph_ladybug import LadybugGraph
from agent_party.projections.backends.graph_memory import MemoryGraph
from agent_party.projections.backends.graph_neo4j import Neo4jGraph
from agent_party.projections.backends.neo4j_connection import Connection
from agent_party.projections.blast import blast
from agent_party.projections.graph import FOLD, Edge, End, Graph, Node, Ref
from agent_party.projections.moments import NOW, Moment
from agent_party.projections.questions import at, diff, found, neighbours, path, why
from agent_party.projections.sink import Checkpoint, Letter
from tests.graph_kit import RELATIONSHIPS, SLICES, Life, add, emptied, moments, place, project
from tests.services_kit import Services

LOG = b"l" * 32
ODD = ("it's", 'say "x"', "`tick`", "a/b c", "}) DETACH DELETE n //", "\\", "ünï😀", "\U0010ffff", "$name", "x" * 300)


class Other:
    """A projection of another name or version."""

    def __init__(self, name: str = "relationships", version: int = 1) -> None:
        self.name, self.version = name, version


@contextlib.asynccontextmanager
async def opened(kind: str, folder: Path, request: pytest.FixtureRequest) -> AsyncIterator[Graph]:
    """An empty graph."""
    if kind == "neo4j":
        services: Services = request.getfixturevalue("services")
        connection = Connection(services.neo4j)
        await emptied(services.neo4j)
        made: Graph = Neo4jGraph(connection, LOG)
    else:
        made = MemoryGraph() if kind == "memory" else LadybugGraph(folder / "graph", LOG)
    yield made
    await made.close()


@pytest.fixture(params=["memory", "ladybug", "neo4j"])
async def graph(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Graph]:
    async with opened(request.param, tmp_path, request) as made:
        yield made


# The sink


async def test_a_checkpoint_moves_with_its_writes(graph: Graph) -> None:
    nothing = await graph.checkpoint(RELATIONSHIPS)
    assert (nothing.sizes, nothing.version, nothing.paused) == ({}, 0, "")
    one = await graph.apply(RELATIONSHIPS, nothing, {0: 3, 5: 1}, [Node("agent", "a", place())])
    assert one is not None
    assert one == await graph.checkpoint(RELATIONSHIPS)
    assert (one.sizes, one.version) == ({0: 3, 5: 1}, RELATIONSHIPS.version)
    assert await graph.apply(RELATIONSHIPS, nothing, {0: 9}, [Node("agent", "b", place())]) is None
    assert await graph.apply(RELATIONSHIPS, one._replace(turn=one.turn + 1), {0: 9}, []) is None
    assert [row.ref.id for row in (await at(graph)).nodes] == ["a"]
    assert await graph.checkpoint(RELATIONSHIPS) == one
    assert await graph.projections() == ["relationships"]


async def test_what_stood_at_an_empty_checkpoint_goes(graph: Graph) -> None:
    edge = Edge("runs", Ref("agent", "a"), Ref("task", "t"), "1", place())
    old = await add(graph, Node("agent", "a", place()), edge, letters={"task/x": LETTER})
    digest = await graph.digest(RELATIONSHIPS)
    moved = await graph.apply(RELATIONSHIPS, old._replace(sizes={}), {0: 1}, [Node("agent", "b", place())])
    assert moved is not None
    assert [row.ref.id for row in (await at(graph)).nodes] == ["b"]
    assert await graph.letters(RELATIONSHIPS) == {}
    await graph.drop(RELATIONSHIPS)
    gone = await graph.checkpoint(RELATIONSHIPS)
    assert (gone.sizes, gone.version) == ({}, 0)
    assert gone.turn not in (old.turn, moved.turn)
    assert (await at(graph)).nodes == []
    await add(graph, Node("agent", "a", place()), edge, letters={"task/x": LETTER})
    assert await graph.digest(RELATIONSHIPS) == digest


LETTER = Letter("task/x", 3, 1, 7, "ab" * 32, "ValueError")


async def test_dead_letters_and_pauses(graph: Graph) -> None:
    await add(graph, letters={"task/x": LETTER, "task/y": LETTER._replace(stream="task/y")})
    assert await graph.letters(RELATIONSHIPS) == {"task/x": LETTER, "task/y": LETTER._replace(stream="task/y")}
    with_both = await graph.digest(RELATIONSHIPS)
    kept = await add(graph, letters={"task/y": None}, sizes={0: 1})
    assert await graph.letters(RELATIONSHIPS) == {"task/x": LETTER}
    assert await graph.digest(RELATIONSHIPS) != with_both
    await graph.pause(RELATIONSHIPS, "by ada")
    paused = await graph.checkpoint(RELATIONSHIPS)
    assert (paused.sizes, paused.paused) == (kept.sizes, "by ada")
    assert await graph.apply(RELATIONSHIPS, kept, {0: 2}, []) is None
    await graph.pause(RELATIONSHIPS, "")
    assert (await graph.checkpoint(RELATIONSHIPS)).paused == ""


async def test_what_is_remembered_of_streams_is_read_ahead(graph: Graph) -> None:
    await add(graph, Node(FOLD, "task/a", fields={"state": "1"}))
    ahead = graph.ahead(RELATIONSHIPS, await graph.checkpoint(RELATIONSHIPS))
    assert (await ahead.read("task/a"), await ahead.read("task/b")) == ("1", "")
    ahead.add([Node(FOLD, "task/a", fields={"state": "2"}), Node(FOLD, "task/b", fields={"state": "3"})])
    assert (await ahead.read("task/a"), await ahead.read("task/b")) == ("2", "3")
    assert await graph.ahead(RELATIONSHIPS, Checkpoint()).read("task/a") == ""
    following = ahead.following()  # whether this batch is applied or not
    assert following is not None
    assert (await following.read("task/a"), await following.read("task/b")) == ("2", "3")
    await add(graph, Node(FOLD, "task/a", fields={"state": "2"}))
    assert await graph.ahead(RELATIONSHIPS, await graph.checkpoint(RELATIONSHIPS)).read("task/a") == "2"


async def test_a_rebuild_stands_beside_and_is_swapped(graph: Graph) -> None:
    live = await add(graph, Node("agent", "old", place()), letters={"task/x": LETTER})
    beside = graph.beside()
    assert (await beside.checkpoint(RELATIONSHIPS)).sizes == {}
    made = await add(
        beside, Node("agent", "new", place()), Edge("runs", Ref("agent", "new"), Ref("task", "t"), "1", place())
    )
    assert [row.ref.id for row in (await at(graph)).nodes] == ["old"]
    digest = await beside.digest(RELATIONSHIPS)
    for wrong in ((live._replace(turn=live.turn + 1), made), (live, made._replace(turn=made.turn + 1))):
        assert not await graph.swap(RELATIONSHIPS, *wrong)
    assert await graph.swap(RELATIONSHIPS, live, made)
    assert [row.ref.id for row in (await at(graph)).nodes] == ["new", "t"]
    assert await graph.digest(RELATIONSHIPS) == digest
    assert await graph.letters(RELATIONSHIPS) == {}
    assert not await graph.swap(RELATIONSHIPS, live, made)
    now = await graph.checkpoint(RELATIONSHIPS)
    assert now.sizes == made.sizes
    assert now.turn not in (live.turn, made.turn)
    assert (await graph.beside().checkpoint(RELATIONSHIPS)).sizes == {}
    await add(graph, Node("agent", "more", place()))


async def test_an_edge_is_made_once_and_ended_once(graph: Graph) -> None:
    ends = Ref("agent", "a"), Ref("task", "t")
    await add(graph, Edge("runs", *ends, "1", place(1), version="7"), Edge("runs", *ends, "2", place(2), since=4))
    await add(graph, Edge("runs", *ends, "1", place(9)), End("runs", *ends, "1", place(3)))
    await add(graph, End("runs", *ends, "1", place(4)), End("runs", *ends, "3", place(4)))
    one, two = await graph.edges([ends[1]])
    assert (one.made, one.ended, one.version, one.since) == (place(1), place(3), "7", 0)
    assert (two.made, two.ended, two.version, two.since) == (place(2), None, "", 4)
    assert await graph.edges([ends[1]], when=NOW) == [two]
    assert [edge.key for edge in await graph.edges([ends[0]], when=Moment({0: 3}))] == ["1", "2"]
    assert [edge.key for edge in await graph.edges([ends[0]], "out", ("runs",), Moment({}, 1_001))] == ["1"]
    assert await graph.edges([ends[0]], "in") == []
    assert await graph.edges([ends[0]], "out", ("used",)) == []
    assert await graph.nodes([Ref("task", "none"), ends[1]]) == [await node(graph, ends[1])]


async def node(graph: Graph, ref: Ref) -> Any:
    return (await graph.nodes([ref]))[0]


async def test_the_items_are_what_the_digest_covers(graph: Graph) -> None:
    await project(graph, Life(5, 60).commits)
    await add(graph, letters={"task/x": LETTER}, sizes=(await graph.checkpoint(RELATIONSHIPS)).sizes)
    whole = await graph.items(RELATIONSHIPS, limit=100_000)
    assert [identity for identity, _ in whole] == sorted(identity for identity, _ in whole)
    assert whole[-1][0] == ("~letter", "task/x")
    paged: list[Any] = []
    while page := await graph.items(RELATIONSHIPS, paged[-1][0] if paged else (), 7):
        paged += page
    assert paged == whole


# What is asked


async def test_the_answers_are_those_of_the_reference(graph: Graph) -> None:
    chance, life, memory = random.Random(1), Life(1, 70), MemoryGraph()
    await project(memory, life.commits)
    await project(graph, life.shuffled(chance), chance.choice([20, 1_000]))
    assert await graph.digest(RELATIONSHIPS) == await memory.digest(RELATIONSHIPS)
    refs = [row.ref for row in (await at(memory)).nodes]
    asked = moments(life, chance, 1)
    for when in asked:
        assert await at(graph, when) == await at(memory, when)
        assert await at(graph, when, ("task", "runs"), 5) == await at(memory, when, ("task", "runs"), 5)
        assert await diff(graph, when, asked[-1]) == await diff(memory, when, asked[-1])
        assert await graph.touched(refs, when) == await memory.touched(refs, when)
        one, other = chance.choice(refs), chance.choice(refs)
        assert await path(graph, one, other, when) == await path(memory, one, other, when)
        assert await neighbours(graph, one, when) == await neighbours(memory, one, when)
        assert await neighbours(graph, one, when, limit=2) == await neighbours(memory, one, when, limit=2)
    for artifact in life.made[:6]:
        ref = Ref("artifact", artifact.blob.hex())
        assert await why(graph, ref) == await why(memory, ref)
        for since in (None, asked[-1]):
            assert await blast(graph, ref, since) == await blast(memory, ref, since)
        assert await found(graph, ref.id[:12]) == ref
    for agent in life.agents:
        assert await blast(graph, Ref("agent", agent)) == await blast(memory, Ref("agent", agent))


async def test_names_are_nothing_but_names(graph: Graph) -> None:
    memory = MemoryGraph()
    writes = [Edge("called-tool", Ref("task", name), Ref("tool", other), "", place()) for name in ODD for other in ODD]
    for one in (graph, memory):
        await add(one, *writes, *(Node("agent", name, place(), fields={}) for name in ODD), sizes={SLICES: 1})
    assert await graph.digest(RELATIONSHIPS) == await memory.digest(RELATIONSHIPS)
    assert await at(graph) == await at(memory)
    for name in ODD:
        assert await found(graph, f"tool/{name}") == Ref("tool", name)
        assert len((await neighbours(graph, Ref("tool", name))).edges) == len(ODD)


async def test_another_projection_keeps_to_itself(graph: Graph) -> None:
    mine = await add(graph, Node("agent", "a", place()))
    other, nothing = Other("other"), await graph.checkpoint(Other("other"))
    assert nothing.sizes == {}
    assert await graph.apply(other, nothing, {0: 1}, [Node("agent", "b", place())])
    assert await graph.checkpoint(RELATIONSHIPS) == mine
    assert await graph.projections() == ["other", "relationships"]
    await graph.drop(other)
    assert await graph.projections() == ["relationships"]
