"""The Cypher that every store of a graph shares: what is asked, and what is written.

Labels, types and names of fields are a fixed set of this program's own; whatever comes from a log or from a caller goes
in as a parameter. So there is nothing that a name could break out of.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from ..graph import (
    EDGE_FIELDS,
    FOLD,
    KINDS,
    MOST,
    NODE_FIELDS,
    RELATIONS,
    Changes,
    EdgeRow,
    NodeRow,
    Ref,
    Way,
    edge_row,
    node_row,
)
from ..moments import FOREVER, Moment
from ..sink import Id

Statement = tuple[str, list[dict[str, Any]]]
"""A statement, and the rows that it is run for, as parameter ``rows``."""
STORED = tuple(sorted((*KINDS, FOLD)))
LABELS = {kind: kind.capitalize() for kind in STORED}
TYPES = {kind: kind.upper().replace("-", "_") for kind in RELATIONS}
KIND_OF = {name: kind for kind, name in (*LABELS.items(), *TYPES.items())}
_PREFIXED = ("artifact", "task")
_NODE = ", ".join(f"n.{name}" for name in NODE_FIELDS)
_EDGE = ", ".join(f"e.{name}" for name in EDGE_FIELDS)
_PLACES = {"made": "made_", "also": "also_", "ended": "ended_"}


class Dialect(Protocol):
    """Where stores differ. ``scope``: what else names a node beside its id."""

    scope: Mapping[str, str]

    def label_of(self, variable: str) -> str:
        """The label of a node."""
        ...

    def type_of(self, variable: str) -> str:
        """The type of an edge."""
        ...

    def size_of(self, slice: str) -> str:  # noqa: A002
        """What parameter ``sizes`` says about a slice."""
        ...


class Cypher:
    """The statements in a dialect. They return what `Answers` reads."""

    def __init__(self, dialect: Dialect) -> None:
        self._of = dialect

    def node(self, variable: str, kind: str, identity: str = "") -> str:
        """A pattern that matches nodes of a kind."""
        named = {**({"id": identity} if identity else {}), **self._of.scope}
        fields = ", ".join(f"{name}: {value}" for name, value in named.items())
        return f"({variable}:{LABELS[kind]}{' {' + fields + '}' if fields else ''})"

    def nodes(self, kind: str) -> str:
        """Nodes of a kind by parameter ``ids``."""
        return f"UNWIND $ids AS one MATCH {self.node('n', kind, 'one')} RETURN n.id, {_NODE}"

    def edges(self, kind: str, way: Way, kinds: Sequence[str], when: Moment | None) -> str:
        """Edges of nodes of a kind by parameter ``ids``; empty if there can be none."""
        side = 0 if way == "out" else 1
        fit = [one for one in (kinds or RELATIONS) if any(pair[side] == kind for pair in RELATIONS[one])]
        if not fit:
            return ""
        types = "|".join(TYPES[one] for one in fit)
        edge = f"-[e:{types}]->(m)" if way == "out" else f"<-[e:{types}]-(m)"
        ends = ("n", "m") if way == "out" else ("m", "n")
        return (
            f"UNWIND $ids AS one MATCH {self.node('n', kind, 'one')}{edge}{self._where(when)} "
            f"RETURN {self._edge(*ends)} LIMIT $limit"
        )

    def touched(self, kind: str, when: Moment) -> str:
        """Of nodes by parameter ``ids``, those that an edge touches."""
        parts = []
        for arrow, side in (("-[e:{}]->(m)", 0), ("<-[e:{}]-(m)", 1)):
            fit = [one for one, pairs in RELATIONS.items() if any(pair[side] == kind for pair in pairs)]
            if fit:
                edge = arrow.format("|".join(TYPES[one] for one in fit))
                parts.append(f"EXISTS {{ MATCH (n){edge}{self._where(when)} }}")
        return f"UNWIND $ids AS one MATCH {self.node('n', kind, 'one')} WHERE {' OR '.join(parts)} RETURN n.id"

    def told(self, kind: str, when: Moment, but_not: Moment | None) -> str:
        """Nodes of a kind whose stream tells of them at a moment, and not at another."""
        parts = []
        for prefix in ("made", "ended"):
            part = f"n.{prefix}_slice IS NOT NULL AND {self._holds('n', prefix, when, '')}"
            parts.append(part + (f" AND NOT {self._holds('n', prefix, but_not, '2')}" if but_not else ""))
        where = " OR ".join(f"({part})" for part in parts)
        return f"MATCH {self.node('n', kind)} WHERE {where} RETURN n.id, {_NODE} ORDER BY n.id LIMIT $limit"

    def scanned(self, kind: str, pair: tuple[str, str], when: Moment, but_not: Moment | None) -> str:
        """Edges of a kind between nodes of two kinds that are there at a moment, and not at another."""
        where = self._where(when) + (f" AND NOT ({self._there(but_not, '2')})" if but_not else "")
        return (
            f"MATCH {self.node('a', pair[0])}-[e:{TYPES[kind]}]->(b:{LABELS[pair[1]]}){where} "
            f"RETURN {self._edge('a', 'b')} ORDER BY a.id, b.id, e.key LIMIT $limit"
        )

    def named(self, kind: str) -> str:
        """Nodes of a kind by parameter ``name``."""
        if kind in _PREFIXED:
            same = "n.id = $name OR ($long AND n.id STARTS WITH $name)"
            return f"MATCH {self.node('n', kind)} WHERE {same} RETURN n.id ORDER BY n.id LIMIT $limit"
        return f"MATCH {self.node('n', kind, '$name')} RETURN n.id"

    def page(self, kind: str) -> str:
        """Nodes of a kind, sorted, from parameter ``first`` on."""
        return f"MATCH {self.node('n', kind)} WHERE n.id >= $first RETURN n.id, {_NODE} ORDER BY n.id LIMIT $limit"

    # Writing

    def writes(self, changes: Changes, one_shape: bool) -> Iterable[Statement]:
        """What a batch comes to. ``one_shape``: each statement's rows have the same fields."""
        for kind, nodes in _grouped(changes.nodes, lambda ref: (ref.kind,)).items():
            rows = [({"id": ref.id}, fields) for ref, fields in nodes]
            yield from _shaped(f"UNWIND $rows AS row MERGE {self.node('n', kind[0], 'row.id')}", "n", rows, one_shape)
        for how, edges in (("MERGE", changes.edges), ("MATCH", changes.ends)):
            for (edge_kind, one, other), found in _grouped(edges, lambda id: (id[0], id[1].kind, id[2].kind)).items():  # noqa: A006
                rows = [({"one": id[1].id, "other": id[2].id, "key": id[3]}, fields) for id, fields in found]  # noqa: A001
                ends = f"MATCH {self.node('a', one, 'row.one')} MATCH {self.node('b', other, 'row.other')}"
                edge = f"{how} (a)-[e:{TYPES[edge_kind]} {{key: row.key}}]->(b)"
                when = " ON CREATE" if how == "MERGE" else " WHERE e.ended_slice IS NULL"
                yield from _shaped(f"UNWIND $rows AS row {ends} {edge}{when}", "e", rows, one_shape)

    # Parts

    def _edge(self, one: str, other: str) -> str:
        of = self._of
        ends = f"{of.label_of(one)}, {one}.id, {of.type_of('e')}, {of.label_of(other)}, {other}.id, e.key"
        return f"{ends}, {_EDGE}"

    def _where(self, when: Moment | None) -> str:
        return f" WHERE {self._there(when, '')}" if when else ""

    def _there(self, when: Moment, number: str) -> str:
        if not when.sizes and when.time >= FOREVER:
            return "e.ended_slice IS NULL"
        made, also, ended = (self._holds("e", prefix, when, number) for prefix in ("made", "also", "ended"))
        return f"{made} AND (e.also_slice IS NULL OR {also}) AND (e.ended_slice IS NULL OR NOT {ended})"

    def _holds(self, variable: str, prefix: str, when: Moment, number: str) -> str:
        place = f"{variable}.{prefix}"
        if not when.sizes:
            return f"({place}_time <= $time{number})"
        size = self._of.size_of(f"{place}_slice").replace("$sizes", f"$sizes{number}")
        return f"(CASE WHEN {size} >= 0 THEN {place}_position < {size} ELSE {place}_time <= $time{number} END)"


