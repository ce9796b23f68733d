"""`party task fork|diff|export|debug`: going on from a task's past, and going over it again elsewhere."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import complete
from .output import NO, Answer, safe
from .session import Session, command

if TYPE_CHECKING:
    from ..actors.bundle import Bundle
    from ..actors.past import Recorded
    from ..actors.rehearsal import Rehearsed

Place = Annotated[
    str, typer.Argument(metavar="ID|FILE[@REV]", help="A task, or an exported file", autocompletion=complete.tasks)
]
Root = Annotated[str, typer.Option(help="The key, in hex, of the log that the file must be of: from its owner")]
_READABLE = "it holds readable payloads and the keys to them: whoever has it can read what the task did"


def register(group: typer.Typer) -> None:
    """Add the commands to those of tasks."""
    for name, work in (("fork", fork), ("diff", diff), ("export", export), ("debug", debug)):
        command(group, name)(work)


def place_of(text: str) -> tuple[str, int | None]:
    """A task or a file, and the revision after it."""
    from ..actors.errors import InputError

    name, found, revision = text.rpartition("@")
    if not found:
        return text, None
    if not revision.isdigit():
        raise InputError(f"{text!r}: write ID@REVISION, for example abc@12")
    return name, int(revision)


def bundle_at(name: str, root: str) -> "Bundle | None":
    """The bundle in a file of this name, if there is one, checked."""
    from ..actors.bundle import Bundle
    from ..actors.errors import InputError

    path = Path(name)
    if not path.is_file():
        return None
    try:
        key = bytes.fromhex(root)
    except ValueError as error:
        raise InputError(f"--root {root!r} is no key in hex") from error
    return Bundle.read(path, key)


async def fork(
    session: Session,
    task: Place,
    given: Annotated[str, typer.Option("--input", help="JSON object: arguments that replace those recorded")] = "",
    agent: Annotated[str, typer.Option(help="Who does it, by default who did")] = "",
    version: Annotated[str, typer.Option(help="Only this version of the agent")] = "",
    model: Annotated[list[str] | None, typer.Option(help="name=other: use another model; may be repeated")] = None,
    team: Annotated[bool, typer.Option("--team", help="All that it has delegated, and their memories, too")] = False,
    request_id: Annotated[str, typer.Option(help="The same id is the same fork")] = "",
    root: Root = "",
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the result; 0: no limit", min=0)] = 0,
) -> Answer:
    """Go on from a task's past after a revision, with recorded effects reused and something changed. With --app it
    runs here and its result is shown; else whoever has its code runs it."""
    from ..timetravel import changed, fork_task, fork_whole_team
    from .asking import finished

    name, at = place_of(task)
    change = changed(_object(given), agent, version, _pairs(model or []))
    bundle = bundle_at(name, root)
    code = session.settings().app != ""
    async with session.party(code=code, create=bundle is not None) as party:
        told: dict[str, Any] = {"forked": bundle.task if bundle else name}
        if team:
            done = await fork_whole_team(
                party, told["forked"], at=at, change=change, request_id=request_id, past=bundle
            )
            handle, told = party.task(done.task), told | {"members": done.members, "cut": done.cut}
        else:
            handle = await fork_task(party, told["forked"], at=at, change=change, request_id=request_id, past=bundle)
        forked = (await handle.state()).forked
        assert forked is not None
        told |= {"task": handle.id, "revision": forked.revision, "commit": forked.commit.hex(), "log": forked.log.hex()}
        said = f"{handle.id} is forked from {forked.task}@{forked.revision} {forked.commit.hex()[:16]}"
        if not code:
            return Answer(told, [f"{said}; it goes on where its code is"])
        answer = await finished(session, handle, timeout, approve=False, ask=False)
    return Answer({**told, **answer.data}, [said, *answer.shown], answer.code)


def _object(text: str) -> dict[str, Any]:
    from msgspec import DecodeError, json

    from ..actors.errors import InputError

    try:
        return json.decode(text or "{}", type=dict[str, Any])
    except DecodeError as error:
        raise InputError(f"--input is no JSON object: {error}") from error


def _pairs(given: list[str]) -> dict[str, str]:
    from ..actors.errors import InputError

    for pair in given:
        if not all(pair.partition("=")):
            raise InputError(f"--model {pair!r}: write name=other")
    return {pair.partition("=")[0]: pair.partition("=")[2] for pair in given}


async def diff(session: Session, one: Place, other: Place) -> Answer:
    """Show two tasks, or one at two revisions, side by side: the waits of both, only of one, with another outcome."""
    from ..actors.past import LogPast, recorded
    from .plain import changes, plain

    async with session.party() as party:
        past = LogPast(party.stack.log)
        first, second = [await recorded(past, *place_of(text)) for text in (one, other)]
    rows = list(_side_by_side(first, second))
    states = [_state_of(side) for side in (first, second)]
    differences = list(changes(plain(states[0]), plain(states[1])))
    same = not differences and all(row["how"] == "same" for row in rows)
    data = {"one": one, "other": other, "same": same, "waits": rows, "state": differences}
    return Answer(data, [_diff_table(one, other, rows), *(_change(change) for change in differences)])


def _state_of(side: "Recorded") -> dict[str, Any]:
    state = side.state
    ended = {"ended": type(side.ending).__name__.lower(), "outcome": side.ending} if side.ending else {}
    return {"agent": state.agent, "version": state.version, "input": _opened(state.input), **ended}


def _opened(packed: bytes) -> Any:
    from .plain import opened

    return opened(packed)


def _side_by_side(one: "Recorded", other: "Recorded") -> Any:
    """A row for each wait number that either has."""
    for number in range(max(len(one.state.waits), len(other.state.waits))):
        sides = [side.state.waits[number] if number < len(side.state.waits) else None for side in (one, other)]
        shown = [_side(wait) for wait in sides]
        left, right = sides
        how = "only one" if right is None else "only other"
        if left and right:
            same = (left.kind, left.name, left.input) == (right.kind, right.name, right.input)
            outcomes = [(w.settled.value, w.settled.failure) if w.settled else None for w in (left, right)]
            how = "other wait" if not same else "same" if outcomes[0] == outcomes[1] else "other outcome"
        yield {"wait": number, "how": how, "one": shown[0], "other": shown[1]}


def _side(wait: Any) -> dict[str, Any] | None:
    if wait is None:
        return None
    settled = wait.settled
    came = None if settled is None else _opened(settled.value)
    if settled and settled.failure:
        came = f"{settled.failure.kind}: {settled.failure.message}"
    return {"kind": wait.kind, "name": wait.name, "open": settled is None, "outcome": came}


def _diff_table(one: str, other: str, rows: list[dict[str, Any]]) -> Any:
    import json

    from rich.table import Table

    from .plain import plain

    def said(side: dict[str, Any] | None) -> str:
        if side is None:
            return "-"
        came = "open" if side["open"] else json.dumps(plain(side["outcome"]), ensure_ascii=False)
        return safe(f"{side['kind']} {side['name']}: {came}")

    table = Table("wait", "", safe(one), safe(other), box=None)
    for row in rows:
        table.add_row(str(row["wait"]), row["how"], said(row["one"]), said(row["other"]))
    return table


def _change(change: dict[str, Any]) -> str:
    import json

    sides = [json.dumps(change[side], ensure_ascii=False) if side in change else "-" for side in ("before", "after")]
    return safe(f"{change['path']}: {sides[0]} → {sides[1]}")


async def export(
    session: Session,
    task: Annotated[str, typer.Argument(metavar="ID", autocompletion=complete.tasks)],
    out: Annotated[Path, typer.Option("--output", "-o", help="The file to write; there must be none")],
    team: Annotated[bool, typer.Option("--team", help="All that it has delegated, and their memories, too")] = False,
) -> Answer:
    """Write a task into one file, to debug or fork it elsewhere: its record, verifiable, with the keys to read it."""
    from ..actors.bundle import bundle, write_private
    from ..actors.errors import ConfigurationError

    async with session.party() as party:
        data = await bundle(party.stack.log, task, team=team)
        root, log = party.stack.log.identity.root.hex(), party.stack.log.identity.log_id.hex()
    try:
        write_private(out, data)
    except FileExistsError:
        raise ConfigurationError(f"{out} is there already: choose another name") from None
    except OSError as error:
        raise ConfigurationError(f"{out} cannot be written: {error.strerror}") from error
    told = {"task": task, "file": str(out), "bytes": len(data), "root": root, "log": log, "warning": _READABLE}
    return Answer(told, [f"{out}: {len(data):,} bytes, for you alone. {_READABLE}", f"root key  {root}"])


async def debug(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `party task export` wrote")],
    task: Annotated[str, typer.Option(help="Which task of the file, if not the one that was exported")] = "",
    at: Annotated[int | None, typer.Option(help="Only what was recorded by this revision", min=1)] = None,
    wait: Annotated[int | None, typer.Option(help="Only until this wait is asked for", min=0)] = None,
    root: Root = "",
) -> Answer:
    """Go over an exported task with the code of --app: nothing is called, nothing is written. Shows each wait with what
    was recorded, where code and record differ, and where the handler fails, with its local variables."""
    from ..actors.errors import ConfigurationError, InputError
    from ..apps import find_app
    from ..timetravel import rehearsed

    app = session.settings().app
    if not app:
        raise ConfigurationError("name the code that is to go over it: --app module:attribute")
    found = bundle_at(str(file), root)
    if found is None:
        raise InputError(f"there is no file {file}: `party task export ID -o FILE` writes one")
    told = await rehearsed(found, task or found.task, find_app(app), at=at, wait=wait)
    data = {**report(told), "root": found.root.hex(), "log": found.log_id.hex(), "root_checked": bool(root)}
    said = (
        [] if root else [f"the record holds by the root key that the file names, {data['root']}: is it yours? --root"]
    )
    return Answer(data, [*said, *shown(told)], NO if told.differs else 0)


def report(told: "Rehearsed") -> dict[str, Any]:
    """A rehearsal as data."""
    from .plain import plain

    waits = [{"wait": n, "reached": n < told.reached, **(_side(wait) or {})} for n, wait in enumerate(told.waits)]
    return {
        "task": told.task,
        "agent": told.agent,
        "version": told.version,
        "reached": told.reached,
        "waits": waits,
        "differs": told.differs or None,
        "wait": told.wait,
        "asks": list(told.asks),
        "ended": told.ended,
        "result": plain(told.result),
        "error": _error(told.error),
        "notes": list(told.notes),
    }


def _error(error: BaseException | None) -> dict[str, Any] | None:
    if error is None:
        return None
    return {"kind": type(error).__name__, "message": str(error), "traceback": _traceback(error)}


def _traceback(error: BaseException) -> list[str]:
    """Where a handler failed, with local variables; our own frames are left out."""
    import traceback

    told = traceback.TracebackException.from_exception(error, capture_locals=True, compact=True)
    ours = str(Path(__file__).resolve().parents[2])
    kept = [f for f in told.stack if not any(f.filename.startswith(f"{ours}/{p}/") for p in _OURS)]
    told.stack = traceback.StackSummary.from_list(kept or list(told.stack))
    told.__cause__ = told.__context__ = None
    lines = "".join(told.format()).splitlines()
    return ["where it failed, with the local variables there:", *lines[1:]]


_OURS = ("actors", "agent_party", "eventstore", "cluster", "projections")


def shown(told: "Rehearsed") -> list[Any]:
    """The same for people."""
    from .plain import plain

    parts: list[Any] = [
        f"task {told.task} by agent {told.agent} {told.version}: {told.reached} of {len(told.waits)} waits"
    ]
    for number, wait in enumerate(told.waits):
        side = _side(wait) or {}
        mark = "open" if side["open"] else safe(str(plain(side["outcome"])))
        here = "" if number < told.reached else "   (not reached)"
        parts.append(safe(f"  {number}  {side['kind']} {side['name']}: ") + mark + here)
    parts += [safe(f"then it asks for {asked}") for asked in told.asks]
    if told.differs:
        parts.append(safe(f"it differs: {told.differs}"))
    elif told.ended and told.error is None:
        parts.append(safe(f"it returns {plain(told.result)}"))
    elif not told.ended and not told.asks:
        parts.append("it stands where the record ends")
    if told.error is not None:
        parts += [safe(line) for line in _traceback(told.error)]
    return [*parts, *(safe(note) for note in told.notes)]
