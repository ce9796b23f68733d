"""`party graph`: who did what with what, as of any moment, and why."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .output import NO, OK, Answer, safe
from .session import Session, command

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ..party import Party
    from ..projections.graph import EdgeRow, NodeRow, Place
    from ..projections.questions import Picture

group = typer.Typer(
    help="The graph: at, diff, why, blast, path, neighbours, query. A node is KIND/ID, or an id alone.",
    no_args_is_help=True,
)
Moment = Annotated[
    str, typer.Argument(metavar="MOMENT", help="A time, 2h (ago), positions 0:17,5:3, task/ID@4, or now")
]
At = Annotated[str, typer.Option(metavar="MOMENT", help="As of a moment: see `party graph at --help`")]
Node = Annotated[str, typer.Argument(metavar="NODE", help="KIND/ID, or an id alone; of artifacts also how it begins")]
Kind = Annotated[list[str] | None, typer.Option(help="Only this kind of node or edge; may be given again")]
Limit = Annotated[int, typer.Option(help="At most so many nodes, and so many edges", min=1, max=50_000)]


@command(group, "at")
async def at(session: Session, moment: Moment = "now", kind: Kind = None, limit: Limit = 1_000) -> Answer:
    """Show the nodes and edges there are at a moment."""
    async with session.party() as party:
        found = await party.graph.at(moment, kind or (), limit)
        notes = _notes(party, found.more)
    return Answer({"moment": moment, **_picture(found)}, [*_drawn(found), *notes])


@command(group, "diff")
async def diff(
    session: Session,
    before: Annotated[str, typer.Argument(metavar="A", help="The one moment")],
    after: Annotated[str, typer.Argument(metavar="B", help="The other")] = "now",
    limit: Limit = 1_000,
) -> Answer:
    """Show what came, what went and what ended from one moment to another."""
    async with session.party() as party:
        found = await party.graph.diff(before, after, limit)
        notes = _notes(party, found.came.more)
    lines = [*_signed("+", found.came), *_signed("-", found.went)]
    lines += [f"~ {safe(str(row.ref))} {row.fields.get('status', '')}" for row in found.ended]
    ended = [_node(row) for row in found.ended]
    data = {"from": before, "to": after, "came": _picture(found.came), "went": _picture(found.went), "ended": ended}
    return Answer(data, [*(lines or ["no difference"]), *notes])


@command(group, "why")
async def why(session: Session, node: Node) -> Answer:
    """Show the chain of events from an artifact or a task back to the person who asked for it."""
    async with session.party() as party:
        found = await party.graph.why(node)
        notes = _notes(party)
    said = [] if found.complete else ["that is all the log tells: it leads to no person"]
    told = [_table([*found.chain, *found.approvals], made=True)] if found.chain else []
    edges = {"chain": [_edge(edge) for edge in found.chain], "approvals": [_edge(edge) for edge in found.approvals]}
    return Answer(
        {"node": node, "complete": found.complete, **edges}, [*told, *said, *notes], OK if found.complete else NO
    )


@command(group, "blast")
async def blast(
    session: Session,
    node: Node,
    since: Annotated[str | None, typer.Option(metavar="MOMENT", help="Only by what came after this moment")] = None,
    limit: Limit = 1_000,
) -> Answer:
    """Show all that an agent, an artifact or a task has reached: tasks, artifacts, agents and people downstream."""
    from rich.table import Table

    async with session.party() as party:
        found = await party.graph.blast(node, since, limit)
        notes = _notes(party, found.more)
    table = Table("steps", "reached", "by", "event", box=None)
    for one in found.reached:
        table.add_row(str(one.steps), safe(_short(one.ref)), safe(_said(one.by)), _at(one.by.made))
    reached = [{"node": str(one.ref), "steps": one.steps, "by": _edge(one.by)} for one in found.reached]
    data = {"node": node, "since": since, "reached": reached, "more": found.more}
    return Answer(data, [table if found.reached else "it has reached nothing", *notes])


@command(group, "path")
async def path(
    session: Session,
    one: Annotated[str, typer.Argument(metavar="A")],
    other: Annotated[str, typer.Argument(metavar="B")],
    at: Annotated[str | None, typer.Option(metavar="MOMENT", help="Only over edges there are at a moment")] = None,
    kind: Annotated[list[str] | None, typer.Option(help="Only over this kind of edge; may be given again")] = None,
    depth: Annotated[int, typer.Option(help="At most so many edges", min=1, max=32)] = 8,
) -> Answer:
    """Show the shortest way from one node to another, whichever way the edges point."""
    async with session.party() as party:
        found = await party.graph.path(one, other, at, kind or (), depth)
        notes = _notes(party)
    data = {"from": one, "to": other, "path": None if found is None else [_edge(edge) for edge in found]}
    shown = [_table(found, made=True)] if found else ["the same" if found == [] else f"no way of at most {depth} edges"]
    return Answer(data, [*shown, *notes], NO if found is None else OK)


@command(group, "neighbours")
async def neighbours(session: Session, node: Node, at: At = "now", kind: Kind = None, limit: Limit = 1_000) -> Answer:
    """Show the edges of a node at a moment, and what stands at their other ends."""
    async with session.party() as party:
        found = await party.graph.neighbours(node, at, kind or (), limit)
        notes = _notes(party, found.more)
    return Answer({"node": node, **_picture(found)}, [*_drawn(found), *notes])


@command(group, "query")
async def query(
    session: Session,
    cypher: Annotated[str, typer.Argument(metavar="CYPHER", help="In the Cypher of the graph's store, read-only")],
    param: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A parameter; JSON, or else text")
    ] = None,
    limit: Annotated[int, typer.Option(help="At most so many rows", min=1, max=100_000)] = 1_000,
    timeout: Annotated[float, typer.Option(help="Seconds it may take", min=0.1, max=600)] = 30,
) -> Answer:
    """Ask the store of the graph itself. What would change anything, or read files, is refused."""
    from rich.table import Table

    from .plain import plain

    given = dict(_parameter(text) for text in param or ())
    async with session.party() as party:
        found = await party.graph.query(cypher, given, limit, timeout)
        notes = _notes(party, found.more)
    table = Table(*(safe(column) for column in found.columns), box=None)
    for row in found.rows:
        table.add_row(*(safe(str(plain(value))) for value in row))
    data = {"columns": found.columns, "rows": plain(found.rows), "more": found.more}
    return Answer(data, [table if found.rows else "no rows", *notes])


def _parameter(text: str) -> tuple[str, Any]:
    import json

    name, found, value = text.partition("=")
    if not found or not name.isidentifier():
        raise typer.BadParameter(f"{text!r} is no parameter: give NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _notes(party: "Party", more: bool = False) -> "list[RenderableType]":
    said: list[RenderableType] = ["there is more: raise --limit, or ask for one --kind"] if more else []
    return [*said, *([f"note: {party.graph.behind}"] if party.graph.behind else [])]


# As data


def _place(place: "Place | None") -> dict[str, Any] | None:
    from .plain import iso

    return {**place._asdict(), "time": iso(place.time)} if place else None


def _node(row: "NodeRow") -> dict[str, Any]:
    places = {"made": _place(row.made), "ended": _place(row.ended)}
    return {"node": str(row.ref), "kind": row.ref.kind, "id": row.ref.id, **row.fields, **places}


def _edge(edge: "EdgeRow") -> dict[str, Any]:
    more = {"version": edge.version} if edge.version else {}
    ends = {"kind": edge.kind, "source": str(edge.source), "target": str(edge.target)}
    return {**ends, **more, "made": _place(edge.made), "ended": _place(edge.ended)}


def _picture(found: "Picture") -> dict[str, Any]:
    nodes, edges = [_node(row) for row in found.nodes], [_edge(edge) for edge in found.edges]
    return {"nodes": nodes, "edges": edges, "more": found.more}


# For people

_SAYS = {
    "approved": "{0} approved {1}",
    "asked": "{0} asked for {1}",
    "called-model": "{0} called {1}",
    "called-tool": "{0} called {1}",
    "caused": "{0} led to {1}",
    "delegated-to": "{0} delegated to {1}",
    "depends-on": "{0} depends on {1}",
    "has-capability": "{0} has {1}",
    "member-of": "{0} belongs to {1}",
    "produced": "{0} produced {1}",
    "put": "{0} put {1}",
    "runs": "{0} runs {1}",
    "used": "{0} used {1}",
    "worked-with": "{0} worked with {1}",
}


def _said(edge: "EdgeRow") -> str:
    return _SAYS[edge.kind].format(_short(edge.source), _short(edge.target))


def _short(ref: Any) -> str:
    return f"{ref.kind}/{ref.id[:16]}" if ref.kind == "artifact" else str(ref)


def _at(place: "Place") -> str:
    return safe(f"{place.event} {place.stream}@{place.revision} {place.slice}:{place.position}")


def _table(edges: "list[EdgeRow]", *, made: bool) -> Any:
    from rich.table import Table

    from .plain import iso

    table = Table("what", "event", "at", "time", box=None) if made else Table("what", "since", box=None)
    for edge in edges:
        place = edge.made
        where = f"{safe(place.stream)}@{place.revision}"
        if made:
            table.add_row(
                safe(_said(edge)), place.event, f"{where} {place.slice}:{place.position}", str(iso(place.time))
            )
        else:
            table.add_row(safe(_said(edge)), where)
    return table


def _drawn(found: "Picture") -> "list[RenderableType]":
    from rich.table import Table

    if not found.nodes:
        return ["nothing"]
    nodes = Table("node", "", box=None)
    for row in found.nodes:
        fields = " ".join(str(value) for name, value in row.fields.items() if name != "size")
        nodes.add_row(safe(_short(row.ref)), safe(fields))
    return [nodes, "", _table(found.edges, made=False)] if found.edges else [nodes]


def _signed(sign: str, found: "Picture") -> list[str]:
    nodes = [f"{sign} {safe(_short(row.ref))}" for row in found.nodes]
    return [*nodes, *(f"{sign} {safe(_said(edge))}" for edge in found.edges)]