def _grouped(items: Mapping[Any, Any], by: Any) -> dict[tuple[str, ...], list[tuple[Any, Any]]]:
    groups: dict[tuple[str, ...], list[tuple[Any, Any]]] = defaultdict(list)
    for key, value in items.items():
        groups[by(key)].append((key, value))
    return dict(sorted(groups.items()))


def _shaped(
    text: str, variable: str, rows: list[tuple[dict[str, Any], dict[str, Any]]], one_shape: bool
) -> Iterable[Statement]:
    made = text.endswith(" ON CREATE")
    if not one_shape:
        again = f" ON MATCH SET {variable} += CASE WHEN {variable}.ended_slice IS NULL THEN row.ended ELSE {{}} END"
        given = [{**names, "fields": fields, **({"ended": _ended(fields)} if made else {})} for names, fields in rows]
        yield f"{text} SET {variable} += row.fields{again if made else ''}", given
        return
    shapes: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for names, fields in rows:
        shapes[tuple(sorted(fields))].append({**names, **{f"f_{name}": value for name, value in fields.items()}})
    for shape, shaped in sorted(shapes.items()):
        sets = ", ".join(f"{variable}.{name} = row.f_{name}" for name in shape)
        ends = ", ".join(
            f"{variable}.{n} = coalesce({variable}.{n}, row.f_{n})" for n in shape if n.startswith("ended_")
        )
        again = f" ON MATCH SET {ends}" if made and ends else ""
        yield f"{text} SET {sets}{again}" if sets else text, shaped


