"""`party log slices`: where each slice of the log lies, and moving one."""

from typing import Annotated, Any

import typer

from .output import Answer
from .session import Session


async def slices(
    session: Session,
    move: Annotated[int | None, typer.Option(help="Have this slice go on in another lane", min=0)] = None,
    to: Annotated[int | None, typer.Option(help="The lane", min=0)] = None,
) -> Answer:
    """List the slices that hold commits, with the lane of the tape in which each goes on.

    A lane is a partition of a Kafka topic; a SQLite log has one. While a slice is moved, who writes to it waits.
    """
    from rich.table import Table

    from ..actors.errors import InputError
    from ..eventstore.grants import Issuer

    if (move is None) != (to is None):
        raise InputError("--move and --to go together: name the slice and the lane where it is to go on")
    async with session.party() as party:
        log = party.stack.log
        if move is not None and to is not None:
            if move >= log.identity.slices or to >= log.tape.lanes:
                has = f"{log.identity.slices} slices and {log.tape.lanes} lanes"
                raise InputError(f"slice {move} cannot go on in lane {to}: this log has {has}, counted from 0")
            await Issuer(log).move(move, to)
        else:
            await log.refresh()
        rows: list[dict[str, Any]] = [
            {"slice": number, "lane": log.index.lane_of(number), "commits": tree.size, "sealed": bool(state.sealed)}
            for number, (state, tree) in sorted(log.index.parts.items())
        ]
    table = Table("slice", "lane", "commits", "", box=None)
    for row in rows:
        table.add_row(str(row["slice"]), str(row["lane"]), str(row["commits"]), "sealed" if row["sealed"] else "")
    return Answer(rows, [table])
