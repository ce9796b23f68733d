"""A graph of a million edges on Neo4j, and how long `why` takes on it: python -m tests.campaigns.graph_large

python -m tests.campaigns.graph_large --edges 1000000 --asks 1000 --seed 1

The server is the one that ``PARTY_TEST_SERVICES`` names; what is in it is deleted. The chains that come
back are compared with those that were made.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import time
from collections import Counter
from pathlib import Path

import msgspec

from agent_party.actors.events import Advanced, Completed, Opened, Parent, Requested, Settled, Started
from agent_party.eventstore.artifacts import Artifact
from agent_party.eventstore.reading import Commit
from agent_party.projections.backends.graph_neo4j import Neo4jGraph
from agent_party.projections.backends.neo4j_connection import Connection
from agent_party.projections.graph import Ref
from agent_party.projections.questions import why
from tests import graph_brute as fold
from tests.campaigns import Result
from tests.graph_kit import History, emptied, project

AGENTS, PEOPLE, TOOLS, CHILDREN = 50, 200, 30, 4
BATCH = 4_000
WARMING = 20
TARGET = 0.05
"""Seconds that the 95th percentile of `why` may take."""
_NONE = msgspec.msgpack.encode({})


class Large(History):
    """Teams of a root and four children; each child uses what the one before it made, and makes an artifact."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.teams = 0

    def team(self) -> tuple[Artifact, list[tuple[str, str]]]:
        """One more team: its last artifact, and the chain from that to who asked."""
        self.teams += 1
        root, person = f"r{self.teams}", f"p{self.random.randrange(PEOPLE)}"
        self.add(f"task/{root}", Requested("report.write", _NONE, by=person))
        self._start(root)
        made: Artifact | None = None
        for number in range(CHILDREN):
            opening = self.add(f"task/{root}", Advanced(opened=[Opened(number, "child", "facts.find")]))
            child = f"{root}c{number}"
            given = msgspec.msgpack.encode({"file": made} if made else {})
            asked = Requested("facts.find", given, by=person, parent=Parent(root, number))
            self.add(f"task/{child}", asked, cause=opening)
            self._start(child)
            made = self.artifact(f"task/{child}", "facts")
            tool = f"tool{self.random.randrange(TOOLS)}"
            opened = [Opened(0, "step", tool), Opened(1, "step", "artifact facts")]
            kept = Settled(1, msgspec.msgpack.encode(made), attachments=[made.blob])
            self.add(f"task/{child}", Advanced(opened=opened), Advanced(settled=[Settled(0), kept]))
            self.add(f"task/{child}", Completed(_NONE))
        self.add(f"task/{root}", Completed(_NONE))
        assert made is not None
        steps = [(kind, f"task/{root}c{CHILDREN - 1}") for kind in ("produced", "runs", "delegated-to")]
        return made, [*steps, ("runs", f"task/{root}"), ("asked", f"task/{root}")]

    def _start(self, task: str) -> None:
        self.add(f"task/{task}", Started(f"a{self.random.randrange(AGENTS)}", "1", 1))

    def taken(self) -> list[Commit]:
        """What was added since the last time; it is not kept."""
        found, self.commits = self.commits, []
        return found


async def campaign(neo4j: str, edges: int, asks: int, seed: int, tries: int = 1, brute: int = 0) -> Counter[str]:
    """Build the graph and ask; microseconds and figures.

    ``tries``: how often each is asked, where the target is missed, which a neighbour on the machine can do; the
    quickest answer counts. ``brute``: for how many artifacts the chain is also compared with a fold of all commits,
    which are then kept in memory.
    """
    await emptied(neo4j)
    graph, large, chance = Neo4jGraph(Connection(neo4j), bytes(32)), Large(seed), random.Random(seed)
    kept: list[tuple[Artifact, list[tuple[str, str]]]] = []
    whole: list[Commit] = []
    started, made = time.perf_counter(), 0
    try:
        while made < edges:
            while len(large.commits) < BATCH:
                team = large.team()
                made += 33
                if chance.random() < 0.05 or len(kept) < 50:
                    kept.append(team)
            taken = large.taken()
            whole += taken if brute else []
            await project(graph, taken, BATCH)
            print(f"{made:,} edges, {time.perf_counter() - started:.0f} s", flush=True)
        built = time.perf_counter() - started
        wanted = [chance.choice(kept) for _ in range(asks + WARMING)]
        took = await _asked(graph, wanted)
        while tries > 1 and statistics.quantiles(took, n=100)[94] >= TARGET:
            tries -= 1
            took = [min(both) for both in zip(took, await _asked(graph, wanted), strict=True)]
        await _compared(graph, whole, chance.sample(kept, brute))
        stood = (await graph.query("MATCH ()-[e]->() RETURN count(e)", {})).rows[0][0]
    finally:
        await graph.close()
    cuts = statistics.quantiles(took, n=100)
    figures = {"why_p50": cuts[49], "why_p95": cuts[94], "why_p99": cuts[98]}
    told = {f"{name}_microseconds": round(value * 1e6) for name, value in figures.items()}
    counts = {"edges": stood, "asked": asks, "right": len(took), "seconds_to_build": round(built), "by_fold": brute}
    return Counter({**counts, **told})


async def _asked(graph: Neo4jGraph, wanted: list[tuple[Artifact, list[tuple[str, str]]]]) -> list[float]:
    took = []
    for number, (artifact, expected) in enumerate(wanted):
        before = time.perf_counter()
        told = await why(graph, Ref("artifact", artifact.blob.hex()))
        if number >= WARMING:  # the first ones compile the queries
            took.append(time.perf_counter() - before)
        assert told.complete
        assert [(edge.kind, edge.made.stream) for edge in told.chain] == expected
    return took


async def _compared(
    graph: Neo4jGraph, commits: list[Commit], kept: list[tuple[Artifact, list[tuple[str, str]]]]
) -> None:
    """The chains of some artifacts are those of a brute-force fold of the log."""
    whole = fold.Fold(commits) if kept else None
    for artifact, _ in kept:
        ref = Ref("artifact", artifact.blob.hex())
        told = await why(graph, ref)
        assert [(e.kind, e.made.stream, e.made.revision) for e in told.chain] == fold.why(commits, ref, whole)


def main(edges: int, asks: int, seed: int) -> None:
    """Run it, unless it was run."""
    result = Result(f"graph_large_{edges}", seed)
    print(f"seed {seed}: {edges:,} edges, {asks:,} questions")
    if not result.done:
        neo4j = json.loads(Path(os.environ["PARTY_TEST_SERVICES"]).read_text())["neo4j"]
        result.add(1, asyncio.run(campaign(neo4j, edges, asks, seed)))
    print(dict(result.counts))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edges", type=int, default=1_000_000)
    parser.add_argument("--asks", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    main(options.edges, options.asks, options.seed)