def _ended(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name.startswith("ended_")}


def parameters(when: Moment | None, but_not: Moment | None, slices: int) -> dict[str, Any]:
    """Of moments. ``slices``: how many there are, so that what is stored of each finds its size."""
    found: dict[str, Any] = {}
    for moment, number in ((when, ""), (but_not, "2")):
        if moment is not None:
            many = max([slices, *(one + 1 for one in moment.sizes)])
            found |= {f"time{number}": moment.time}
            if moment.sizes:
                found[f"sizes{number}"] = moment.vector(many)
    return found


def stored(names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    """Fields by name, without those that are not there."""
    return {name: value for name, value in zip(names, values, strict=True) if value is not None}


def read_node(kind: str, row: Sequence[Any]) -> tuple[Ref, dict[str, Any]]:
    """A node from what `Cypher.nodes` returns."""
    return Ref(kind, row[0]), stored(NODE_FIELDS, row[1:])


def read_edge(row: Sequence[Any]) -> tuple[tuple[str, Ref, Ref, str], dict[str, Any]]:
    """An edge from what `Cypher.edges` returns."""
    one, other = Ref(KIND_OF[row[0]], row[1]), Ref(KIND_OF[row[3]], row[4])
    return (KIND_OF[row[2]], one, other, row[5]), stored(EDGE_FIELDS, row[6:])


class Answers(Protocol):
    """What a store with Cypher adds to become a `Graph`: how it is asked, and how many slices it has seen."""

    cypher: Cypher

    async def ask(self, *statements: tuple[str, Mapping[str, Any]]) -> list[list[list[Any]]]:
        """The rows of each statement, all of one moment."""
        ...

    async def slices(self) -> int:
        """How many slices there may be in what is stored."""
        ...


async def ask_nodes(store: Answers, refs: Iterable[Ref]) -> list[NodeRow]:
    """See `Graph.nodes`."""
    kinds = _grouped(dict.fromkeys(refs), lambda ref: (ref.kind,))
    asked = [(kind, [ref.id for ref, _ in found]) for (kind,), found in kinds.items() if kind in LABELS]
    answers = await store.ask(*((store.cypher.nodes(kind), {"ids": ids}) for kind, ids in asked))
    return sorted(
        node_row(*read_node(kind, row)) for (kind, _), rows in zip(asked, answers, strict=True) for row in rows
    )


async def ask_edges(
    store: Answers, refs: Iterable[Ref], way: Way, kinds: Sequence[str], when: Moment | None, limit: int
) -> list[EdgeRow]:
    """See `Graph.edges`."""
    given = parameters(when, None, await store.slices() if when and when.sizes else 1)
    ways: tuple[Way, ...] = ("out", "in") if way == "both" else (way,)
    statements = [
        (text, {"ids": [ref.id for ref, _ in found], "limit": MOST + 1, **given})
        for (kind,), found in _grouped(dict.fromkeys(refs), lambda ref: (ref.kind,)).items()
        for one in ways
        if kind in LABELS and (text := store.cypher.edges(kind, one, kinds, when))
    ]
    edges = dict(read_edge(row) for rows in await store.ask(*statements) for row in rows)
    return sorted((edge_row(*one, fields) for one, fields in edges.items()), key=lambda row: row.id)[:limit]


async def ask_scan(
    store: Answers, when: Moment, but_not: Moment | None, kinds: Sequence[str], limit: int
) -> tuple[list[NodeRow], list[EdgeRow]]:
    """See `Graph.scan`."""
    given = {**parameters(when, but_not, await store.slices()), "limit": limit}
    labels = [kind for kind in KINDS if not kinds or kind in kinds]
    types = [(kind, pair) for kind in RELATIONS if not kinds or kind in kinds for pair in RELATIONS[kind]]
    answers = await store.ask(
        *((store.cypher.told(kind, when, but_not), given) for kind in labels),
        *((store.cypher.scanned(kind, pair, when, but_not), given) for kind, pair in types),
    )
    nodes = [node_row(*read_node(kind, row)) for kind, rows in zip(labels, answers, strict=False) for row in rows]
    found = dict(read_edge(row) for rows in answers[len(labels) :] for row in rows)
    edges = [edge_row(*one, fields) for one, fields in found.items()]
    return sorted(nodes)[:limit], sorted(edges, key=lambda row: row.id)[:limit]


async def ask_touched(store: Answers, refs: Iterable[Ref], when: Moment) -> set[Ref]:
    """See `Graph.touched`."""
    kinds = _grouped(dict.fromkeys(refs), lambda ref: (ref.kind,))
    given = parameters(when, None, await store.slices() if when.sizes else 1)
    answers = await store.ask(
        *(
            (store.cypher.touched(kind, when), {"ids": [r.id for r, _ in found], **given})
            for (kind,), found in kinds.items()
        )
    )
    return {Ref(kind, row[0]) for (kind,), rows in zip(kinds, answers, strict=True) for row in rows}


async def ask_named(store: Answers, name: str, limit: int) -> list[Ref]:
    """See `Graph.named`."""
    given = {"name": name, "long": len(name) >= 8, "limit": limit}
    answers = await store.ask(*((store.cypher.named(kind), given) for kind in KINDS))
    return sorted(Ref(kind, row[0]) for kind, rows in zip(KINDS, answers, strict=True) for row in rows)[:limit]


async def ask_items(store: Answers, after: Id, limit: int) -> list[tuple[Id, Any]]:
    """The nodes and edges of `Sink.items`, a node's edges after it."""
    found: list[tuple[Id, Any]] = []
    for kind in [kind for kind in STORED if not after or kind >= after[0]]:
        first = after[1] if len(after) > 1 and kind == after[0] else ""
        while len(found) < limit:
            ((*rows,),) = await store.ask((store.cypher.page(kind), {"first": first, "limit": limit + 1}))
            nodes = [read_node(kind, row) for row in rows]
            edges = []
            if nodes and (text := store.cypher.edges(kind, "out", (), None)):
                given = {"ids": [ref.id for ref, _ in nodes], "limit": 100 * MOST}
                edges = [read_edge(row) for row in (await store.ask((text, given)))[0]]
            page: list[tuple[Id, Any]] = [(tuple(ref), fields) for ref, fields in nodes]
            page += [((*one, edge, *other, key), fields) for (edge, one, other, key), fields in edges]
            found += sorted((item for item in page if item[0] > after), key=lambda item: item[0])
            if len(rows) <= limit:
                break
            after, first = found[-1][0] if found else after, rows[-1][0]
        if len(found) >= limit:
            break
    return found[:limit]
