"""`party artifact`: documents and files that tasks have kept, out of the blobs and into a file."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from . import complete
from .output import Answer, NotFoundError
from .session import Session, command

if TYPE_CHECKING:
    from ..eventstore.artifacts import Artifact
    from ..party import Party

group = typer.Typer(help="What tasks have kept: list, get.", no_args_is_help=True)
Task = Annotated[str, typer.Argument(metavar="TASK", help="The task's id", autocompletion=complete.tasks)]


@command(group, "list")
async def list_artifacts(session: Session, task: Task) -> Answer:
    """List the artifacts that a task has kept, in the order of its waits."""
    async with session.party() as party:
        found = await _artifacts(party, task)
    rows: list[dict[str, Any]] = [
        {"name": one.name, "size": one.size, "parts": one.parts, "blob": one.blob.hex()} for one in found
    ]
    lines = [f"{row['name']}  {row['size']:,} bytes  {row['blob'][:16]}" for row in rows]
    return Answer(rows, lines or [f"task {task} has kept nothing"])


@command(group, "get")
async def get(
    session: Session,
    task: Task,
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `list` shows it; the newest of the name")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write; it must not be there yet")],
) -> Answer:
    """Write an artifact into a file, every part of it verified. It has its name only when it is whole."""
    from ..actors.errors import InputError
    from ..eventstore.artifacts import fetch_pieces

    if output.exists():
        raise InputError(f"{output} is there already: name another file")
    scratch = output.with_name(f".{output.name}.{os.getpid()}")
    async with session.party() as party:
        found = [one for one in await _artifacts(party, task) if one.name == name]
        if not found:
            raise NotFoundError(f"task {task} has kept nothing named {name!r}: `party artifact list {task}`")
        try:
            with os.fdopen(os.open(scratch, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
                async for piece in fetch_pieces(party.stack.log, found[-1]):
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            os.link(scratch, output)
        except OSError as error:
            raise InputError(f"{output} cannot be written: {error.strerror}") from error
        finally:
            scratch.unlink(missing_ok=True)
    data = {"task": task, "name": name, "size": found[-1].size, "file": str(output)}
    return Answer(data, [f"{output}: {found[-1].size:,} bytes"])


async def _artifacts(party: "Party", task: str) -> "list[Artifact]":
    from ..eventstore.artifacts import Artifact

    state = await party.task(task).state()
    settled = [wait.settled for wait in state.waits if wait.name.startswith("artifact ") and wait.settled]
    return [msgspec.msgpack.decode(one.value, type=Artifact) for one in settled if one.attachments]
