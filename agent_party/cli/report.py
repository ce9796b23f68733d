"""What `party task show` says of a task: everything its stream tells, with times, as data and for people."""

from typing import TYPE_CHECKING, Any

import msgspec

from ..actors.errors import StatementError, UnknownTaskError
from ..actors.events import Advanced, Refused, Settled, Signed, Stated
from ..actors.statements import Approval, decoded, read
from ..actors.task_state import TASK, TaskState, WaitState
from ..actors.versions import lacking
from ..eventstore.reading import Commit, Opaque
from .approvals import in_words, of_wait, readable
from .output import safe
from .plain import iso, opened, plain, short_time

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ..party import Party


async def of_task(party: "Party", task: str) -> dict[str, Any]:
    """The report; `UnknownTaskError` if there is no such task."""
    log, stream = party.stack.log, party.task(task).stream
    await log.refresh()
    if not (await log.state(stream)).revision:
        raise UnknownTaskError(task)
    state, revision, times, opaque = TaskState(), 0, dict[tuple[str, int], int](), list[dict[str, Any]]()
    refused: list[dict[str, Any]] = []
    async for commit in log.read(stream, lenient=True):
        state, revision = TASK.evolve(state, commit), commit.revision
        times |= _times(commit)
        refused += [plain(event) for event in commit.events if isinstance(event, Refused)]
        opaque += [{"revision": revision, **event._asdict()} for event in commit.events if isinstance(event, Opaque)]
    report = plain(state)
    del report["waits"], report["open"]
    return {
        "id": task,
        "revision": revision,
        **report,
        "requested_at": iso(state.requested_at),
        "updated_at": iso(state.updated_at),
        "waiting_for": await _waiting_for(party, state),
        "account": _account(state),
        "waits": [_wait(party, task, number, state.waits[number], times) for number in range(len(state.waits))],
        "refused": refused,
        "left_in_inbox": await _left(party, task, state),
        "opaque": opaque,
    }


def _times(commit: Commit) -> dict[tuple[str, int], int]:
    found: dict[tuple[str, int], int] = {}
    for event in commit.events:
        if isinstance(event, Advanced):
            found |= {("opened", part.wait): commit.time for part in event.opened}
            found |= {("settled", part.wait): commit.time for part in event.settled}
    return found


def _wait(party: "Party", task: str, number: int, wait: WaitState, times: dict[tuple[str, int], int]) -> dict[str, Any]:
    begun, ended = times.get(("opened", number)), times.get(("settled", number))
    told = {
        "wait": number,
        "kind": wait.kind,
        "name": wait.name,
        "status": "open" if wait.settled is None else "failed" if wait.settled.failure else "done",
        "input": opened(wait.input),
        "opened": iso(begun) if begun is not None else None,
        "settled": iso(ended) if ended is not None else None,
        "seconds": round((ended - begun) / 1_000_000, 6) if begun is not None and ended is not None else None,
    }
    if wait.asks_a_person or wait.signed:
        told["terms"] = of_wait(wait)
        told["statements"] = [_statement(party, task, one) for one in wait.signed]
    if wait.settled is None:
        return told
    if wait.kind == "approval" and wait.settled.failure is None:
        return told | {"approval": _approval(party, task, wait.settled)}
    outcome = (
        {"failure": plain(wait.settled.failure)} if wait.settled.failure else {"value": opened(wait.settled.value)}
    )
    return {**told, "attempts": wait.settled.attempts, **outcome}


def _approval(party: "Party", task: str, settled: Settled) -> dict[str, Any]:
    """Who decided what, over what they were shown."""
    try:
        answer = msgspec.msgpack.decode(settled.value, type=Approval)
    except msgspec.MsgspecError as error:
        return {"signature": f"cannot be read: {error}"}
    return _statement(party, task, Signed(settled.wait, answer.person, answer.statement, answer.signature))


def _statement(party: "Party", task: str, signed: Signed) -> dict[str, Any]:
    """What somebody signed, over what they were shown; the signature is checked here, with the person's key."""
    try:
        statement = decoded(signed.statement)
    except StatementError as error:
        return {"signature": f"cannot be read: {error}"}
    try:
        key = party.doorman.person_key(signed.person)
        read(Stated(signed.statement, signed.signature), party.stack.log.identity.log_id, task, key)
        signature = "holds"
    except StatementError as error:
        signature = f"not shown to hold: {error}"
    more = {"to": statement.to} if statement.to else {}
    more |= {"answer": opened(statement.answer)} if statement.answer else {}
    return {
        "decision": statement.decision,
        "person": signed.person,
        "key": statement.key.hex(),
        "note": statement.note,
        "signed": iso(statement.time),
        "shown": opened(statement.shown),
        **more,
        "signature": signature,
    }


def _account(state: TaskState) -> str:
    """How the task's budget stands, in words; empty if it has none."""
    if state.budget is None:
        return ""
    reserved = f", {state.reserved} reserved" if state.reserved else ""
    raised = f" (raised by {state.raised})" if state.raised else ""
    return f"{state.budget}{raised}: {state.spent} spent{reserved}"


