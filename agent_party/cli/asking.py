"""`party ask`: ask for work by capability, watch it, see to its approvals, print what it comes to."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from . import complete
from .output import Answer
from .session import Session, command

if TYPE_CHECKING:
    from ..handles import TaskHandle
    from ..party import Party

Seconds = Annotated[float, typer.Option(help="Seconds to wait here for the result; 0: as long as it takes", min=0)]
Yes = Annotated[bool, typer.Option("--yes", help="Sign every approval")]
Person = Annotated[str, typer.Option(help="Who signs; by default this user's own id")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "ask")(ask)


async def ask(
    session: Session,
    capability: Annotated[str, typer.Argument(metavar="CAPABILITY", autocompletion=complete.capabilities)],
    given: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE...")] = None,
    given_json: Annotated[str, typer.Option("--input", help="The input as a JSON object; - reads it")] = "",
    artifact: Annotated[list[str] | None, typer.Option(help="KEY=ID of what `party artifact put` put there")] = None,
    request_id: Annotated[str, typer.Option(help="The same id is the same task, ever")] = "",
    within: Annotated[float, typer.Option(help="Seconds the task may take", min=0)] = 0,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the result")] = True,
    timeout: Seconds = 0,
    person: Person = "",
    approve: Yes = False,
) -> Answer:
    """Ask for work. With --app its agents do it here; without, the task waits for a process that has them.

    A VALUE is read as JSON where it is JSON and the capability does not ask for text.
    """
    from .approvals import at_a_terminal

    merged = named(given, given_json)
    more = {"person": person} if person else {}
    asking, watching = not session.as_json and at_a_terminal(), {"approve": approve, "person": person}
    async with session.party(code=True, create=True, **more) as party:
        typed = {name: value for name, value in merged.items() if not isinstance(value, _Text)}
        texts = {name: value for name, value in merged.items() if isinstance(value, _Text)}
        typed |= await _typed(party, capability, texts)
        typed |= {key: (await party.artifacts.find(one)).artifact for key, one in map(_pair, artifact or [])}
        task = await party.using(request_id=request_id, within=within).ask(capability, **typed)
        if wait and party.agents:
            return await finished(session, task, timeout, ask=asking, **watching)
    if not wait:
        return Answer({"task": task.id, "status": "requested"}, [task.id])
    # A process that asked and stays would own the task: whoever has the code could not take it.
    async with session.party() as party:
        return await finished(session, party.task(task.id), timeout, ask=asking, **watching)


async def finished(session: Session, task: "TaskHandle[Any]", timeout: float, **watching: Any) -> Answer:
    from .following import describe, follow
    from .plain import plain

    state = await follow(task, timeout=timeout or None, quiet=session.as_json, **watching)
    if not state.finished:
        from ..actors.errors import DeadlineError

        raise DeadlineError(
            f"task {task.id} has not finished after {timeout:g} s ({describe(state)}); it is on the log and goes on "
            f"when its agent runs: party task watch {task.id}"
        )
    value = plain(await task.result())
    from .approvals import readable

    return Answer({"task": task.id, "status": state.status, "result": value}, readable(value))


def named(given: list[str] | None, given_json: str) -> dict[str, Any]:
    """An input by name, as it was typed; `InputError` says what is none."""
    return _object(given_json) | dict(_pair(text) for text in given or [])


def as_json(values: dict[str, Any]) -> dict[str, Any]:
    """The same, each value read as JSON where it is JSON."""
    return {name: _read(value, False) if isinstance(value, _Text) else value for name, value in values.items()}


def value_of(text: str) -> Any:
    """A value as it was typed: as JSON where it is JSON."""
    return _read(_Text(text), False)


class _Text(str):
    """A value as it was typed."""


def _pair(text: str) -> tuple[str, Any]:
    from ..actors.errors import InputError

    name, found, value = text.partition("=")
    if not found or not name.isidentifier():
        raise InputError(f"{text!r} is no input: write key=value, for example topic=ravens")
    return name, _Text(value)


def _object(text: str) -> dict[str, Any]:
    from ..actors.errors import InputError

    if not text:
        return {}
    try:
        value = msgspec.json.decode(sys.stdin.read() if text == "-" else text)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise InputError(f"--input is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError('--input must be a JSON object, the input by name: {"topic": "ravens"}')
    return value


async def _typed(party: "Party", capability: str, texts: dict[str, _Text]) -> dict[str, Any]:
    """Typed values: text where the capability's declared input is text, else JSON where it is JSON."""
    schema = await _schema(party, capability)
    fields: dict[str, Any] = next((part["properties"] for part in _parts(schema) if "properties" in part), {})
    return {name: _read(text, _is_text(fields.get(name))) for name, text in texts.items()}


async def _schema(party: "Party", capability: str) -> dict[str, Any]:
    for agent in party.agents:
        if capability in agent.capabilities:
            return agent.capabilities[capability].schema()
    for row in await party.stack.registry.agents_with(capability):
        registered = (await party.agent(row.name).state()).registered
        if registered:
            return registered.capabilities.get(capability, {})
    return {}


def _parts(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The schema and what it refers to; the input itself is the part named Input."""
    defined = schema.get("$defs", {})
    return [schema, *(defined[name] for name in ("Input",) if name in defined)]


def _is_text(field: Any) -> bool:
    if not isinstance(field, dict):
        return False
    kinds = {part.get("type") for part in field.get("anyOf", [field]) if isinstance(part, dict)}
    return "string" in kinds and kinds <= {"string", "null"}


def _read(text: _Text, is_text: bool) -> Any:
    try:
        return str(text) if is_text else msgspec.json.decode(str(text))
    except (msgspec.MsgspecError, UnicodeError):
        return str(text)
