"""`party schedule`: work that is done at set times."""

from typing import Annotated, Any, Literal

import typer

from . import complete
from .asking import as_json, named
from .messages import Given, GivenJson
from .output import Answer, safe
from .session import Session, command

group = typer.Typer(help="Schedules: add, list, remove.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="NAME", help="What the schedule is called; the same name is the same one")]


@command(group, "add")
async def add(
    session: Session,
    name: Name,
    capability: Annotated[str, typer.Argument(metavar="CAPABILITY", autocompletion=complete.capabilities)],
    given: Given = None,
    given_json: GivenJson = "",
    cron: Annotated[str, typer.Option(help='A cron line: "0 9 * * MON-FRI"')] = "",
    zone: Annotated[str, typer.Option(help="The time zone it stands in: Europe/Berlin")] = "UTC",
    missed: Annotated[
        Literal["skip", "once", "all"], typer.Option(help="Times at which nothing ran: left out, made up for once, all")
    ] = "skip",
    overlap: Annotated[
        Literal["wait", "allow"], typer.Option(help="Whether the next waits for the one before to end")
    ] = "wait",
) -> Answer:
    """Have work done at the times of a cron line, wherever its agent runs, until the schedule is removed."""
    from .plain import iso

    async with session.party(create=True) as party:
        options: dict[str, Any] = {"cron": cron, "zone": zone, "missed": missed, "overlap": overlap}
        handle = await party.schedule(name, capability, **options, **as_json(named(given, given_json)))
        first = next_times(cron, zone, party.stack.log.ambient.now())[0]
    data = {"schedule": name, "task": handle.id, "next": iso(first)}
    return Answer(data, [f"schedule {safe(name)}: task {handle.id}, next at {iso(first)}"])


def next_times(cron: str, zone: str, now: int, count: int = 1) -> list[int]:
    """The next times of a line."""
    from itertools import islice

    from ..actors.schedules import times

    return list(islice(times(cron, zone, now), count))


@command(group, "list")
async def list_schedules(session: Session) -> Answer:
    """List the schedules that stand, with the time at which each is due next."""
    import msgspec

    from ..actors.schedules import CAPABILITY, Schedule
    from .plain import iso

    found: list[dict[str, Any]] = []
    async with session.party() as party:
        for row in await party.stack.registry.tasks(unfinished=True, limit=100_000):
            if row.capability == CAPABILITY:
                state = await party.task(row.id).state()
                kept = msgspec.convert(msgspec.msgpack.decode(state.input)["schedule"], Schedule)
                upcoming = iso(next_times(kept.cron, kept.zone, party.stack.log.ambient.now())[0])
                plain = msgspec.to_builtins(kept)
                found.append({**plain, "task": row.id, "status": state.status, "next": upcoming})
    lines = [f"{one['name']}  {one['cron']} {one['zone']}  {one['capability']}  next {one['next']}" for one in found]
    return Answer(found, [safe(line) for line in lines] or ["no schedules"])


@command(group, "remove")
async def remove(session: Session, name: Name) -> Answer:
    """Remove a schedule: its task is cancelled. What it has started goes on."""
    async with session.party() as party:
        task = party.using(request_id=f"schedule {name}").task_id()
        await party.task(task).cancel("removed")
    return Answer({"schedule": name, "task": task, "removed": True}, [f"schedule {safe(name)}: removed"])