async def _left(party: "Party", task: str, state: TaskState) -> list[dict[str, Any]]:
    """Statements that the task's process has not read yet."""
    found = []
    inbox = f"inbox/{party.task(task).stream}"
    async for commit in party.stack.log.read(inbox, state.inbox + 1, lenient=True):
        for event in commit.events:
            said = opened(event.statement) if isinstance(event, Stated) else None
            if isinstance(said, dict) and not state.finished:
                shown = {name: said.get(name) for name in ("decision", "name", "person", "note")}
                found.append({"revision": commit.revision, **shown})
    return found


async def _waiting_for(party: "Party", state: TaskState) -> str:
    """What the task lacks to go on, in words; empty if nothing."""
    waits = [f"{state.waits[n].kind} {state.waits[n].name}" for n in sorted(state.open)]
    if not state.finished and state.status != "waiting":
        waits = []
    able = [row for row in await party.stack.registry.agents_with(state.capability) if row.hosts]
    # Where nothing has joined at all, the program is not running: of a task that waits that says nothing.
    runs = any(row.hosts for row in await party.stack.registry.agents())
    if not (state.finished or any(row.name == state.agent or not state.agent for row in able)) and (runs or not waits):
        waits.append(lacking(state))
    return ", ".join(waits)


def shown(report: dict[str, Any]) -> "list[RenderableType]":
    """The report for people."""
    from rich.table import Table
    from rich.text import Text

    head = Table.grid(padding=(0, 2))
    progress = report["progress"]
    told = f"{progress['done']}/{progress['total'] or '?'} {progress['note']}".strip() if progress else ""
    for name, value in [
        ("task", report["id"]),
        ("status", report["status"]),
        ("waits for", report["waiting_for"]),
        ("capability", report["capability"]),
        ("agent", f"{report['agent']} {report['version']}".strip()),
        ("asked by", report["by"]),
        ("requested", report["requested_at"]),
        ("updated", report["updated_at"]),
        ("progress", told),
        ("runs", str(report["runs"])),
        ("budget", report["account"]),
        ("input", _brief(report["input"])),
    ]:
        if value:
            head.add_row(Text(name, style="dim"), safe(value))
    parts: list[RenderableType] = [head]
    if report["waits"]:
        parts += ["", _timeline(report["waits"])]
    for wait in report["waits"]:
        if wait["kind"] == "approval":
            parts += ["", *_signed(wait)]
    parts += [safe(f"refused, {one['person']}: {one['reason']}") for one in report["refused"]]
    parts += [f"in the inbox, not read yet: {safe(_brief(left))}" for left in report["left_in_inbox"]]
    parts += [f"revision {part['revision']}: {part['type']}: {safe(part['reason'])}" for part in report["opaque"]]
    return [*parts, *_outcome(report)]


def _timeline(waits: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table("wait", "kind", "name", "opened", "took", "outcome", box=None)
    for wait in waits:
        outcome = wait.get("failure") or wait.get("value") or wait.get("approval", {}).get("decision")
        said = _brief(outcome, 60)
        took = f"{wait['seconds']:.3f} s" if wait["seconds"] is not None else wait["status"]
        cells = (wait["kind"], wait["name"], (wait["opened"] or "").replace("T", " ")[:19], took)
        table.add_row(str(wait["wait"]), *(safe(cell) for cell in cells), "" if outcome is None else safe(said))
    return table


def _signed(wait: dict[str, Any]) -> "list[RenderableType]":
    from rich.text import Text

    approval = wait.get("approval")
    title = Text(f"approval {safe(wait['name'])!r} shows:", style="bold")
    parts: list[RenderableType] = [title, *readable(wait["input"]), *(safe(line) for line in in_words(wait["terms"]))]
    deciding = [approval] if approval else []
    parts += [_said(one) for one in [*wait["statements"], *deciding]]
    if "failure" in wait:
        return [*parts, safe(f"not approved: {wait['failure']['message']}")]
    return parts if wait["statements"] or deciding else [*parts, "open: nobody has signed yet"]


def _said(one: dict[str, Any]) -> str:
    note = f" ({one['note']})" if one.get("note") else ""
    answer = f", answering {_brief(one['answer'])}" if "answer" in one else ""
    to = f" to {one['to']}" if "to" in one else ""
    who = f"{one.get('decision', '?')}{to} by {one.get('person', '?')}, {one.get('signed', '')}{answer}{note}"
    return safe(f"{who}; signature {one['signature']}")


def _outcome(report: dict[str, Any]) -> "list[RenderableType]":
    from rich.text import Text

    if report["status"] == "completed":
        return ["", Text("result:", style="bold"), *readable(report["result"])]
    if report["cancelled"]:
        return ["", safe(f"cancelled by {report['cancelled']['by']}: {report['cancelled']['reason']}")]
    if report["failure"]:
        return ["", safe(f"{report['failure']['kind']}: {report['failure']['message']}")]
    return []


def _brief(value: Any, width: int = 200) -> str:
    import json

    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= width else f"{text[: width - 1]}…"


__all__ = ["of_task", "short_time", "shown"]
