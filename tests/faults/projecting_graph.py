"""The sinks of graphs as subjects of `projecting`. A graph has no adding: what counts reads what stands, and sets one
more, which counts twice just the same where a batch is applied twice."""

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from agent_party.eventstore.reading import Commit
from agent_party.projections.backends import graph_ladybug
from agent_party.projections.backends.graph_ladybug import LadybugGraph
from agent_party.projections.backends.graph_neo4j import Neo4jGraph
from agent_party.projections.backends.neo4j_connection import Connection
from agent_party.projections.graph import FOLD, Edge, Graph, GraphWrite, Node, Place, Read, Ref
from agent_party.projections.sink import Projection
from tests.faults.projecting import STREAMS, Subject, dying_at
from tests.graph_kit import by_hand, emptied


class CountingNodes:
    """One more for the stream and one more in all, with each commit; and an edge, so that there is more to tear."""

    name = "relationships"
    version = 1

    async def writes(self, commit: Commit, read: Read) -> Iterable[GraphWrite]:
        writes: list[GraphWrite] = []
        for name in (commit.stream, ""):
            count, last = (int(part) for part in (await read(name) or "0 0").split())
            assert not name or not commit.revision or commit.revision == last + 1, "a stream was projected with gaps"
            last = commit.revision or last
            writes.append(Node(FOLD, name, fields={"state": f"{count + 1} {last}"}))
        place = Place(
            commit.slice, commit.position, commit.time, commit.stream, commit.revision, commit.hash.hex(), "e"
        )
        ends = Ref("agent", commit.stream), Ref("task", f"{commit.stream}{commit.revision % 3}")
        return [*writes, Edge("runs", *ends, str(commit.revision), place)]


class OfGraphs:
    """What the subjects that are graphs share."""

    def projection(self) -> Projection[Any, Any]:
        return CountingNodes()

    async def sums(self, sink: Any) -> dict[str, int]:
        graph: Graph = sink
        while True:  # what is read between two looks at the same turn is of one moment
            before = await graph.checkpoint(CountingNodes())
            items = await graph.items(CountingNodes(), (FOLD,), 1_000)
            if (await graph.checkpoint(CountingNodes())).turn == before.turn:
                return {id[1]: int(f["state"].split()[0]) for id, f in items if id[0] == FOLD}  # noqa: A001


class Ladybug(OfGraphs):
    """Two files."""

    name = "ladybug"

    def open(self, folder: Path) -> Any:
        return LadybugGraph(folder / "graph", b"log")

    def dying_inside(self, sink: Any) -> contextlib.AbstractContextManager[None]:
        return dying_at(graph_ladybug, "_write_row", after=True)

    def dying_inside_swap(self, sink: Any) -> contextlib.AbstractContextManager[None]:
        return dying_at(graph_ladybug, "_write_row", after=True)

    async def edit(self, sink: Any) -> None:
        def work(connection: Any) -> None:
            connection.execute("MATCH (n:Fold {id: $id}) SET n.state = '99 1'", {"id": STREAMS[0]})

        await sink._write(CountingNodes.name, work)

    async def forget(self, folder: Path) -> None:
        return


class Neo4j(OfGraphs):
    """The server that the tests share; it has one database, which is emptied before each use."""

    name = "neo4j"

    def __init__(self, url: str) -> None:
        self.url = url

    def open(self, folder: Path) -> Any:
        return Neo4jGraph(Connection(self.url), b"log")

    def dying_inside(self, sink: Any) -> contextlib.AbstractContextManager[None]:
        return dying_at(sink, "_moved", after=True)

    def dying_inside_swap(self, sink: Any) -> contextlib.AbstractContextManager[None]:
        return dying_at(sink, "_moved", after=True)

    async def edit(self, sink: Any) -> None:
        await by_hand(self.url, f"MATCH (n:Fold {{id: '{STREAMS[0]}'}}) SET n.state = '99 1'")

    async def forget(self, folder: Path) -> None:
        await emptied(self.url)


def graphs(neo4j: str = "") -> dict[str, Subject]:
    """Every graph that can be put to the test here, by name."""
    made: list[Subject] = [Ladybug()]
    if neo4j:
        made.append(Neo4j(neo4j))
    return {one.name: one for one in made}
