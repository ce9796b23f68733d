"""`party artifact`: documents and files beside the log: put them there, and get them back into a file."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import complete
from .output import Answer, NotFoundError, safe
from .plain import iso
from .session import Session, command

if TYPE_CHECKING:
    from ..actors.shelf import Kept

group = typer.Typer(help="Documents and files: list, get, put.", no_args_is_help=True)


@command(group, "list")
async def list_artifacts(
    session: Session,
    task: Annotated[
        str, typer.Argument(metavar="[TASK]", help="What this task has kept", autocompletion=complete.tasks)
    ] = "",
    after: Annotated[str, typer.Option(help="Of what people have put, what comes behind this id")] = "",
    limit: Annotated[int, typer.Option(help="At most so many of those", min=1, max=10_000)] = 1_000,
) -> Answer:
    """List what people have put; or the artifacts that a task has kept, in the order of its waits."""
    async with session.party() as party:
        found = await party.artifacts.list(task, after=after, limit=limit)
    if task:
        rows = [_row(one) for one in found]
        lines = [f"{row['name']}  {row['size']:,} bytes  {row['blob'][:16]}" for row in rows]
        return Answer(rows, [safe(line) for line in lines] or [f"task {task} has kept nothing"])
    rows = [_row_put(one) for one in found]
    lines = [f"{row['id']}  {row['name']}  {row['size']:,} bytes  by {row['person']}" for row in rows]
    lines = [
        f"{line}  {'NOT PROVED: ' + row['trouble'] if row['trouble'] else ''}".rstrip()
        for line, row in zip(lines, rows, strict=True)
    ]
    if len(found) == limit:
        lines.append(f"there may be more: --after {found[-1].source}")
    return Answer(rows, [safe(line) for line in lines] or ["nobody has put anything"])


@command(group, "put")
async def put(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Of any size")],
    name: Annotated[str, typer.Option(help="Its name there; by default the file's own")] = "",
    person: Annotated[str, typer.Option(help="Who puts it; by default this user's own id")] = "",
    request_id: Annotated[str, typer.Option(help="The same id is the same artifact, ever")] = "",
) -> Answer:
    """Put a file beside the log, encrypted and signed by who does it; its id, for `party ask --artifact`."""
    async with session.party(create=True) as party:
        made = await party.artifacts.put(name or file.name, file, person=person or None, request_id=request_id)
    row = _row_put(made)
    return Answer(row, [f"{row['id']}  {safe(row['name'])}  {row['size']:,} bytes  by {row['person']}"])


@command(group, "get")
async def get(
    session: Session,
    source: Annotated[
        str, typer.Argument(metavar="ID", help="Of a task, or as `put` gave it", autocompletion=complete.tasks)
    ],
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Of what a task has kept; the newest of the name")] = "",
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write; it must not be there yet")],
) -> Answer:
    """Write an artifact into a file, every part of it verified. It has its name only when it is whole."""
    from ..actors.errors import InputError, StatementError

    if output.exists():
        raise InputError(f"{output} is there already: name another file")
    scratch = output.with_name(f".{output.name}.{os.getpid()}")
    async with session.party() as party:
        try:
            found = await party.artifacts.find(source, name)
        except InputError as error:
            raise NotFoundError(str(error)) from error
        if found.trouble:
            raise StatementError(f"who put {source} is not proved: {found.trouble}")
        try:
            with os.fdopen(os.open(scratch, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
                async for piece in party.artifacts.pieces(found.artifact):
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            os.link(scratch, output)
        except OSError as error:
            raise InputError(f"{output} cannot be written: {error.strerror}") from error
        finally:
            scratch.unlink(missing_ok=True)
    where = "id" if found.person else "task"
    data = {where: source, "name": found.artifact.name, "size": found.artifact.size, "file": str(output)}
    return Answer(data, [f"{output}: {found.artifact.size:,} bytes"])


def _row(kept: "Kept") -> dict[str, Any]:
    one = kept.artifact
    return {"name": one.name, "size": one.size, "parts": one.parts, "blob": one.blob.hex()}


def _row_put(kept: "Kept") -> dict[str, Any]:
    return {"id": kept.source, **_row(kept), "person": kept.person, "time": iso(kept.time), "trouble": kept.trouble}
