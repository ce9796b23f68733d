"""`party task`: what there is, how it stands, and a person's decisions. None of it needs the app's code."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from . import complete
from .asking import Person, Seconds, Yes, finished
from .output import NO, Answer, safe
from .session import Session, command

if TYPE_CHECKING:
    from ..actors.dj import TaskRow
    from ..handles import TaskHandle

group = typer.Typer(help="Tasks: list, show, watch, approve, reject, delegate, cancel.", no_args_is_help=True)
Id = Annotated[str, typer.Argument(metavar="ID", help="The task's id", autocompletion=complete.tasks)]
Name = Annotated[str, typer.Option(help="The approval's name, where several are open")]
Note = Annotated[str, typer.Option(help="A remark, signed with the decision")]
Status = Literal[
    "requested", "running", "waiting", "held", "paused", "cancelling", "stopped", "completed", "failed", "cancelled"
]


@command(group, "list")
async def list_tasks(
    session: Session,
    status: Annotated[Status | None, typer.Option(help="Only those in this status")] = None,
    limit: Annotated[int, typer.Option(help="At most so many, the newest first", min=1)] = 50,
) -> Answer:
    """List tasks, the newest first."""
    async with session.party() as party:
        rows = await party.stack.registry.tasks(limit=100_000)
    found = [row for row in rows if status in (None, row.status)]
    return Answer([_row(row) for row in found[:limit]], [_table(found[:limit], len(found))])


def _row(row: "TaskRow") -> dict[str, Any]:
    from .plain import iso

    times = {"created": iso(row.created), "updated": iso(row.updated), "due": iso(row.due) if row.due else None}
    return {**row._asdict(), "open": list(row.open), **times}


def _table(rows: "list[TaskRow]", found: int) -> Any:
    from rich.table import Table

    from .plain import short_time

    if not rows:
        return "no tasks"
    more = f"{found - len(rows)} more: --limit" if found > len(rows) else None
    table = Table("id", "capability", "agent", "status", "steps", "waits for", "created", box=None, caption=more)
    for row in rows:
        cells = (row.id, row.capability, row.agent, row.status, str(row.steps), ", ".join(row.open))
        table.add_row(*(safe(cell) for cell in cells), short_time(row.created))
    return table


@command(group, "show")
async def show(session: Session, task: Id) -> Answer:
    """Show a task: its state, what it awaited and when, its approvals with what was shown and signed, its result."""
    from .report import of_task, shown

    async with session.party() as party:
        report = await of_task(party, task)
    return Answer(report, shown(report))


@command(group, "watch")
async def watch(session: Session, task: Id, timeout: Seconds = 0, person: Person = "", approve: Yes = False) -> Answer:
    """Watch a task until it has finished. With --app its agents join here, so that it goes on."""
    from .approvals import at_a_terminal

    asking = not session.as_json and at_a_terminal()
    async with session.party(code=session.settings().app != "") as party:
        return await finished(session, party.task(task), timeout, approve=approve, ask=asking, person=person)


@command(group, "approve")
async def approve(
    session: Session,
    task: Id,
    name: Name = "",
    given: Annotated[str, typer.Option("--answer", help="The form's values as JSON; at a terminal you are asked")] = "",
    note: Note = "",
    person: Person = "",
    approve: Yes = False,
) -> Answer:
    """Sign an open approval: your key, over exactly what the task shows. At a terminal you see it first."""
    from .filling import from_json

    more = {"answer": from_json(given)} if given else {}
    return await _decide(session, task, name, note, person, approve, "approve", more)


@command(group, "reject")
async def reject(
    session: Session, task: Id, name: Name = "", note: Note = "", person: Person = "", approve: Yes = False
) -> Answer:
    """Sign that you say no."""
    return await _decide(session, task, name, note, person, approve, "reject", {})


@command(group, "delegate")
async def delegate(
    session: Session,
    task: Id,
    to: Annotated[str, typer.Argument(metavar="PERSON", help="Who decides in your place")],
    name: Name = "",
    note: Note = "",
    person: Person = "",
    approve: Yes = False,
) -> Answer:
    """Sign that somebody else decides in your place."""
    return await _decide(session, task, name, note, person, approve, "delegate", {"to": to})


async def _decide(
    session: Session,
    task: str,
    name: str,
    note: str,
    person: str,
    sure: bool,
    decision: Literal["approve", "reject", "delegate"],
    more: dict[str, Any],
) -> Answer:
    import sys

    from .approvals import asked, asks, at_a_terminal, of_wait, what_is_signed, yes
    from .output import console
    from .plain import opened

    async with session.party() as party:
        handle = party.task(task)
        number, which, _ = await handle.shown(name)
        wait = (await handle.state()).waits[number]
        shown = what_is_signed(wait)
        fill_in = decision == "approve" and "answer" not in more and asks(wait) is not None
        if not session.as_json and at_a_terminal() and (fill_in or not sure):
            out = console(sys.stderr)
            for part in shown:
                out.print(part, soft_wrap=True)
            shown = []
            filled = await asked(wait, out) if fill_in else {}
            if filled is None or not (sure or await yes(f"{decision} it?", out)):
                return Answer({"task": task, "approval": which, "decision": None}, ["nothing was signed"], NO)
            more = {**more, **filled}
        act: Callable[..., Awaitable[None]] = getattr(handle, decision)
        await act(note=note, person=person or None, wait=number, shown=wait, **more)
        who = party.doorman.person(person or party.settings.person or None)[0]
    data = {"task": task, "wait": number, "approval": which, "decision": decision, "person": who, "note": note, **more}
    said = f"{decision}: signed by {who} and left for task {task}, which acts on it as soon as its process runs"
    return Answer({**data, "shown": opened(wait.shown), "terms": of_wait(wait)}, [*shown, said])


@command(group, "proof")
async def proof(
    session: Session, task: Id, wait: Annotated[int, typer.Option(help="The approval's number in `party task show`")]
) -> Answer:
    """Disclose one approval: what was signed, and the key of the one event that asked for it, for whoever checks an
    export. It opens nothing else."""
    from ..proof import proof_of
    from .output import line

    async with session.party() as party:
        found = await proof_of(party, task, wait)
    return Answer(found, [line(found)])


@command(group, "cancel")
async def cancel(
    session: Session,
    task: Id,
    reason: Annotated[str, typer.Option(help="Why, signed with it")] = "",
    person: Person = "",
) -> Answer:
    """Have a task stopped. It stops as soon as its process reads that."""
    async with session.party() as party:
        handle: TaskHandle[Any] = party.task(task)
        await handle.cancel(reason, person=person or None)
        who = party.doorman.person(person or party.settings.person or None)[0]
    data = {"task": task, "decision": "cancel", "person": who, "reason": reason}
    return Answer(data, [f"cancel: signed by {who} and left for task {task}"])
