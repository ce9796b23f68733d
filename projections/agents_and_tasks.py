"""The projection behind `task list`, `agent list` and the DJ's look-ups. It holds no payload: no input, no result."""

from collections.abc import Iterable
from typing import Any

from ..eventstore.reading import Commit, Opaque
from .projection import Add, Delete, Put, Write


class AgentsAndTasks:
    """Views: ``agent`` by name, ``capability`` by capability and agent, ``task`` by id, ``open-task`` by id."""

    name = "agents-and-tasks"
    version = 1

    def writes(self, commit: Commit) -> Iterable[Write]:
        kind, _, key = commit.stream.partition("/")
        for event in commit.events:
            if isinstance(event, Opaque):
                continue
            name = type(event).__event__.name.decode()
            if kind == "task":
                yield from _task(name, event, key, commit)
            elif kind == "agent":
                yield from _agent(name, event, key)


def _task(name: str, event: Any, key: str, commit: Commit) -> Iterable[Write]:
    if name == "task.requested":
        parent = event.parent.task if event.parent else ""
        fields = {"capability": event.capability, "agent": event.agent, "created": commit.time, "parent": parent}
        yield Put("task", key, {"status": "requested", **fields})
        yield Put("open-task", key, {"capability": event.capability, "agent": event.agent})
    elif name == "task.started":
        yield Put("task", key, {"status": "running", "agent": event.agent, "runs": event.runs})
        yield Put("open-task", key, {"agent": event.agent})
    elif name == "task.advanced":
        values = {opened.wait for opened in event.opened if opened.kind == "value"}  # settled where they are opened
        for opened in event.opened:
            if opened.wait not in values:
                yield Put("task", key, {f"open.{opened.wait}": opened.kind})
        for settled in event.settled:
            if settled.wait not in values:
                yield Put("task", key, {f"open.{settled.wait}": None})
                yield Add("task", key, "settled", 1)
    elif name == "task.progressed":
        yield Put("task", key, {"done": event.done, "total": event.total})
    elif name in ("task.completed", "task.failed", "task.cancelled", "task.stopped"):
        yield Put("task", key, {"status": name.removeprefix("task.")})
        if name != "task.stopped":
            yield Delete("open-task", key)
    yield Put("task", key, {"updated": commit.time, "revision": commit.revision})


def _agent(name: str, event: Any, key: str) -> Iterable[Write]:
    if name == "agent.registered":
        capabilities = sorted(event.capabilities)
        fields = {"version": event.version, "capabilities": capabilities, "concurrency": event.concurrency}
        yield Put("agent", key, {"phase": "provisioned", **fields})
        for capability in capabilities:
            yield Put("capability", f"{capability}/{key}", {"agent": key})
    elif name == "agent.joined":
        yield Put("agent", key, {"phase": "running"})
        yield Put("host", f"{key}/{event.host.hex()}", {"agent": key})
    elif name == "agent.left":
        yield Delete("host", f"{key}/{event.host.hex()}")
    elif name == "agent.moved":
        yield Put("agent", key, {"phase": event.phase})
