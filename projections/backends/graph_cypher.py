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
    NODE_FIELDS,
    RELATIONS,
    Changes,
    Ref,
    Way,
)
from ..moments import FOREVER, Moment

Statement = tuple[str, list[Any]]
"""A statement, and the rows that it is run for, as parameter ``rows``."""
STORED = tuple(sorted((*KINDS, FOLD)))
LABELS = {kind: kind.capitalize() for kind in STORED}
TYPES = {kind: kind.upper().replace("-", "_") for kind in RELATIONS}
KIND_OF = {name: kind for kind, name in (*LABELS.items(), *TYPES.items())}
_PREFIXED = ("artifact", "task")
_NODE = ", ".join(f"n.{name}" for name in NODE_FIELDS)
_EDGE = ", ".join(f"e.{name}" for name in EDGE_FIELDS)
_PLACES = {"made": "made_", "also": "also_", "ended": "ended_"}
_Shaped = dict[tuple[str, ...], list[list[Any]]]
"""Rows by what they are about, and the names of the fields that follow their ids."""


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

    def column(self, number: int) -> str:
        """One value of a row that a statement is run for."""
        ...

    def rows(self, rows: list[list[Any]]) -> list[Any]:
        """Rows in the form in which `column` finds their values."""
        ...


class Cypher:
    """The statements in a dialect. They return what `CypherGraph` reads."""

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

    def writes(self, changes: Changes) -> Iterable[Statement]:
        """What a batch comes to. A statement's rows all set the same fields, so that names are not sent with each."""
        nodes: _Shaped = defaultdict(list)
        for ref, fields in changes.nodes.items():
            nodes[ref.kind, *fields].append([ref.id, *fields.values()])
        for (kind, *names), rows in sorted(nodes.items()):
            yield self._merged_nodes(kind, names), self._of.rows(rows)
        for written, edges in ((self._merged_edges, changes.edges), (self._ended_edges, changes.ends)):
            shaped: _Shaped = defaultdict(list)
            for (kind, one, other, key), fields in edges.items():
                shaped[kind, one.kind, other.kind, *fields].append([one.id, other.id, key, *fields.values()])
            for (kind, source, target, *names), rows in sorted(shaped.items()):
                yield written(kind, source, target, names), self._of.rows(rows)

    def _merged_nodes(self, kind: str, names: Sequence[str]) -> str:
        sets = ", ".join(f"n.{name} = {self._of.column(number)}" for number, name in enumerate(names, 1))
        merged = f"UNWIND $rows AS row MERGE {self.node('n', kind, self._of.column(0))}"
        return f"{merged} SET {sets}" if sets else merged

    def _merged_edges(self, kind: str, source: str, target: str, names: Sequence[str]) -> str:
        ended = ", ".join(
            f"e.{name} = coalesce(e.{name}, {self._of.column(number)})"
            for number, name in enumerate(names, 3)
            if name.startswith("ended_")
        )
        merged = f"{self._ends(source, target)} MERGE {self._joined(kind)} ON CREATE SET {self._sets(names)}"
        return f"{merged} ON MATCH SET {ended}" if ended else merged

    def _ended_edges(self, kind: str, source: str, target: str, names: Sequence[str]) -> str:
        edge = f"MATCH {self._joined(kind)} WHERE e.ended_slice IS NULL"
        return f"{self._ends(source, target)} {edge} SET {self._sets(names)}"

    def _ends(self, source: str, target: str) -> str:
        one, other = (self.node(*end) for end in (("a", source, self._of.column(0)), ("b", target, self._of.column(1))))
        return f"UNWIND $rows AS row MATCH {one} MATCH {other}"

    def _joined(self, kind: str) -> str:
        return f"(a)-[e:{TYPES[kind]} {{key: {self._of.column(2)}}}]->(b)"

    def _sets(self, names: Sequence[str]) -> str:
        return ", ".join(f"e.{name} = {self._of.column(number)}" for number, name in enumerate(names, 3))

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


def grouped(items: Mapping[Any, Any], by: Any) -> dict[tuple[str, ...], list[tuple[Any, Any]]]:
    """Items by what ``by`` makes of their keys, sorted by that."""
    groups: dict[tuple[str, ...], list[tuple[Any, Any]]] = defaultdict(list)
    for key, value in items.items():
        groups[by(key)].append((key, value))
    return dict(sorted(groups.items()))


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
