"""Projecting a log into a graph, beside bare UNWINDs of the same rows into the same Neo4j.

    PARTY_GRAPH=bolt://neo4j:password@127.0.0.1:7687 python -m benchmarks graph

The worker reads the log, decrypts, projects, and writes with its checkpoint; the bare side sends the rows of the same
batches, made beforehand, with the same constraints there. Between the two, the sink is given batches made beforehand:
it compares the turn, writes, and moves the checkpoint. What is in the database is deleted. Each round ends with both
graphs equal by hash to one in memory.
"""

import asyncio
import gc
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from agent_party.actors.events import CORE, Advanced, Completed, Opened, Requested, Settled, Started
from agent_party.eventstore.artifacts import Artifact
from agent_party.eventstore.backends.blob_memory import MemoryBlobs
from agent_party.eventstore.backends.sqlite import SqliteTape
from agent_party.eventstore.codec import Codec
from agent_party.eventstore.founding import open_log
from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.keyring import Keyring
from agent_party.eventstore.log import Log
from agent_party.eventstore.verify import sha256
from agent_party.graph import LIMITS
from agent_party.projections.backends.graph_cypher import Cypher
from agent_party.projections.backends.graph_memory import MemoryGraph
from agent_party.projections.backends.graph_neo4j import Neo4jDialect, Neo4jGraph
from agent_party.projections.backends.neo4j_connection import Connection
from agent_party.projections.graph import Changes, GraphWrite
from agent_party.projections.relationships import Relationships
from agent_party.projections.sink import Checkpoint, Letters, Named, Sizes
from agent_party.projections.worker import Worker

from .measure import Clock, Figure, Report, in_turns, ratios

PART, RELATIONSHIPS, _NO = "graph", Relationships(), dict[str, Any]()
_EMPTY = "MATCH (n) CALL (n) { DETACH DELETE n } IN TRANSACTIONS OF 5000 ROWS"


async def filled(folder: Path, tasks: int) -> Log:
    """A log of so many tasks, each with a tool's call and an artifact."""
    log = await open_log(
        SqliteTape(folder / "log.db"), Keyring(folder / "state"), journal="sqlite:///benchmark/log.db",
        index=folder / "index.db", blobs=MemoryBlobs(), codec=Codec(CORE),
    )  # fmt: skip
    issuer, nothing = Issuer(log), msgspec.msgpack.encode({})

    async def one(number: int) -> None:
        stream = f"task/t{number}"
        writer = await issuer.writer(stream)
        made = Artifact("text", sha256(stream.encode()), 4, stream, bytes(16), bytes(32))
        kept = Settled(1, msgspec.msgpack.encode(made))
        opened = [Opened(0, "step", f"tool{number % 20}"), Opened(1, "step", "artifact text")]
        steps: list[Any] = [
            Requested("text.write", nothing, by=f"p{number % 50}"),
            Started(f"a{number % 10}", "1", 1),
            Advanced(opened=opened),
            Advanced(settled=[Settled(0), kept]),
            Completed(nothing),
        ]
        for revision, step in enumerate(steps):
            await log.append(writer, [step], expected=revision)

    for start in range(0, tasks, 100):
        await asyncio.gather(*(one(number) for number in range(start, min(start + 100, tasks))))
    await log.refresh()
    return log


class Recording(MemoryGraph):
    """Keeps each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.applied: list[tuple[Sizes, Changes]] = []

    async def apply(
        self, projection: Named, before: Checkpoint, after: Sizes, writes: Iterable[GraphWrite], letters: Letters = _NO
    ) -> Checkpoint | None:
        self.applied.append((after, Changes.of(writes)))
        return await super().apply(projection, before, after, writes, letters)


async def measured(url: str, tasks: int, rounds: int) -> list[Figure]:
    """Rows a second, ours and bare, in turns."""
    import neo4j

    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        log, recorded = await filled(Path(name), tasks), Recording()
        await Worker(log, RELATIONSHIPS, recorded, LIMITS).catch_up()
        expected = await recorded.digest(RELATIONSHIPS)
        batches = [list(Cypher(Neo4jDialect()).writes(changes)) for _, changes in recorded.applied]
        rows = sum(len(rows) for batch in batches for _, rows in batch)
        connection = Connection(url)
        login = (connection._user, connection._password)
        async with neo4j.AsyncGraphDatabase.driver(connection.shown, auth=login) as driver:

            async def emptied() -> None:
                async with driver.session() as session:
                    await (await session.run(_EMPTY)).consume()

            async def projected(fill: Callable[[Neo4jGraph], Awaitable[Any]]) -> float:
                await emptied()
                graph = Neo4jGraph(Connection(url), log.identity.log_id)
                await graph.checkpoint(RELATIONSHIPS)
                with Clock() as clock:
                    await fill(graph)
                assert await graph.digest(RELATIONSHIPS) == expected
                await graph.close()
                return rows / clock.wall

            async def ours() -> float:
                return await projected(lambda graph: Worker(log, RELATIONSHIPS, graph, LIMITS).catch_up())

            async def applied(graph: Neo4jGraph) -> None:
                now = await graph.checkpoint(RELATIONSHIPS)
                for after, changes in recorded.applied:
                    stands = await graph.apply(RELATIONSHIPS, now, after, changes)
                    assert stands
                    now = stands

            async def sink() -> float:
                return await projected(applied)

            async def bare() -> float:
                await emptied()
                with Clock() as clock:
                    for batch in batches:
                        async with driver.session() as session, await session.begin_transaction() as tx:
                            for text, given in batch:
                                await (await tx.run(text, rows=given, generation="bare")).consume()
                            await tx.commit()
                return rows / clock.wall

            await ours()  # which makes the constraints, and has the server know the statements
            await sink()
            await bare()
            gc.collect()
            gc.freeze()  # the rows made beforehand are nothing that a worker's collector would look through
            values = await in_turns(rounds, {"ours": ours, "sink": sink, "bare": bare})
            gc.unfreeze()
            await emptied()
        await log.close()
    ratio = ratios(values["ours"], values["bare"])
    return [
        Figure(PART, "projecting to Neo4j / bare UNWIND of the same rows", "x", ratio, least=0.8),
        Figure(PART, "the sink's part alone / bare UNWIND", "x", ratios(values["sink"], values["bare"]), least=0.8),
        Figure(PART, "projecting to Neo4j", "rows/s", values["ours"]),
        Figure(PART, "the sink's part alone", "rows/s", values["sink"]),
        Figure(PART, "bare UNWIND", "rows/s", values["bare"]),
    ]  # fmt: skip


async def graph(quick: bool) -> Report:
    """See this module."""
    if not (url := os.environ.get("PARTY_GRAPH")):
        sys.exit("graph needs a Neo4j whose data may be deleted: set PARTY_GRAPH=bolt://neo4j:password@host:port")
    figures = await measured(url, 100 if quick else 2_000, 1 if quick else 9)
    return Report(figures, "each round's graph equal by hash to one in memory")
