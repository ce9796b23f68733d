"""What can be asked of a graph that understands Cypher: written once, for every such store."""

import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ..graph import FOLD, KINDS, MOST, RELATIONS, EdgeRow, NodeRow, Ref, Way, edge_row, node_row
from ..graph_digest import digest_of
from ..moments import Moment
from ..sink import Checkpoint, Id, Letter, Named
from .graph_cypher import LABELS, STORED, Cypher, grouped, parameters, read_edge, read_node

Asked = tuple[str, Mapping[str, Any]]
"""A statement to ask, and its parameters."""


class CypherGraph(ABC):
    """All of `Graph` that only reads. A store adds how it is asked, and writes.

    ``asked``: the projection that is asked where nobody says which.
    """

    cypher: Cypher
    asked = "relationships"

    @abstractmethod
    async def ask_of(self, name: str, *statements: Asked) -> list[list[list[Any]]]:
        """The rows of each statement, all of one moment, of a projection by name."""

    @abstractmethod
    async def slices_of(self, name: str) -> int:
        """How many slices there may be in what is stored of a projection."""

    @abstractmethod
    async def letters(self, projection: Named) -> dict[str, Letter]:
        """See `Sink.letters`."""

    @abstractmethod
    async def checkpoint(self, projection: Named) -> Checkpoint:
        """See `Sink.checkpoint`."""

    async def states_of(self, name: str, streams: Sequence[str]) -> dict[str, str]:
        """What a projection remembers of streams, of those that it does of."""
        text = f"UNWIND $ids AS one MATCH {self.cypher.node('n', FOLD, 'one')} RETURN n.id, n.state"
        ((*rows,),) = await self.ask_of(name, (text, {"ids": list(streams)}))
        return {stream: state for stream, state in rows}  # noqa: C416

    async def digest(self, projection: Named) -> str:
        """See `Sink.digest`."""
        return await digest_of(self, projection)

    async def items(self, projection: Named, after: Id = (), limit: int = 1_000) -> list[tuple[Id, Any]]:
        """See `Sink.items`."""
        found = [] if after > ("~",) else await self._stored(projection.name, after, limit)
        letters = await self.letters(projection)
        found += [(("~letter", stream), letter._asdict()) for stream, letter in sorted(letters.items())]
        return [item for item in found if item[0] > after][:limit]

    # What is asked

    async def _ask(self, *statements: Asked) -> list[list[list[Any]]]:
        return await self.ask_of(self.asked, *statements)

    async def _given(self, when: Moment | None, but_not: Moment | None = None) -> dict[str, Any]:
        sized = any(moment is not None and moment.sizes for moment in (when, but_not))
        return parameters(when, but_not, await self.slices_of(self.asked) if sized else 1)

    async def nodes(self, refs: Sequence[Ref]) -> list[NodeRow]:
        """See `Graph.nodes`."""
        kinds = grouped(dict.fromkeys(refs), lambda ref: (ref.kind,))
        asked = [(kind, [ref.id for ref, _ in found]) for (kind,), found in kinds.items() if kind in LABELS]
        answers = await self._ask(*((self.cypher.nodes(kind), {"ids": ids}) for kind, ids in asked))
        return sorted(
            node_row(*read_node(kind, row)) for (kind, _), rows in zip(asked, answers, strict=True) for row in rows
        )

    async def edges(
        self, refs: Sequence[Ref], way: Way = "both", kinds: Sequence[str] = (), when: Moment | None = None,
        limit: int = MOST,
    ) -> list[EdgeRow]:  # fmt: skip
        """See `Graph.edges`."""
        given = await self._given(when)
        ways: tuple[Way, ...] = ("out", "in") if way == "both" else (way,)
        statements = [
            (text, {"ids": [ref.id for ref, _ in found], "limit": MOST + 1, **given})
            for (kind,), found in grouped(dict.fromkeys(refs), lambda ref: (ref.kind,)).items()
            for one in ways
            if kind in LABELS and (text := self.cypher.edges(kind, one, kinds, when))
        ]
        edges = dict(read_edge(row) for rows in await self._ask(*statements) for row in rows)
        return sorted((edge_row(*one, fields) for one, fields in edges.items()), key=lambda row: row.id)[:limit]

    async def scan(
        self, when: Moment, but_not: Moment | None = None, kinds: Sequence[str] = (), limit: int = MOST
    ) -> tuple[list[NodeRow], list[EdgeRow]]:
        """See `Graph.scan`."""
        given = {**await self._given(when, but_not), "limit": limit}
        labels = [kind for kind in KINDS if not kinds or kind in kinds]
        types = [(kind, pair) for kind in RELATIONS if not kinds or kind in kinds for pair in RELATIONS[kind]]
        answers = await self._ask(
            *((self.cypher.told(kind, when, but_not), given) for kind in labels),
            *((self.cypher.scanned(kind, pair, when, but_not), given) for kind, pair in types),
        )
        nodes = [node_row(*read_node(kind, row)) for kind, rows in zip(labels, answers, strict=False) for row in rows]
        found = dict(read_edge(row) for rows in answers[len(labels) :] for row in rows)
        edges = [edge_row(*one, fields) for one, fields in found.items()]
        return sorted(nodes)[:limit], sorted(edges, key=lambda row: row.id)[:limit]

    async def touched(self, refs: Sequence[Ref], when: Moment) -> set[Ref]:
        """See `Graph.touched`."""
        kinds = grouped(dict.fromkeys(refs), lambda ref: (ref.kind,))
        given = await self._given(when)
        answers = await self._ask(
            *(
                (self.cypher.touched(kind, when), {"ids": [r.id for r, _ in found], **given})
                for (kind,), found in kinds.items()
            )
        )
        return {Ref(kind, row[0]) for (kind,), rows in zip(kinds, answers, strict=True) for row in rows}

    async def named(self, name: str, limit: int = 10) -> list[Ref]:
        """See `Graph.named`."""
        given = {"name": name, "long": len(name) >= 8, "limit": limit}
        answers = await self._ask(*((self.cypher.named(kind), given) for kind in KINDS))
        return sorted(Ref(kind, row[0]) for kind, rows in zip(KINDS, answers, strict=True) for row in rows)[:limit]

    async def _stored(self, name: str, after: Id, limit: int) -> list[tuple[Id, Any]]:
        """The nodes and edges of `Sink.items`, a node's edges after it."""
        found: list[tuple[Id, Any]] = []
        for kind in [kind for kind in STORED if not after or kind >= after[0]]:
            first = after[1] if len(after) > 1 and kind == after[0] else ""
            while len(found) < limit:
                ((*rows,),) = await self.ask_of(name, (self.cypher.page(kind), {"first": first, "limit": limit + 1}))
                nodes = [read_node(kind, row) for row in rows]
                edges = []
                if nodes and (text := self.cypher.edges(kind, "out", (), None)):
                    given = {"ids": [ref.id for ref, _ in nodes], "limit": 100 * MOST}
                    edges = [read_edge(row) for row in (await self.ask_of(name, (text, given)))[0]]
                page: list[tuple[Id, Any]] = [(tuple(ref), fields) for ref, fields in nodes]
                page += [((*one, edge, *other, key), fields) for (edge, one, other, key), fields in edges]
                found += sorted((item for item in page if item[0] > after), key=lambda item: item[0])
                if len(rows) <= limit:
                    break
                after, first = found[-1][0] if found else after, rows[-1][0]
            if len(found) >= limit:
                break
        return found[:limit]


def checkpoint_of(row: Mapping[str, Any]) -> Checkpoint:
    """The checkpoint that a stored row holds."""
    sizes = msgspec.json.decode(row["sizes"], type=dict[int, int])
    return Checkpoint(sizes, row["turn"], row["version"], row["paused"])


def turn_after(turn: int) -> int:
    """The first turn is a random one, so that none comes twice, even if somebody deletes the store."""
    return turn + 1 if turn else secrets.randbelow(2**40) + 1
