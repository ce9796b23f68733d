"""The projections behind sessions, configuration and temporary results. They hold no payload.

What expires says so in its field ``expires``, in microseconds since 1970, counted from the time of the event. It is
written like any other field, so that the hash of a projection depends on the log alone; readers leave out what has
expired by their own clock (see docs/decisions/0014).
"""

from collections.abc import Iterable
from typing import Any

from ..eventstore.reading import Commit, Opaque
from .projection import Delete, Put, Read, Write

DAY = 86_400_000_000
RESULT_LASTS = DAY
"""For how long the result of a task is listed, in microseconds. The task's stream has it for ever."""
SESSION_LASTS = DAY
"""For how long a session that has ended is listed."""
EXPIRES = "expires"
_ENDS = {"task.completed": "completed", "task.failed": "failed", "task.cancelled": "cancelled"}


def _events(commit: Commit) -> list[tuple[str, Any]]:
    known = [event for event in commit.events if not isinstance(event, Opaque)]
    return [(type(event).__event__.name.decode(), event) for event in known]


class Sessions:
    """View ``session`` by agent and process: since when an agent's code runs there, and when that ended."""

    name = "sessions"
    version = 1
    by_stream = True

    async def writes(self, commit: Commit, read: Read) -> Iterable[Write]:
        kind, _, agent = commit.stream.partition("/")
        writes: list[Write] = []
        for name, event in _events(commit) if kind == "agent" else []:
            if name == "agent.joined":
                fields = {"agent": agent, "host": event.host.hex(), "since": commit.time, "ended": None, EXPIRES: None}
                writes.append(Put("session", f"{agent}/{event.host.hex()}", fields))
            elif name == "agent.left":
                ended = {"ended": commit.time, EXPIRES: commit.time + SESSION_LASTS}
                writes.append(Put("session", f"{agent}/{event.host.hex()}", ended))
        return writes


class Config:
    """View ``config`` by ``agent/NAME`` (what it registered last) and ``role/NAME`` (who has it)."""

    name = "config"
    version = 1
    by_stream = True

    async def writes(self, commit: Commit, read: Read) -> Iterable[Write]:
        writes: list[Write] = []
        roles: dict[str, list[str]] = {}
        for name, event in _events(commit):
            if name == "agent.registered":
                writes.append(Put("config", commit.stream, _registered(event, commit.time)))
            elif name in ("people.granted", "people.withdrawn"):
                key = f"role/{event.role}"
                people = set(roles[key] if key in roles else (await read("config", key)).get("people", []))
                people = people | {event.person} if name == "people.granted" else people - {event.person}
                roles[key] = sorted(people)
        return [*writes, *(Put("config", key, {"people": people}) for key, people in roles.items())]


def _registered(event: Any, time: int) -> dict[str, Any]:
    return {
        "version": event.version,
        "versions": [event.version, *event.older],
        "capabilities": sorted(event.capabilities),
        "approval": event.approval,
        "concurrency": event.concurrency,
        "updated": time,
    }


class Results:
    """View ``result`` by task: how it ended, and where that stands, until it expires."""

    name = "results"
    version = 1
    by_stream = True

    async def writes(self, commit: Commit, read: Read) -> Iterable[Write]:
        kind, _, task = commit.stream.partition("/")
        writes: list[Write] = []
        for name, event in _events(commit) if kind == "task" else []:
            if name == "task.requested":
                writes.append(Put("result-of", task, {"capability": event.capability}))
            elif name in _ENDS:
                about = next((w.fields for w in writes if isinstance(w, Put)), await read("result-of", task))
                fields = {**about, "status": _ENDS[name], "ended": commit.time, EXPIRES: commit.time + RESULT_LASTS}
                where = {"stream": commit.stream, "revision": commit.revision, "commit": commit.hash.hex()}
                writes += [Delete("result-of", task), Put("result", task, {**fields, **where})]
        return writes


def live(fields: dict[str, Any] | None, now: int) -> bool:
    """Whether there is a document that has not expired. ``now``: microseconds since 1970."""
    return fields is not None and not 0 < fields.get(EXPIRES, 0) <= now
