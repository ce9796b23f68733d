"""The projection behind lists and counts of tasks, and what is being worked at now. It holds no payload."""

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from ..eventstore.reading import Commit
from . import task_rows
from .projection import Add, Delete, Put, Read, Write
from .task_rows import ENDED, Row

_SHOWN = ("capability", "agent", "created", "updated", "done", "total", "parent")


class TaskLists:
    """Views: ``active`` by agent and task, with the last progress, of the tasks that are not at their end;
    ``tasks-by-status``, ``tasks-by-agent`` and ``tasks-by-capability`` by that and id; ``task-count`` by
    ``status/STATUS``, ``agent/AGENT/STATUS`` and ``capability/CAPABILITY/STATUS``; ``task-row``: for itself."""

    name = "task-lists"
    version = 1

    async def writes(self, commit: Commit, read: Read) -> Iterable[Write]:
        kind, _, task = commit.stream.partition("/")
        if kind != "task":
            return []
        old = await read("task-row", task)
        if old.get("status") in ENDED:
            return []
        new = task_rows.evolve(old, commit)
        before, after = _entries(task, old), _entries(task, new)
        return [
            Delete("task-row", task),
            Put("task-row", task, {"status": new["status"]} if new.get("status") in ENDED else new),
            *(Delete(*name) for name in before if name not in after),
            *(Put(*name, fields) for name, fields in after.items() if before.get(name) != fields),
            *(Add("task-count", key, "n", -1) for key in _counts(old)),
            *(Add("task-count", key, "n", 1) for key in _counts(new)),
        ]


def _entries(task: str, row: Mapping[str, Any]) -> dict[tuple[str, str], Row]:
    """The documents in which a task is listed."""
    status = task_rows.status_of(row)
    if not status:
        return {}
    agent, capability = quote(row.get("agent", ""), safe=""), quote(row.get("capability", ""), safe="")
    short = {"status": status, "created": row.get("created", 0)}
    found: dict[tuple[str, str], Row] = {
        ("tasks-by-status", f"{status}/{task}"): short,
        ("tasks-by-capability", f"{capability}/{task}"): short,
    }
    if agent:
        found["tasks-by-agent", f"{agent}/{task}"] = short
    if agent and status not in ENDED:
        shown = {name: row[name] for name in _SHOWN if row.get(name)}
        found["active", f"{agent}/{task}"] = {**shown, "task": task, "status": status}
    return found


def _counts(row: Mapping[str, Any]) -> list[str]:
    """The keys under which a task is counted."""
    status = task_rows.status_of(row)
    if not status:
        return []
    agent, capability = quote(row.get("agent", ""), safe=""), quote(row.get("capability", ""), safe="")
    agents = [f"agent/{agent}/{status}"] if agent else []
    return [f"status/{status}", f"capability/{capability}/{status}", *agents]
