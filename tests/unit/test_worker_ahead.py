"""The worker makes the next batch while the sink applies this one; nobody can tell by what stands."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest

from agent_party.eventstore.errors import PayloadError
from agent_party.eventstore.log import Log
from agent_party.eventstore.reading import Commit
from agent_party.projections.backends.graph_memory import MemoryGraph
from agent_party.projections.graph import FOLD, GraphWrite, Read
from agent_party.projections.sink import Checkpoint
from agent_party.projections.worker import Limits, Worker
from tests.faults.projecting import STREAMS, Died, a_log, truth
from tests.faults.projecting_graph import CountingNodes
from tests.unit.world import until

COMMITS, ROWS = 60, 7


class Counted(CountingNodes):
    """Says how many commits it was given; poisoned by those of one stream."""

    def __init__(self, poison: str = "") -> None:
        self.given, self.poison = 0, poison

    async def writes(self, commit: Commit, read: Read) -> Iterable[GraphWrite]:
        self.given += 1
        if commit.stream == self.poison:
            raise PayloadError("poisoned")
        return await super().writes(commit, read)


class Overlapping(MemoryGraph):
    """Applies nothing before more was made, or all was."""

    def __init__(self, projection: Counted, total: int) -> None:
        super().__init__()
        self.projection, self.total, self.overlapped = projection, total, 0
        self.dies_at = 0

    async def apply(self, *args: Any, **options: Any) -> Checkpoint | None:
        before = self.projection.given
        if before < self.total:
            await until(lambda: self.projection.given > before)
        self.overlapped += self.projection.given > before
        if self.overlapped == self.dies_at:
            raise Died("here")
        return await super().apply(*args, **options)


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    async with a_log(tmp_path, COMMITS, 1) as made:
        yield made


def total(log: Log) -> int:
    return sum(log.index.sizes().values())


async def at_once(log: Log) -> str:
    """The hash of what all commits come to in one batch."""
    graph = MemoryGraph()
    await Worker(log, CountingNodes(), graph, Limits(rows=1_000)).catch_up()
    return await graph.digest(CountingNodes())


async def sums(graph: MemoryGraph) -> dict[str, int]:
    items = await graph.items(CountingNodes(), (FOLD,), 1_000)
    return {id[1]: int(fields["state"].split()[0]) for id, fields in items if id[0] == FOLD}  # noqa: A001


async def test_the_next_batch_is_made_while_one_is_applied(log: Log) -> None:
    projection = Counted()
    graph = Overlapping(projection, total(log))
    await Worker(log, projection, graph, Limits(rows=ROWS)).catch_up()
    assert graph.overlapped >= total(log) // ROWS - 1
    assert projection.given == total(log), "a commit was made twice"
    assert await sums(graph) == truth(log)
    assert await graph.digest(CountingNodes()) == await at_once(log)


async def test_what_follows_a_batch_that_was_not_applied_is_thrown_away(log: Log) -> None:
    class Moved(Overlapping):
        """Somebody else moves the turn first, three times."""

        moves = 3

        async def apply(self, projection: Any, *args: Any, **options: Any) -> Checkpoint | None:
            if self.moves:
                self.moves -= 1
                await self.pause(projection, "")
            return await super().apply(projection, *args, **options)

    projection = Counted()
    graph = Moved(projection, 5 * ROWS)
    await Worker(log, projection, graph, Limits(rows=ROWS)).catch_up()
    assert await sums(graph) == truth(log)
    assert await graph.digest(CountingNodes()) == await at_once(log), "an edge is missing"


async def test_a_store_that_fails_leaves_nothing_running(log: Log) -> None:
    projection = Counted()
    graph = Overlapping(projection, total(log))
    graph.dies_at = 2
    with pytest.raises(Died):
        await Worker(log, projection, graph, Limits(rows=ROWS)).catch_up()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    graph.dies_at, projection.given = -1, 0
    graph.total = 0  # it goes on by itself
    await Worker(log, projection, graph, Limits(rows=ROWS)).catch_up()
    assert await sums(graph) == truth(log)


async def test_control_commits_are_not_read_for_who_has_no_use_for_them(log: Log) -> None:
    class DataOnly(Counted):
        data_only = True

    projection, graph = DataOnly(), MemoryGraph()
    worker = Worker(log, projection, graph, Limits(rows=ROWS))
    sizes = await worker.catch_up()
    assert sizes == log.index.sizes()
    assert projection.given == COMMITS == (await sums(graph))[""]
    assert await worker.caught_up()


async def test_what_is_poisoned_meanwhile_is_a_dead_letter_at_its_turn(log: Log) -> None:
    projection, graph = Counted(STREAMS[2]), MemoryGraph()
    worker = Worker(log, projection, graph, Limits(rows=ROWS))
    await worker.catch_up()
    assert [letter.stream for letter in await worker.letters()] == [STREAMS[2]]
    expected = truth(log)
    expected[""] -= expected.pop(STREAMS[2])
    assert await sums(graph) == expected
    projection.poison = ""
    await worker.replay()
    assert await sums(graph) == truth(log)
