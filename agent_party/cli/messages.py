"""`party task signal|update|query|pause|resume`: what may be sent to a task while it runs."""

from typing import Annotated, Any

import typer

from . import complete
from .asking import Person, as_json, named, value_of
from .output import Answer
from .session import Session, command
from .tasks import group

Id = Annotated[str, typer.Argument(metavar="ID", help="The task's id", autocompletion=complete.tasks)]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The name that the task knows it by")]
Given = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="The input by name")]
GivenJson = Annotated[str, typer.Option("--input", help="The input as a JSON object; - reads it")]
MessageId = Annotated[str, typer.Option(help="The same id is the same message, ever")]
Deadline = Annotated[float, typer.Option(help="Seconds to wait for the answer", min=0.1)]


@command(group, "signal")
async def signal(
    session: Session,
    task: Id,
    name: Name,
    value: Annotated[str, typer.Argument(metavar="VALUE", help="JSON, or text")] = "null",
    message_id: MessageId = "",
) -> Answer:
    """Send a task a signal. It is on the log at once, and the task gets it when it asks for one of this name."""
    async with session.party() as party:
        await party.task(task).using(message_id=message_id).signal(name, value_of(value))
    return Answer({"task": task, "signal": name, "sent": True}, [f"signal {name}: sent to task {task}"])


@command(group, "update")
async def update(
    session: Session,
    task: Id,
    name: Name,
    given: Given = None,
    given_json: GivenJson = "",
    message_id: MessageId = "",
    deadline: Deadline = 30,
) -> Answer:
    """Have a task change something, and print its answer. With --app it runs here; else where its agent runs."""
    values = as_json(named(given, given_json))
    async with session.party(code=bool(session.settings().app)) as party:
        handle = party.task(task).using(message_id=message_id, deadline=deadline)
        answer = await handle.update(name, **values)
    return _answered(task, "update", name, answer)


@command(group, "query")
async def query(
    session: Session, task: Id, name: Name, given: Given = None, given_json: GivenJson = "", deadline: Deadline = 30
) -> Answer:
    """Ask a task's handler something; nothing is recorded. The code must be here (--app), or on Ray."""
    values = as_json(named(given, given_json))
    async with session.party(code=bool(session.settings().app)) as party:
        answer = await party.task(task).using(deadline=deadline).query(name, **values)
    return _answered(task, "query", name, answer)


def _answered(task: str, kind: str, name: str, answer: Any) -> Answer:
    from .approvals import readable
    from .plain import plain

    return Answer({"task": task, kind: name, "answer": plain(answer)}, readable(plain(answer)))


@command(group, "pause")
async def pause(
    session: Session,
    task: Id,
    reason: Annotated[str, typer.Option(help="Why, signed with it")] = "",
    person: Person = "",
) -> Answer:
    """Let nothing new begin in a task until it is resumed; what is under way ends and is recorded."""
    async with session.party() as party:
        await party.task(task).pause(reason, person=person or None)
    return Answer({"task": task, "decision": "pause", "reason": reason}, [f"pause: signed and left for task {task}"])


@command(group, "resume")
async def resume(session: Session, task: Id, person: Person = "") -> Answer:
    """Let a paused task go on."""
    async with session.party() as party:
        await party.task(task).resume(person=person or None)
    return Answer({"task": task, "decision": "resume"}, [f"resume: signed and left for task {task}"])
