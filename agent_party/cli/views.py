"""`party view`: what the projections hold."""

from typing import Annotated, Any

import typer

from .output import Answer, NotFoundError, line, safe
from .session import Session, command

group = typer.Typer(help="Views of the log: names, list, get, watch.", no_args_is_help=True)
View = Annotated[str, typer.Argument(metavar="VIEW", help="The view: `party view names` shows them")]
Prefix = Annotated[str, typer.Option(help="Only keys that begin so")]


@command(group, "names")
async def names(session: Session) -> Answer:
    """List the views there are, and the projection that writes each."""
    from ..projections.catalogue import VIEWS

    shown = [f"{view}  {projection or 'every projection'}" for view, projection in sorted(VIEWS.items())]
    return Answer(dict(sorted(VIEWS.items())), shown)


@command(group, "list")
async def list_view(
    session: Session,
    view: View,
    prefix: Prefix = "",
    limit: Annotated[int, typer.Option(help="How many at most")] = 1_000,
    after: Annotated[str, typer.Option(help="Go on after this key")] = "",
) -> Answer:
    """List the documents of a view, by key."""
    async with session.party() as party:
        await party.stack.log.refresh()
        found = await party.views.scan(view, prefix, limit=limit, after=after)
    return Answer([{"key": key, **fields} for key, fields in found], [_line(key, fields) for key, fields in found])


@command(group, "get")
async def get(session: Session, view: View, key: Annotated[str, typer.Argument(metavar="KEY")]) -> Answer:
    """Show one document of a view."""
    async with session.party() as party:
        await party.stack.log.refresh()
        found = await party.views.get(view, key)
    if found is None:
        raise NotFoundError(f"there is no {key} in {view}, or it has expired: `party view list {view}` shows what is")
    return Answer({"key": key, **found}, [f"{safe(name)}: {safe(str(value))}" for name, value in sorted(found.items())])


@command(group, "watch")
async def watch(
    session: Session,
    view: View,
    prefix: Prefix = "",
    changes: Annotated[int, typer.Option(help="End after so many; 0: never")] = 0,
) -> Answer:
    """Show what a view holds, and then every change, as it comes, until it is interrupted."""
    seen = 0
    async with session.party() as party:
        await party.stack.log.refresh()
        async for change in party.views.watch(view, prefix):
            data = {"key": change.key, **(change.fields if change.fields is not None else {"gone": True})}
            print(line(data) if session.as_json else _line(change.key, change.fields), flush=True)
            seen += 1
            if changes and seen >= changes:
                break
    return Answer({"changes": seen})


def _line(key: str, fields: dict[str, Any] | None) -> str:
    if fields is None:
        return f"{safe(key)}  gone"
    return safe(f"{key}  " + "  ".join(f"{name}={value}" for name, value in sorted(fields.items())))
