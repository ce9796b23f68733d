"""The projection behind `task list`, `agent list`, the DJ's look-ups and the supervisors: what there is, and what could
run. It holds no payload: no input, no result."""

from collections.abc import Iterable, Mapping
from typing import Any

from ..eventstore.reading import Commit, Opaque
from . import task_rows
from .projection import Add, Delete, Put, Read, Write
from .task_rows import ENDED, Row

OUTCOMES = 100
"""Of how many tasks an agent's record says how they ended."""
_QUEUED = {"requested": "queued", "stopped": "queued", "running": "running", "cancelling": "running",
           "waiting": "waiting", "held": "waiting", "paused": "waiting"}  # fmt: skip


class AgentsAndTasks:
    """Views: ``agent`` by name, ``capability`` by capability and agent, ``host`` by agent and process, ``load`` by
    agent; ``task`` by id, and of the unfinished ones ``open-task`` by id, ``runnable`` by capability and id, ``due`` by
    capability, time and id, ``orphan`` by id.

    So a supervisor that asks for what could run reads that, however many tasks wait.
    """

    name = "agents-and-tasks"
    version = 2

    async def writes(self, commit: Commit, read: Read) -> Iterable[Write]:
        kind, _, key = commit.stream.partition("/")
        if kind == "task":
            return await _task(key, commit, read)
        if kind == "agent":
            return await _agent(key, commit, read)
        if kind == "inbox" and key.startswith("task/") and commit.events:
            return await _left(key.removeprefix("task/"), commit, read)
        return []


async def _task(task: str, commit: Commit, read: Read) -> list[Write]:
    old = await read("task", task)
    if old.get("status") in ENDED:
        return []
    new = task_rows.evolve(old, commit)
    writes = _moved(task, old, new)
    if parent := new.get("parent"):
        writes += await _tell(parent, task, old, new, read)
    if new.get("status") in ENDED:
        writes += [Put("orphan", child, {"parent": task}) for child in task_rows.left_behind(old)]
    return [*writes, *await _load(task, old, new, commit.time, read)]


def _moved(task: str, old: Mapping[str, Any], new: Row) -> list[Write]:
    """From one row to the next, and from the entries of one to those of the other."""
    before, after = task_rows.entries(task, old), task_rows.entries(task, new)
    changed = {name: new.get(name) for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
    return [
        *([Put("task", task, changed)] if changed else []),
        *(Delete(*name) for name in before if name not in after),
        *(Put(*name, fields) for name, fields in after.items() if before.get(name) != fields),
    ]


async def _tell(parent: str, task: str, old: Mapping[str, Any], new: Row, read: Read) -> list[Write]:
    """What a child's beginning and end change about its parent."""
    above = await read("task", parent)
    over = above.get("status") in ENDED
    if not old.get("status"):
        orphan: list[Write] = [Put("orphan", task, {"parent": parent})] if over and not new.get("detached") else []
        return orphan if over else _moved(parent, above, task_rows.child_asked(above, task, new))
    if new["status"] not in ENDED:
        return []
    told = [] if over else _moved(parent, above, task_rows.child_ended(above, task, new["wait"]))
    return [Delete("orphan", task), *told]


async def _left(task: str, commit: Commit, read: Read) -> list[Write]:
    """Something was left in a task's inbox."""
    old = await read("task", task)
    if old.get("status") in ENDED:
        return []
    return _moved(task, old, {**old, "left": max(old.get("left", 0), commit.revision)})


async def _load(task: str, old: Mapping[str, Any], new: Row, time: int, read: Read) -> list[Write]:
    """What an agent has to do, and how its last tasks ended."""
    was, now = _QUEUED.get(task_rows.status_of(old)), _QUEUED.get(task_rows.status_of(new))
    before, agent = old.get("agent", ""), new.get("agent", "")
    writes: list[Write] = []
    if (before, was) != (agent, now):
        writes += [Add("load", before, was, -1)] if was and before else []
        writes += [Add("load", agent, now, 1)] if now and agent else []
    if agent and new.get("status") in ENDED:
        known = [*(await read("load", agent)).get("outcomes", []), [time, task, new["status"]]]
        writes.append(Put("load", agent, {"outcomes": sorted(known)[-OUTCOMES:]}))
    if agent and new.get("updated") != old.get("updated"):
        last = max(time, (await read("load", agent)).get("last", 0))
        writes.append(Put("load", agent, {"last": last}))
    return writes


async def _agent(agent: str, commit: Commit, read: Read) -> list[Write]:
    phase, writes = (await read("agent", agent)).get("phase", "template"), list[Write]()
    for event in commit.events:
        if isinstance(event, Opaque):
            continue
        match type(event).__event__.name.decode():
            case "agent.registered":
                phase = "provisioned" if phase == "template" else phase
                writes += _registered(agent, event)
            case "agent.joined":
                phase = "running" if phase == "provisioned" else phase
                writes.append(Put("host", f"{agent}/{event.host.hex()}", {"agent": agent}))
            case "agent.left":
                writes.append(Delete("host", f"{agent}/{event.host.hex()}"))
            case "agent.moved":
                phase = "draining" if event.draining and event.phase != "paused" else event.phase
    return [*writes, Put("agent", agent, {"phase": phase})] if commit.events else []


def _registered(agent: str, event: Any) -> list[Write]:
    capabilities = sorted(event.capabilities)
    fields = {"version": event.version, "capabilities": capabilities, "concurrency": event.concurrency}
    return [
        Put("agent", agent, fields),
        *(Put("capability", f"{capability}/{agent}", {"agent": agent}) for capability in capabilities),
    ]
