"""What a run has come to, as the log tells it: tasks, memories, entities; and when each wait was opened and settled."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from ..actors.activation import load
from ..actors.agent_state import AGENT
from ..actors.task_state import TASK, TaskState, WaitState
from ..eventstore.log import Log
from ..eventstore.reading import Commit
from ..eventstore.verify import parse

_CHANCE = frozenset({"value", "sleep"})
_NAMES = 1_000


class Mark(NamedTuple):
    """One wait on the log: the places on the tape of its opening and of its outcome (None: it has none), the time at
    which that was recorded, and for a sleep the time at which it was due; in microseconds since 1970."""

    opened: int
    settled: int | None
    time: int
    due: int


class Ending(NamedTuple):
    """What a task has come to. ``waits``: kind, name and outcome of each, sorted; without time and chance."""

    capability: str
    status: str
    result: Any
    failure: str
    waits: tuple[tuple[str, str, str], ...]


class History(NamedTuple):
    """``tasks`` and ``memories`` by id and name, ``entities`` by stream, ``marks`` by task and wait."""

    tasks: dict[str, Ending]
    memories: dict[str, dict[str, Any]]
    entities: dict[str, tuple[Any, ...]]
    marks: dict[tuple[str, int], list[Mark]]


async def history(log: Log, records: Iterable[bytes]) -> History:
    """Read a log whose tape holds these records."""
    places = {parse(raw).commit: place for place, raw in enumerate(records, 1)}
    told = History({}, {}, {}, {})
    for stream in _streams(log):
        kind, _, name = stream.partition("/")
        if kind == "task":
            told.tasks[name] = await _task(log, stream, name, places, told.marks)
        elif kind == "agent":
            memory = (await load(log, AGENT, stream, snapshots=None)).state.memory
            told.memories[name] = {key: msgspec.msgpack.decode(value) for key, value in sorted(memory.items())}
        elif kind not in ("inbox", "keys"):
            events = [event async for commit in log.read(stream, lenient=True) for event in commit.events]
            told.entities[stream] = tuple(events)
    return told


def _streams(log: Log) -> list[str]:
    found: list[str] = []
    while names := log.streams("", found[-1] if found else "", _NAMES):
        found += names
    return found


async def _task(
    log: Log, stream: str, task: str, places: dict[bytes, int], marks: dict[tuple[str, int], list[Mark]]
) -> Ending:
    state = TASK.initial()
    async for commit in log.read(stream):
        state = TASK.evolve(state, commit)
        for number, wait in enumerate(state.waits):
            _mark(marks.setdefault((task, number), []), wait, commit, places)
    return _ending(state)


def _mark(marks: list[Mark], wait: WaitState, commit: Commit, places: dict[bytes, int]) -> None:
    opened = places[wait.opened]
    if not marks or marks[-1].opened != opened:  # a handler that began anew opens the same number again
        marks.append(Mark(opened, None, 0, _due(wait)))
    if wait.settled is not None and marks[-1].settled is None:
        due = 0 if wait.settled.failure else marks[-1].due  # one that nobody awaits any more is over at any time
        marks[-1] = marks[-1]._replace(settled=places[commit.hash], time=commit.time, due=due)


def _due(wait: WaitState) -> int:
    if wait.kind != "sleep":
        return 0
    given = msgspec.msgpack.decode(wait.input)
    return int(getattr(wait, "due", 0) or (given if isinstance(given, int) else 0))


def _ending(state: TaskState) -> Ending:
    result = msgspec.msgpack.decode(state.result) if state.result is not None else None
    failure = state.failure if state.status == "failed" else None
    waits = sorted((wait.kind, wait.name, _outcome(wait)) for wait in state.waits if wait.kind not in _CHANCE)
    return Ending(
        state.capability, state.status, result, f"{failure.kind}: {failure.message}" if failure else "", tuple(waits)
    )


def _outcome(wait: WaitState) -> str:
    """An outcome as text; of an approval only what was decided, since its signature covers hashes and times, and of an
    artifact its content's hash, since it is kept under a random key."""
    if wait.settled is None:
        return "open"
    if wait.settled.failure:
        return f"{wait.settled.failure.kind}: {wait.settled.failure.message}"
    value = msgspec.msgpack.decode(wait.input if wait.name.startswith("artifact ") else wait.settled.value)
    if wait.kind == "approval" and isinstance(value, dict):
        return "approved" if value.get("approved") else "rejected"
    return repr(value)
