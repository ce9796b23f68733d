"""The graph of a party: who did what with what, as of any moment, with the events behind it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .projections import blast as blasts
from .projections import questions
from .projections.graph import EdgeRow, Graph, Rows
from .projections.graph_errors import UnknownNodeError
from .projections.moments import NOW, Moment, at_commit, at_time, parsed, stream_at
from .projections.relationships import Relationships
from .projections.worker import Limits, Worker

if TYPE_CHECKING:
    from .cluster.wiring import Stack

When = str | datetime | Moment
"""A time, ``2h`` (ago), positions ``0:17,5:3``, a revision ``task/ID@4``, or ``now``; see `moments`."""
LIMITS = Limits(rows=2_000, bytes=8 << 20, seconds=1.0)
"""Of the batches that go into a graph: its stores are quick with many rows, and slow with many batches."""


class PartyGraph:
    """Opened when it is first asked, and caught up with the log each time. Whoever does not ask does not pay for it.

    Nodes are named ``kind/id`` or by an id alone. Every question raises `GraphError` for what cannot be asked, and
    `StoreError` if the store of the graph is not there: the party itself needs no graph, and goes on.
    """

    def __init__(self, stack: "Stack") -> None:
        self._stack = stack
        self._worker: Worker[Any, Any] | None = None
        self.behind = ""

    @property
    def store(self) -> Graph:
        """Where it lies; opened when it is first used."""
        return self._stack.graph

    @property
    def worker(self) -> Worker[Any, Any]:
        """What carries commits into it."""
        if self._worker is None:
            self._worker = Worker(self._stack.log, Relationships(), self.store, LIMITS)
        return self._worker

    async def ready(self) -> Graph:
        """The graph, caught up with all there is on the log; as it stands where it is paused (see `behind`)."""
        log = self._stack.log
        await log.refresh()
        sizes = await self.worker.catch_up()
        missing = sum(size - sizes.get(part, 0) for part, size in log.index.sizes().items())
        self.behind = f"the graph is paused, {missing:,} commits behind the log" if missing > 0 else ""
        return self.store

    async def moment(self, when: When) -> Moment:
        """The moment that is meant; `MomentError`."""
        if isinstance(when, Moment):
            return when
        if isinstance(when, datetime):
            return at_time(when)
        if (named := stream_at(when)) is None:
            return parsed(when, self._stack.log.ambient.now())
        stream, revision = named
        latest, last = 0, None
        async for commit in self._stack.log.read(stream, 1, revision, lenient=True):
            latest, last = max(latest, commit.time), commit
        if last is None or last.revision != revision:
            raise UnknownNodeError(f"{stream} has no revision {revision}")
        return at_commit(last.slice, last.position, latest)

    async def at(self, when: When = NOW, kinds: Sequence[str] = (), limit: int = questions.LIMIT) -> questions.Picture:
        """What there is at a moment, of these kinds of nodes and edges."""
        graph = await self.ready()
        return await questions.at(graph, await self.moment(when), kinds, limit)

    async def diff(self, before: When, after: When = NOW, limit: int = questions.LIMIT) -> questions.Difference:
        """What came, went and ended from one moment to another."""
        graph = await self.ready()
        return await questions.diff(graph, await self.moment(before), await self.moment(after), limit)

    async def why(self, node: str) -> questions.Why:
        """The chain of events from an artifact or a task back to the person who asked."""
        graph = await self.ready()
        return await questions.why(graph, await questions.found(graph, node))

    async def blast(self, node: str, since: When | None = None, limit: int = questions.LIMIT) -> questions.Blast:
        """All that an agent, an artifact or a task has reached, by what came after a moment."""
        graph = await self.ready()
        moment = None if since is None else await self.moment(since)
        return await blasts.blast(graph, await questions.found(graph, node), moment, limit)

    async def path(
        self, one: str, other: str, when: When | None = None, kinds: Sequence[str] = (), depth: int = questions.DEPTH
    ) -> list[EdgeRow] | None:
        """The shortest way from one node to another, over all edges there ever were or those at a moment; None if
        there is none so short."""
        graph = await self.ready()
        ends = await questions.found(graph, one), await questions.found(graph, other)
        moment = None if when is None else await self.moment(when)
        return await questions.path(graph, *ends, moment, kinds, depth)

    async def neighbours(
        self, node: str, when: When = NOW, kinds: Sequence[str] = (), limit: int = questions.LIMIT
    ) -> questions.Picture:
        """The edges of a node at a moment, and their other ends."""
        graph = await self.ready()
        ref = await questions.found(graph, node)
        return await questions.neighbours(graph, ref, await self.moment(when), kinds, limit)

    async def query(
        self, cypher: str, parameters: Mapping[str, Any] | None = None, limit: int = 10_000, seconds: float = 30
    ) -> Rows:
        """Ask the store itself, in its own Cypher, read-only. On Neo4j, ``$generation`` is always given."""
        graph = await self.ready()
        return await graph.query(cypher, parameters or {}, limit, seconds)
