"""A graph in memory: the reference."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...eventstore.errors import StoreError
from ..graph import (
    FOLD,
    MOST,
    Changes,
    EdgeRow,
    GraphWrite,
    NodeRow,
    Read,
    Ref,
    Rows,
    StatesAhead,
    Way,
    edge_row,
    node_row,
    place_in,
)
from ..graph_digest import digest_of
from ..moments import Moment
from ..sink import Ahead, Checkpoint, Id, Letter, Letters, Named, Sizes

_NO: Letters = {}
EdgeId = tuple[str, Ref, Ref, str]


class _Side:
    """What was projected: nodes by ref, edges by what they are, and the ids of the edges at each node."""

    def __init__(self) -> None:
        self.nodes: dict[Ref, dict[str, Any]] = {}
        self.edges: dict[EdgeId, dict[str, Any]] = {}
        self.at: dict[Ref, set[EdgeId]] = defaultdict(set)
        self.letters: dict[str, Letter] = {}


class MemoryGraph:
    """Lives as long as the object."""

    def __init__(self) -> None:
        self._sides: dict[str, _Side] = {}
        self._checkpoints: dict[str, Checkpoint] = {}
        self._beside: MemoryGraph | None = None

    # The sink

    async def checkpoint(self, projection: Named) -> Checkpoint:
        return self._checkpoints.get(projection.name, Checkpoint())

    async def apply(
        self,
        projection: Named,
        before: Checkpoint,
        after: Sizes,
        writes: Iterable[GraphWrite],
        letters: Letters = _NO,
    ) -> Checkpoint | None:
        changes = Changes.of(writes)
        if (now := await self.checkpoint(projection)).turn != before.turn:
            return None
        side = self._sides.get(projection.name) if before.sizes else None
        if side is None:
            side = self._sides[projection.name] = _Side()
        _apply(side, changes)
        side.letters |= {stream: letter for stream, letter in letters.items() if letter}
        for stream in [stream for stream, letter in letters.items() if letter is None]:
            side.letters.pop(stream, None)
        self._checkpoints[projection.name] = Checkpoint(dict(after), now.turn + 1, projection.version, now.paused)
        return self._checkpoints[projection.name]

    def ahead(self, projection: Named, before: Checkpoint) -> Ahead[GraphWrite, Read]:
        async def load(streams: Sequence[str]) -> Mapping[str, str]:
            nodes = self._sides[projection.name].nodes if projection.name in self._sides else {}
            return {stream: nodes[FOLD, stream]["state"] for stream in streams if (FOLD, stream) in nodes}  # type: ignore[index]

        return StatesAhead(load, empty=not before.sizes)

    async def letters(self, projection: Named) -> dict[str, Letter]:
        return dict(self._sides.get(projection.name, _Side()).letters)

    async def digest(self, projection: Named) -> str:
        return await digest_of(self, projection)

    async def items(self, projection: Named, after: Id = (), limit: int = 1_000) -> list[tuple[Id, Any]]:
        side = self._sides.get(projection.name, _Side())
        found: list[tuple[Id, Any]] = [(tuple(ref), fields) for ref, fields in side.nodes.items()]
        found += [((*source, kind, *target, key), f) for (kind, source, target, key), f in side.edges.items()]
        found += [(("~letter", stream), letter._asdict()) for stream, letter in side.letters.items()]
        return sorted((item for item in found if item[0] > after), key=lambda item: item[0])[:limit]

    async def drop(self, projection: Named) -> None:
        now = await self.checkpoint(projection)
        self._sides.pop(projection.name, None)
        self._checkpoints[projection.name] = Checkpoint({}, now.turn + 1, 0, now.paused)

    async def pause(self, projection: Named, reason: str) -> None:
        now = await self.checkpoint(projection)
        self._checkpoints[projection.name] = now._replace(turn=now.turn + 1, paused=reason)

    def beside(self) -> "MemoryGraph":
        self._beside = self._beside or MemoryGraph()
        return self._beside

    async def swap(self, projection: Named, live: Checkpoint, scratch: Checkpoint) -> bool:
        other, name, now = self.beside(), projection.name, await self.checkpoint(projection)
        if now.turn != live.turn or (await other.checkpoint(projection)).turn != scratch.turn:
            return False
        self._sides[name] = other._sides.pop(name, _Side())
        self._checkpoints[name] = scratch._replace(turn=now.turn + 1, paused=now.paused)
        other._checkpoints[name] = Checkpoint({}, scratch.turn + 1)
        return True

    async def projections(self) -> list[str]:
        return sorted(name for name, kept in self._checkpoints.items() if kept.sizes)

    async def close(self) -> None:
        return

    # What is asked

    @property
    def _live(self) -> Iterable[_Side]:
        return self._sides.values()

    async def nodes(self, refs: Sequence[Ref]) -> list[NodeRow]:
        return [node_row(ref, side.nodes[ref]) for ref in sorted(set(refs)) for side in self._live if ref in side.nodes]

    async def edges(
        self, refs: Sequence[Ref], way: Way = "both", kinds: Sequence[str] = (), when: Moment | None = None,
        limit: int = MOST,
    ) -> list[EdgeRow]:  # fmt: skip
        wanted, found = set(refs), set[EdgeRow]()
        for side in self._live:
            for edge in {edge for ref in wanted for edge in side.at.get(ref, ())}:
                kind, source, target, _ = edge
                meant = (way != "in" and source in wanted) or (way != "out" and target in wanted)
                if meant and (not kinds or kind in kinds) and (when is None or there(side.edges[edge], when)):
                    found.add(edge_row(*edge, side.edges[edge]))
        return sorted(found, key=lambda row: row.id)[:limit]

    async def scan(
        self, when: Moment, but_not: Moment | None = None, kinds: Sequence[str] = (), limit: int = MOST
    ) -> tuple[list[NodeRow], list[EdgeRow]]:
        nodes = [
            node_row(ref, fields)
            for side in self._live
            for ref, fields in side.nodes.items()
            if ref.kind != FOLD and (not kinds or ref.kind in kinds) and told(fields, when, but_not)
        ]
        edges = [
            edge_row(*edge, fields)
            for side in self._live
            for edge, fields in side.edges.items()
            if (not kinds or edge[0] in kinds) and there(fields, when) and not (but_not and there(fields, but_not))
        ]
        return sorted(nodes)[:limit], sorted(edges, key=lambda row: row.id)[:limit]

    async def touched(self, refs: Sequence[Ref], when: Moment) -> set[Ref]:
        return {
            ref
            for side in self._live
            for ref in refs
            if any(there(side.edges[edge], when) for edge in side.at.get(ref, ()))
        }

    async def named(self, name: str, limit: int = 10) -> list[Ref]:
        refs = [ref for side in self._live for ref in side.nodes if ref.kind != FOLD]
        return sorted(ref for ref in refs if is_named(ref, name))[:limit]

    async def query(self, cypher: str, parameters: Mapping[str, Any], limit: int = 10_000, seconds: float = 30) -> Rows:
        raise StoreError("a graph in memory has no Cypher: set graph to ladybug:/// or bolt://")


def is_named(ref: Ref, name: str) -> bool:
    """Whether a node is meant by a name: its id, or of an artifact or task eight letters of it or more."""
    return ref.id == name or (len(name) >= 8 and ref.kind in ("artifact", "task") and ref.id.startswith(name))


def there(fields: Mapping[str, Any], when: Moment) -> bool:
    """Whether an edge is there at a moment."""
    if not when.holds(fields["made_slice"], fields["made_position"], fields["made_time"]):
        return False
    also = fields.get("also_slice")
    if also is not None and not when.holds(also, fields["also_position"], fields["also_time"]):
        return False
    ended = fields.get("ended_slice")
    return ended is None or not when.holds(ended, fields["ended_position"], fields["ended_time"])


def told(fields: Mapping[str, Any], when: Moment, but_not: Moment | None) -> bool:
    """Whether a node's stream tells in a moment, and not in another, that it was made or has ended."""
    places = (place_in(fields, prefix) for prefix in ("made_", "ended_"))
    return any(
        when.holds(*place[:3]) and not (but_not and but_not.holds(*place[:3])) for place in places if place is not None
    )


def _apply(side: _Side, changes: Changes) -> None:
    for ref, row in changes.nodes.items():
        node = side.nodes.setdefault(ref, {})
        node |= {
            name: value for name, value in row.items() if name not in node or not name.startswith(("made_", "ended_"))
        }
    for edge, row in changes.edges.items():
        if edge not in side.edges:
            side.edges[edge] = row
            for ref in edge[1:3]:
                side.at[ref].add(edge)
        elif "ended_slice" in row and "ended_slice" not in side.edges[edge]:
            side.edges[edge] |= {name: value for name, value in row.items() if name.startswith("ended_")}
    for edge, row in changes.ends.items():
        if edge in side.edges and "ended_slice" not in side.edges[edge]:
            side.edges[edge] |= row
