"""`party check-histories`: whether new code does what is recorded, before it is deployed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .output import NO, Answer, NotFoundError, safe
from .session import Session, command

if TYPE_CHECKING:
    from ..actors.agent import Agent
    from ..actors.bundle import Bundle


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "check-histories")(check_histories)


async def check_histories(
    session: Session,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Files that `party task export` wrote")],
) -> Answer:
    """Go over every exported task in a folder with the code of --app: does it do what is recorded, to the last wait?
    Nothing is called. Exit code 1 where one does not, by task, wait number, kind and name."""
    from ..actors.errors import ConfigurationError
    from ..apps import find_app

    app = session.settings().app
    if not app:
        raise ConfigurationError("name the code that is to go over them: --app module:attribute")
    if not folder.is_dir():
        raise NotFoundError(f"there is no folder {folder}")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    rows = [row for path in files for row in await _check(path, find_app(app))]
    if not rows:
        raise NotFoundError(f"{folder} holds no file: `party task export ID -o FILE` writes one")
    wrong = sum(not row["fits"] for row in rows)
    said = [safe(f"{'fits   ' if row['fits'] else 'DIFFERS'}  {_said(row)}") for row in rows]
    data = {"fits": not wrong, "checked": len(rows), "differ": wrong, "histories": rows}
    return Answer(data, [*said, f"{len(rows)} checked, {wrong} differ"], NO if wrong else 0)


def _said(row: dict[str, Any]) -> str:
    why = row["why"] or "; ".join(row["notes"])
    return f"{row['file']}  task {row['task'] or '?'}{f'  {why}' if why else ''}"


async def _check(path: Path, code: "list[Agent] | Any") -> list[dict[str, Any]]:
    from ..actors.bundle import Bundle
    from ..actors.errors import PartyError
    from ..eventstore.errors import EventStoreError

    try:
        bundle = Bundle.read(path)
    except (PartyError, EventStoreError) as error:
        return [_row(path, "", why=str(error))]
    return [await _one(path, bundle, task, code) for task in bundle.tasks]


async def _one(path: Path, bundle: "Bundle", task: str, code: Any) -> dict[str, Any]:
    from ..actors.errors import PartyError
    from ..eventstore.errors import EventStoreError
    from ..timetravel import rehearsed

    try:
        told = await rehearsed(bundle, task, code)
    except (PartyError, EventStoreError) as error:
        return _row(path, task, why=str(error))
    wait = told.waits[told.wait] if told.wait is not None and told.waits else None
    named = {"kind": wait.kind, "name": wait.name} if wait else {}
    return _row(path, task, why=told.differs, wait=told.wait, notes=list(told.notes), **named)


def _row(path: Path, task: str, *, why: str = "", **more: Any) -> dict[str, Any]:
    found = {"wait": None, "kind": None, "name": None, "notes": [], **more}
    return {"file": path.name, "task": task, "fits": not why, "why": why, **found}
