"""What can be asked of a graph: written once, over the nodes and edges that any store of one gives."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .graph import KINDS, MOST, RELATIONS, EdgeRow, Graph, NodeRow, Ref
from .graph_errors import GraphError, TooLargeError, UnknownNodeError
from .moments import NOW, Moment

LIMIT = 1_000
DEPTH = 8
MOST_DEPTH = 32
_FAR = 2**62
_TELL = ("agent", "task")
"""Kinds of nodes that have streams of their own."""


class Picture(NamedTuple):
    """Nodes and edges. ``more``: there would have been more than the limit."""

    nodes: list[NodeRow]
    edges: list[EdgeRow]
    more: bool = False


class Difference(NamedTuple):
    """From one moment to another: what came, what went, and the nodes that ended meanwhile."""

    came: Picture
    went: Picture
    ended: list[NodeRow]


class Why(NamedTuple):
    """``chain``: edges from what was asked about back to the person who asked, each with the event that made it.

    ``complete``: it leads to a person. ``approvals``: by whom what happened on the way had been approved by then.
    """

    chain: list[EdgeRow]
    approvals: list[EdgeRow]
    complete: bool


class Reached(NamedTuple):
    """A node that something has reached: by which edge, and in how many steps."""

    ref: Ref
    by: EdgeRow
    steps: int


class Blast(NamedTuple):
    """All that something has reached, the nearest first. ``more``: there would have been more than the limit."""

    reached: list[Reached]
    more: bool = False


async def found(graph: Graph, name: str) -> Ref:
    """The node of ``kind/id``, or of an id alone; artifacts and tasks also by how their ids begin."""
    kind, slash, identity = name.partition("/")
    if slash and kind in KINDS and await graph.nodes([Ref(kind, identity)]):
        return Ref(kind, identity)
    refs = await graph.named(identity if slash and kind in KINDS else name, 10)
    refs = [ref for ref in refs if not slash or kind not in KINDS or ref.kind == kind]
    exact = [ref for ref in refs if ref.id == name]
    match exact or refs:
        case [ref]:
            return ref
        case []:
            raise UnknownNodeError(f"the graph has no node {name!r}: `party graph at now` shows what there is")
        case several:
            raise UnknownNodeError(f"{name!r} may be {', '.join(map(str, several))}: say which one")


def checked_kinds(kinds: Iterable[str], *, nodes: bool = True) -> tuple[str, ...]:
    """Kinds that may be asked for. `GraphError` for others."""
    known = {*RELATIONS, *(KINDS if nodes else ())}
    wrong = sorted(set(kinds) - known)
    if wrong:
        raise GraphError(f"there is no kind {', '.join(map(repr, wrong))}: there are {', '.join(sorted(known))}")
    return tuple(kinds)


async def at(graph: Graph, when: Moment = NOW, kinds: Sequence[str] = (), limit: int = LIMIT) -> Picture:
    """What there is at a moment, of these kinds of nodes and edges; the ends of edges are always shown."""
    nodes, edges = await graph.scan(when, None, checked_kinds(kinds), limit + 1)
    more = len(edges) > limit
    untold = [kind for kind in kinds if kind in KINDS and kind not in _TELL]
    touching = [kind for kind, pairs in RELATIONS.items() if any(set(pair) & set(untold) for pair in pairs)]
    if touching:  # no stream of their own tells of these: they are there as long as something touches them
        _, by = await graph.scan(when, None, touching, limit + 1)
        ends = {ref for edge in by for ref in (edge.source, edge.target) if ref.kind in untold}
        nodes = sorted([*nodes, *await graph.nodes(sorted(ends))])
        more = more or len(by) > limit
    more = more or len(nodes) > limit
    return Picture(await _with_ends(graph, nodes[:limit], edges[:limit], when), _as_of(edges[:limit], when), more)


async def neighbours(
    graph: Graph, ref: Ref, when: Moment = NOW, kinds: Sequence[str] = (), limit: int = LIMIT
) -> Picture:
    """The edges of a node that are there at a moment, and their other ends."""
    edges = await graph.edges([ref], "both", checked_kinds(kinds, nodes=False), when, limit + 1)
    more, edges = len(edges) > limit, edges[:limit]
    return Picture(await _with_ends(graph, await graph.nodes([ref]), edges, when), _as_of(edges, when), more)


async def diff(graph: Graph, before: Moment, after: Moment, limit: int = LIMIT) -> Difference:
    """What came, what went and what ended from one moment to another, which may be the earlier one."""
    told, came = await graph.scan(after, before, (), limit + 1)
    untold, went = await graph.scan(before, after, (), limit + 1)
    rows = {row.ref: row for row in (*told, *untold)}
    ends = {ref for edge in (*came, *went) for ref in (edge.source, edge.target)} - rows.keys()
    rows |= {row.ref: row for row in await graph.nodes(sorted(ends))}
    there_before, there_after = await _there(graph, rows, before), await _there(graph, rows, after)
    more = max(len(told), len(came), len(untold), len(went)) > limit
    new = [as_of(rows[ref], after) for ref in sorted(there_after - there_before)]
    gone = [as_of(rows[ref], before) for ref in sorted(there_before - there_after)]
    ended = [as_of(row, after) for row in told if row.ended and row.made and before.holds(*row.made[:3])]
    return Difference(
        Picture(new[:limit], _as_of(came[:limit], after), more),
        Picture(gone[:limit], _as_of(went[:limit], before), more),
        ended[:limit],
    )


async def why(graph: Graph, ref: Ref) -> Why:
    """The chain of events from an artifact or a task back to the person who asked for it, or put it."""
    chain: list[EdgeRow] = []
    approvals: list[EdgeRow] = []
    until = _FAR
    task: Ref | None = ref
    if ref.kind == "artifact":
        made = await graph.edges([ref], "in", ("produced", "put"))
        chain += made[:1]
        if made and made[0].kind == "put":
            return Why(chain, approvals, True)
        task, until = (made[0].source, made[0].made.revision) if made else (None, 0)
    elif ref.kind != "task":
        raise GraphError(f"{ref} was not asked for by anybody: ask why of an artifact or a task")
    seen = set[Ref]()
    while task and task not in seen:
        seen.add(task)
        edges = await graph.edges([task], "in", ("approved", "asked", "delegated-to", "runs"))
        by_then = [edge for edge in edges if edge.kind not in ("approved", "runs") or edge.made.revision <= until]
        approvals += [edge for edge in by_then if edge.kind == "approved"]
        runs = [edge for edge in by_then if edge.kind == "runs"]
        chain += sorted(runs, key=lambda edge: edge.made.revision)[-1:]
        if asked := [edge for edge in by_then if edge.kind == "asked"]:
            return Why([*chain, asked[0]], approvals, True)
        above = [edge for edge in by_then if edge.kind == "delegated-to"]
        chain += above[:1]
        task, until = (above[0].source, above[0].since or _FAR) if above else (None, 0)
    return Why(chain, approvals, False)


async def path(
    graph: Graph, one: Ref, other: Ref, when: Moment | None = None, kinds: Sequence[str] = (), depth: int = DEPTH
) -> list[EdgeRow] | None:
    """The shortest way from one node to another over at most ``depth`` edges, whichever way they point; None if
    there is none. Over all edges there ever were, or those there are at a moment.
    `TooLargeError` if there is too much in between."""
    if not 1 <= depth <= MOST_DEPTH:
        raise GraphError(f"a path has 1 to {MOST_DEPTH} edges, not {depth}")
    kinds = checked_kinds(kinds, nodes=False)
    if one == other:
        return []
    ways: tuple[dict[Ref, list[EdgeRow]], ...] = ({one: []}, {other: []})
    frontiers = [[one], [other]]
    for _ in range(depth):
        side = 0 if len(frontiers[0]) <= len(frontiers[1]) else 1
        mine, theirs = ways[side], ways[1 - side]
        reached: dict[Ref, EdgeRow] = {}
        edges = await graph.edges(frontiers[side], "both", kinds, when, MOST)
        if len(edges) >= MOST or len(mine) > MOST:
            raise TooLargeError(f"there is too much between {one} and {other}: ask for certain kinds of edges only")
        for edge in edges:
            for here, there in ((edge.source, edge.target), (edge.target, edge.source)):
                if here in mine and here in frontiers[side] and there not in mine:
                    reached.setdefault(there, edge)
        for there, edge in reached.items():
            here = edge.source if edge.target == there else edge.target
            mine[there] = [*mine[here], edge]
        if met := sorted(ref for ref in reached if ref in theirs):
            ahead, behind = ways[0][met[0]], ways[1][met[0]]
            return [*ahead, *reversed(behind)]
        frontiers[side] = sorted(reached)
        if not frontiers[side]:
            return None
    return None


def as_of(row: NodeRow, when: Moment) -> NodeRow:
    """A node as it was at a moment."""
    if row.made and not when.holds(*row.made[:3]):
        return NodeRow(row.ref, None, None, {})
    if row.ended and not when.holds(*row.ended[:3]):
        fields = {name: value for name, value in row.fields.items() if name != "status"}
        return NodeRow(row.ref, row.made, None, fields)
    return row


def _as_of(edges: Iterable[EdgeRow], when: Moment) -> list[EdgeRow]:
    """Edges as they were at a moment when they were there: not ended."""
    return [edge._replace(ended=None) for edge in edges]


async def _with_ends(graph: Graph, nodes: list[NodeRow], edges: list[EdgeRow], when: Moment) -> list[NodeRow]:
    known = {row.ref for row in nodes}
    ends = sorted({ref for edge in edges for ref in (edge.source, edge.target)} - known)
    return sorted(as_of(row, when) for row in (*nodes, *await graph.nodes(ends)))


async def _there(graph: Graph, rows: dict[Ref, NodeRow], when: Moment) -> set[Ref]:
    """Those of these nodes that there are at a moment."""
    own = {ref for ref, row in rows.items() if row.made and when.holds(*row.made[:3])}
    return own | await graph.touched(sorted(rows.keys() - own), when)
