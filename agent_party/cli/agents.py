"""`party agent`: who there is, and what they can do."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import complete
from .output import Answer, NotFoundError, safe
from .session import Session, command

if TYPE_CHECKING:
    from rich.console import RenderableType

group = typer.Typer(help="Agents: list, show.", no_args_is_help=True)


@command(group, "list")
async def list_agents(session: Session) -> Answer:
    """List agents: phase, capabilities, in how many processes their code runs, unfinished tasks."""
    async with session.party() as party:
        rows = await party.stack.registry.agents()
    return Answer([{**row._asdict(), "capabilities": list(row.capabilities)} for row in rows], [_table(rows)])


def _table(rows: list[Any]) -> Any:
    from rich.table import Table

    if not rows:
        return "no agents"
    table = Table("agent", "version", "phase", "runs in", "tasks", "capabilities", box=None)
    for row in rows:
        cells = (row.name, row.version, row.phase, str(row.hosts), str(row.load), ", ".join(row.capabilities))
        table.add_row(*(safe(cell) for cell in cells))
    return table


@command(group, "show")
async def show(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", autocompletion=complete.agents)],
) -> Answer:
    """Show an agent: lifecycle, capabilities with the schemas of their inputs, the processes it has joined, memory."""
    from ..actors.agent_state import AGENT
    from .plain import plain
    from .reading import fold_at

    async with session.party() as party:
        log, stream = party.stack.log, party.agent(name).stream
        await log.refresh()
        folded = await fold_at(log, AGENT, stream)
        if not folded.revision:
            raise NotFoundError(f"there is no agent {name}: `party agent list` shows those there are")
        alive = {host.hex(): party.stack.presence.alive(host) for host in sorted(folded.state.hosts)}
    state = plain(folded.state)
    registered = state.pop("registered") or {}
    data = {"name": name, "revision": folded.revision, **registered, **state, "hosts": alive}
    return Answer(data, _shown(data))


def _shown(data: dict[str, Any]) -> "list[RenderableType]":
    import json

    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    for field in ("name", "version", "phase", "description", "approval", "concurrency", "revision"):
        if data.get(field):
            grid.add_row(Text(field, style="dim"), safe(str(data[field])))
    for host, alive in data["hosts"].items():
        grid.add_row(Text("process", style="dim"), f"{host} {'lives' if alive else 'is gone'}")
    for capability, schema in data.get("capabilities", {}).items():
        grid.add_row(Text("capability", style="dim"), f"{safe(capability)} {safe(json.dumps(_inputs(schema)))}")
    for key, value in data["memory"].items():
        grid.add_row(Text("remembers", style="dim"), safe(f"{key}: {json.dumps(value)}"))
    return [grid]


def _inputs(schema: dict[str, Any]) -> dict[str, Any]:
    """Names and types of a capability's inputs, from its JSON schema."""
    part = schema.get("$defs", {}).get("Input", schema)
    return {name: field.get("type", "any") for name, field in part.get("properties", {}).items()}
