"""A task as the views hold it: a fold of its stream without any payload, and what can be asked of it."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from ..eventstore.reading import Commit, Opaque

DURABLE = frozenset({"approval", "child", "sleep", "signal", "update"})
"""Kinds of waits that may take days: `actors.events.DURABLE`, which a projection cannot import."""
ENDED = frozenset({"completed", "failed", "cancelled"})
_OF_THE_LIVING = ("open", "due", "held", "kids", "ended", "paused", "cancelling", "deadline", "holder", "grant",
                  "fenced", "left", "inbox", "next")  # fmt: skip
_NESTED = ("open", "due", "held", "kids", "ended")
Row = dict[str, Any]


def evolve(row: Mapping[str, Any], commit: Commit) -> Row:
    """The row after a commit of the task's own stream."""
    new = {**row, **{name: dict(row.get(name, {})) for name in _NESTED}}
    if commit.control:
        _granted(new, *commit.control, commit.hash)
    for event in commit.events:
        if not isinstance(event, Opaque):
            _evolve(new, type(event).__event__.name.decode(), event, commit)
    if commit.events:
        new["updated"], new["revision"] = commit.time, commit.revision
    return tidied(new)


def tidied(row: Row) -> Row:
    """Without what is empty, and without what an ended task needs no more."""
    gone = _OF_THE_LIVING if row.get("status") in ENDED else ()
    return {name: value for name, value in row.items() if name not in gone and value not in ({}, None)}


def _granted(row: Row, kind: str, payload: bytes, commit: bytes) -> None:
    if kind == "grant":
        row["holder"], row["grant"] = payload[33:49].hex(), commit.hex()
    elif kind == "fence":
        row["fenced"] = payload.hex()


def _evolve(row: Row, name: str, event: Any, commit: Commit) -> None:
    match name:
        case "task.requested":
            row |= {"status": "requested", "capability": event.capability, "agent": event.agent}
            row |= {"created": commit.time, "parent": event.parent.task if event.parent else ""}
            row["wait"] = str(event.parent.wait) if event.parent else None
            row["detached"] = event.detached or None
            row["deadline"] = commit.time + int(event.within * 1_000_000) if event.within else None
        case "task.started":
            row |= {"status": "running", "agent": event.agent, "runs": event.runs}
        case "task.advanced":
            _advance(row, event)
        case "task.held":
            row["held"][str(event.wait)] = True
        case "task.freed":
            row["held"].pop(str(event.wait), None)
        case "task.escalated":
            row["due"] |= {str(event.wait): event.due}
        case "task.paused" | "task.cancelling":
            row[name.removeprefix("task.")] = True
        case "task.resumed":
            row["paused"] = None
        case "task.received":
            row["inbox"] = max(row.get("inbox", 0), event.inbox)
        case "task.progressed":
            row |= {"done": event.done, "total": event.total}
        case "task.diverged" | "task.continued":
            _drop(row, event.wait if name == "task.diverged" else 0)
        case "task.completed" | "task.failed" | "task.cancelled" | "task.stopped":
            row["status"] = name.removeprefix("task.")


def _advance(row: Row, event: Any) -> None:
    values = {opened.wait for opened in event.opened if opened.kind == "value"}  # settled where they are opened
    for opened in event.opened:
        row["next"] = opened.wait + 1
        if opened.wait not in values:
            row["open"][str(opened.wait)] = opened.kind
            if opened.due:
                row["due"][str(opened.wait)] = opened.due
    for settled in event.settled:
        if settled.wait not in values:
            row["settled"] = row.get("settled", 0) + 1
            for field in ("open", "due", "held", "ended"):
                row[field].pop(str(settled.wait), None)
    row["inbox"] = max(row.get("inbox", 0), event.inbox)


def _drop(row: Row, first: int) -> None:
    """The waits from one on are forgotten."""
    for field in ("open", "due", "held", "ended"):
        row[field] = {wait: value for wait, value in row[field].items() if int(wait) < first}
    row["next"] = first


def child_asked(parent: Mapping[str, Any], child: str, row: Mapping[str, Any]) -> Row:
    """The parent's row, when one of its children was asked for."""
    kids = {**parent.get("kids", {}), row["wait"]: [child, bool(row.get("detached"))]}
    return tidied({**parent, "kids": kids})


def child_ended(parent: Mapping[str, Any], child: str, wait: str) -> Row:
    """The parent's row, when one of its children has come to its end."""
    kids, ended = dict(parent.get("kids", {})), dict(parent.get("ended", {}))
    if kids.get(wait, [""])[0] == child:
        kids[wait] = ["", True]
        if wait in parent.get("open", {}) or int(wait) >= parent.get("next", 0):
            ended[wait] = True
    return tidied({**parent, "kids": kids, "ended": ended})


def left_behind(row: Mapping[str, Any]) -> list[str]:
    """The children that must end with this task."""
    return [child for child, detached in row.get("kids", {}).values() if child and not detached]


# What can be asked of a row


def status_of(row: Mapping[str, Any]) -> str:
    """The task's status, as its own fold has it; and held, where a person must let it go on."""
    status = str(row.get("status", ""))
    if status in ENDED or status in ("", "requested", "stopped"):
        return status
    if row.get("cancelling"):
        return "cancelling"
    if row.get("paused"):
        return "paused"
    if not _is_quiet(row):
        return "running"
    return "held" if row.get("held") else "waiting"


def _is_quiet(row: Mapping[str, Any]) -> bool:
    held, waits = row.get("held", {}), row.get("open", {})
    return bool(waits) and all(kind in DURABLE or wait in held for wait, kind in waits.items())


def holder_of(row: Mapping[str, Any]) -> str:
    """Who has the task, as hex; empty if nobody does."""
    return str(row.get("holder", "")) if row.get("grant") != row.get("fenced") else ""


def due_of(row: Mapping[str, Any]) -> int:
    """When time next moves the task on, in microseconds since 1970; 0 if it does not."""
    times = [] if row.get("paused") else [due for due in row.get("due", {}).values() if due]
    return min([*times, *([row["deadline"]] if row.get("deadline") else [])], default=0)


def reason_to_run(row: Mapping[str, Any]) -> str:
    """Why somebody should run the task now; empty if nothing would come of it. Another reason is another text."""
    status = status_of(row)
    if status in ENDED or not status:
        return ""
    mail = row.get("left", 0) if row.get("left", 0) > row.get("inbox", 0) else 0
    if status in ("waiting", "held", "paused"):
        kids = {wait for wait, kind in row.get("open", {}).items() if kind == "child"}
        moved = sorted(kids & row.get("ended", {}).keys() | kids - row.get("kids", {}).keys())
        if status == "paused":
            moved = []
        return f"{status} {row.get('revision', 0)} {mail} {','.join(moved)}" if mail or moved else ""
    return status


def entries(task: str, row: Mapping[str, Any]) -> dict[tuple[str, str], Row]:
    """The documents of other views by which an unfinished task is found."""
    status = row.get("status", "")
    if status in ENDED or not status:
        return {}
    capability = quote(row["capability"], safe="")
    common = {"capability": row["capability"], "agent": row["agent"]}
    found: dict[tuple[str, str], Row] = {("open-task", task): common}
    who = {**common, "holder": holder_of(row), "runs": row.get("runs", 0)}
    if reason := reason_to_run(row):
        found["runnable", f"{capability}/{task}"] = {**who, "reason": reason}
    if due := due_of(row):
        found["due", f"{capability}/{due:020d}/{task}"] = who
    return found
