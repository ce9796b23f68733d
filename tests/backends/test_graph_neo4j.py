"""What a graph in Neo4j alone promises: it is the party's own, its errors say what to do, and its door is shut."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from agent_party.eventstore.errors import StoreBusyError, StoreError, StoreReadOnlyError, WrongLogError
from agent_party.projections.backends.graph_neo4j import Neo4jGraph
from agent_party.projections.backends.neo4j_connection import Connection
from agent_party.projections.graph import Edge, Node, Ref
from agent_party.projections.graph_errors import QueryError, ReadOnlyError
from agent_party.projections.questions import at
from benchmarks.graph import graph as benchmark
from benchmarks.graph import measured
from tests.graph_kit import RELATIONSHIPS, Life, add, by_hand, emptied, place, project
from tests.services_kit import Services, entering

LOG = b"l" * 32


@contextlib.asynccontextmanager
async def opened(url: str, log: bytes = LOG) -> AsyncIterator[Neo4jGraph]:
    graph = Neo4jGraph(Connection(url), log)
    try:
        yield graph
    finally:
        await graph.close()


@pytest.fixture
async def graph(services: Services) -> AsyncIterator[Neo4jGraph]:
    await emptied(services.neo4j)
    async with opened(services.neo4j) as made:
        yield made


async def test_somebody_elses_data_is_refused_and_left_alone(services: Services) -> None:
    await emptied(services.neo4j)
    await by_hand(services.neo4j, "CREATE (:Customer {name: 'Ada'})")
    async with opened(services.neo4j) as graph:
        with pytest.raises(StoreError, match="not a party's"):
            await graph.checkpoint(RELATIONSHIPS)
        with pytest.raises(StoreError, match="not a party's"):
            await add(graph, Node("agent", "a", place()))
    assert await by_hand(services.neo4j, "MATCH (n) RETURN labels(n)") == [[["Customer"]]]
    await emptied(services.neo4j)


async def test_many_open_a_new_database_at_once(services: Services) -> None:
    await emptied(services.neo4j)
    names = [row[0] for row in await by_hand(services.neo4j, "SHOW CONSTRAINTS YIELD name")]
    await by_hand(services.neo4j, *(f"DROP CONSTRAINT {name}" for name in names if name.startswith("party_")))
    async with contextlib.AsyncExitStack() as stack:
        graphs = [await stack.enter_async_context(opened(services.neo4j)) for _ in range(4)]
        found = await asyncio.gather(*(graph.checkpoint(RELATIONSHIPS) for graph in graphs))
    assert [checkpoint.sizes for checkpoint in found] == [{}] * 4
    assert len(await by_hand(services.neo4j, "SHOW CONSTRAINTS YIELD name WHERE name STARTS WITH 'party_'")) == 13


async def test_another_partys_graph_is_refused(services: Services, graph: Neo4jGraph) -> None:
    await add(graph, Node("agent", "a", place()))
    async with opened(services.neo4j, b"m" * 32) as other:
        with pytest.raises(WrongLogError, match="another party"):
            await other.checkpoint(RELATIONSHIPS)
    assert [row.ref.id for row in (await at(graph)).nodes] == ["a"]


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (lambda url: entering(url, "neo4j:wrong-password"), StoreReadOnlyError, "PARTY_GRAPH_PASSWORD"),
        (lambda url: url.rpartition(":")[0] + ":1", StoreBusyError, "cannot be reached"),
        (lambda url: url + "/elsewhere", StoreError, "no database 'elsewhere'"),
        (lambda url: "bolt://neo4j:hidden@nobody.invalid:7687", StoreError, "nobody.invalid"),
    ],
)
async def test_what_is_wrong_with_a_url_is_said(services: Services, change: Any, kind: Any, said: str) -> None:
    url = change(services.neo4j)
    async with opened(url) as graph:
        with pytest.raises(kind, match=said) as caught:
            await graph.checkpoint(RELATIONSHIPS)
    assert str(urlsplit(url).password) not in str(caught.value)


async def test_an_emptied_database_is_begun_anew(services: Services, graph: Neo4jGraph) -> None:
    await add(graph, Node("agent", "a", place()))
    before = await graph.checkpoint(RELATIONSHIPS)
    await by_hand(services.neo4j, "MATCH (n) DETACH DELETE n")
    assert (await graph.checkpoint(RELATIONSHIPS)).sizes == {}
    assert await graph.apply(RELATIONSHIPS, before, {0: 2}, [Node("agent", "b", place())]) is None
    await add(graph, Node("agent", "c", place()))
    assert await graph.apply(RELATIONSHIPS, before, {0: 2}, [Node("agent", "b", place())]) is None
    assert [row.ref.id for row in (await at(graph)).nodes] == ["c"]


async def test_what_goes_wrong_inside_leaves_everything_as_it_was(graph: Neo4jGraph) -> None:
    await add(graph, Node("agent", "a", place()))
    before, digest = await graph.checkpoint(RELATIONSHIPS), await graph.digest(RELATIONSHIPS)
    poison = [Node("agent", "b", place()), Node("agent", "c", place(), fields={"status": {"no": object()}})]
    with pytest.raises(StoreError):
        await graph.apply(RELATIONSHIPS, before, {0: 2}, poison)
    assert await graph.digest(RELATIONSHIPS) == digest
    assert await graph.checkpoint(RELATIONSHIPS) == before


async def test_a_hand_edit_changes_the_hash(services: Services, graph: Neo4jGraph) -> None:
    await project(graph, Life(1, 40).commits)
    hashes = [await graph.digest(RELATIONSHIPS)]
    for edit in (
        "MATCH (a:Agent {id: 'writer'}) SET a.status = 'archived'",
        "MATCH (:Agent)-[r:RUNS]->(:Task) SET r.version = '9'",
        "MATCH (a:Agent {id: 'writer'}) CREATE (:Tool {id: 'planted', generation: a.generation})",
        "MATCH (:Task)-[e:CALLED_TOOL]->(:Tool) DELETE e",
        "CREATE (:Note {text: 'hello'})",
    ):
        await by_hand(services.neo4j, edit)
        hashes.append(await graph.digest(RELATIONSHIPS))
    assert len(set(hashes)) == 6


async def test_what_a_crash_left_of_a_swap_is_not_read(services: Services, graph: Neo4jGraph) -> None:
    await add(graph, Node("agent", "a", place()))
    text = (
        "CREATE (:Agent {id: 'old', generation: 'relationships live 1', made_slice: 0, made_position: 0, made_time: 0})"
    )
    await by_hand(services.neo4j, text)
    assert [row.ref.id for row in (await at(graph)).nodes] == ["a"]


@pytest.mark.parametrize(
    "query",
    [
        "CREATE (:Tool {id: 'x'})",
        "MATCH (n) DETACH DELETE n",
        "MATCH (n:Agent) SET n.status = 'x' RETURN n",
        "CREATE INDEX planted FOR (n:Agent) ON (n.status)",
        "CALL db.createLabel('Planted')",
        "LOAD CSV FROM 'file:///etc/passwd' AS line RETURN line",
        "LOAD CSV FROM 'http://127.0.0.1:1/' AS line RETURN line",
        "CALL dbms.listConfig() YIELD name RETURN name",
        "CALL dbms.listConfig() YIELD name MATCH (n) RETURN name, n",
        "MATCH (n:Agent) CALL { WITH n CALL dbms.listConnections() YIELD connectionId RETURN connectionId } RETURN n",
        "SHOW USERS",
        "ALTER CURRENT USER SET PASSWORD FROM 'a' TO 'b'",
        "CALL { CREATE (:Tool) } IN TRANSACTIONS",
        "FOREACH (x IN [1] | CREATE (:Tool))",
    ],
)
async def test_the_door_is_shut(graph: Neo4jGraph, query: str) -> None:
    await add(graph, Node("agent", "a", place()), Edge("runs", Ref("agent", "a"), Ref("task", "t"), "1", place()))
    digest = await graph.digest(RELATIONSHIPS)
    with pytest.raises(ReadOnlyError):
        await graph.query(query, {})
    assert await graph.digest(RELATIONSHIPS) == digest


async def test_what_cannot_be_explained_is_not_run(graph: Neo4jGraph) -> None:
    digest = await graph.digest(RELATIONSHIPS)
    with pytest.raises(QueryError, match="conflicting"):
        await graph.query("PROFILE CREATE (:Tool)", {})
    assert await graph.digest(RELATIONSHIPS) == digest


async def test_the_server_is_not_sent_to_fetch_anything(graph: Neo4jGraph) -> None:
    came: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(await reader.readline())
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\na,b\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ReadOnlyError, match="a file or an address"):
            await graph.query(f"LOAD CSV FROM 'http://127.0.0.1:{port}/planted' AS line RETURN line", {})
    assert came == []


async def test_even_past_the_plan_the_server_refuses(graph: Neo4jGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_party.projections.backends.neo4j_door._refuse", lambda kind, plan: None)
    await add(graph, Node("agent", "a", place()))
    with pytest.raises(ReadOnlyError):
        await graph.query("CREATE (:Tool {id: 'x'})", {})
    assert len((await at(graph)).nodes) == 1


async def test_the_door_lets_reading_through(graph: Neo4jGraph) -> None:
    await add(graph, Node("agent", "it's", place()), Edge("runs", Ref("agent", "it's"), Ref("task", "t"), "1", place()))
    text = "MATCH p = (a:Agent {id: $name, generation: $generation})-[r]->(t) RETURN a, r, p, [1, {x: date()}], t.id"
    found = await graph.query(text, {"name": "it's"})
    assert (found.rows[0][0]["labels"], found.rows[0][1]["type"], found.rows[0][4]) == (["Agent"], "RUNS", "t")
    some = await graph.query("UNWIND range(1, 9) AS n RETURN n", {}, limit=3)
    assert (some.rows, some.more) == ([[1], [2], [3]], True)
    assert (await graph.query("CALL db.labels() YIELD label RETURN count(label) > 0", {})).rows == [[True]]
    for wrong in ("MATCH nonsense", "RETURN $missing"):
        with pytest.raises(QueryError):
            await graph.query(wrong, {})
    with pytest.raises(StoreBusyError, match="ask for less"):
        await graph.query("UNWIND range(1, 100000) AS a UNWIND range(1, 100000) AS b RETURN sum(a * b)", {}, seconds=1)


async def test_the_benchmark_runs_and_verifies_its_graph(graph: Neo4jGraph, services: Services) -> None:
    figures = await measured(services.neo4j, 20, 1)
    assert all(min(figure.values) > 0 for figure in figures)


async def test_the_benchmark_wants_a_server_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PARTY_GRAPH", raising=False)
    with pytest.raises(SystemExit, match="PARTY_GRAPH"):
        await benchmark(True)
