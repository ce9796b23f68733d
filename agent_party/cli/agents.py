"""`party agent`: who there is, what they can do, how they do, and what a person wishes of them."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import complete
from .asking import Person
from .output import Answer, NotFoundError, safe
from .session import Session, command

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ..agents import Wish

group = typer.Typer(help="Agents: list, show, health, pause, resume, drain, retire.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="NAME", help="The agent's name", autocompletion=complete.agents)]
Reason = Annotated[str, typer.Option(help="Why, signed with it")]


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
async def show(session: Session, name: Name) -> Answer:
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
    for field in ("name", "version", "phase", "reason", "description", "approval", "concurrency", "revision"):
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


@command(group, "health")
async def health(session: Session, name: Name) -> Answer:
    """Show how an agent does: processes that live, tasks at work and waiting, its queue, failures, last activity."""
    from rich.table import Table
    from rich.text import Text

    from .plain import iso

    async with session.party() as party:
        found = await party.agent(name).health()
    data = {"name": name, **found._asdict(), "last": iso(found.last) if found.last else None}
    grid = Table.grid(padding=(0, 2))
    for field, value in data.items():
        grid.add_row(
            Text(field.replace("_", " "), style="dim"), safe(f"{value:.0%}" if field == "error_rate" else str(value))
        )
    return Answer(data, [grid])


@command(group, "pause")
async def pause(session: Session, name: Name, reason: Reason = "", person: Person = "") -> Answer:
    """Have an agent begin nothing new: new tasks wait, and its own begin no further step, until it is resumed."""
    return await _wish(session, name, "pause", reason, person)


@command(group, "resume")
async def resume(session: Session, name: Name, person: Person = "") -> Answer:
    """Have an agent go on after a pause or a drain."""
    return await _wish(session, name, "resume", "", person)


@command(group, "drain")
async def drain(session: Session, name: Name, reason: Reason = "", person: Person = "") -> Answer:
    """Have an agent finish what it has begun, and begin no other task."""
    return await _wish(session, name, "drain", reason, person)


@command(group, "retire")
async def retire(session: Session, name: Name, reason: Reason = "", person: Person = "") -> Answer:
    """Give an agent no task any more, for good. What it has begun it finishes."""
    return await _wish(session, name, "retire", reason, person)


async def _wish(session: Session, name: str, wish: "Wish", reason: str, person: str) -> Answer:
    async with session.party() as party:
        agent, who = party.agent(name), person or None
        match wish:
            case "resume":
                await agent.resume(person=who)
            case "pause":
                await agent.pause(reason, person=who)
            case "drain":
                await agent.drain(reason, person=who)
            case "retire":
                await agent.retire(reason, person=who)
        signer = party.doorman.person(person or party.settings.person or None)[0]
    data = {"agent": name, "wish": wish, "person": signer, "reason": reason}
    return Answer(data, [f"{wish}: signed by {signer} and left for agent {name}, which acts on it as soon as it runs"])
