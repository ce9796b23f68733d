"""Forks of whole teams: a task, all that it has delegated, and the memories of their agents, as of one moment.

The moment is a consistent cut (see `cut`): nothing was received in it that was not sent in it. What was sent in it and
not yet received is on its way in the fork too. The root's first commit is written last and makes the fork: before it
is on the log, no task of the team goes on.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec

from ..eventstore.log import Log
from .activation import Fold, Folded
from .agent_events import Branched
from .agent_state import AGENT
from .cut import Cut, greatest
from .cut import past as past_of
from .decider import stream_of
from .delegation import child_id
from .doorman import Doorman
from .errors import InputError, MovedError
from .events import Advanced, Forked, Parent, Received, Settled, Source, TeamCut
from .fork import Birth, Change, Swaps, cause_in, found, is_founded, opening
from .past import Past, Recorded, as_it_was
from .task_state import TASK, WaitState
from .team import Team, command_id, history_of, is_left, starts_task, team_of
from .teams import forked_at, memory_of, message_id
from .work import wait_key

At = int | datetime | None
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


_CUT: Fold[None] = Fold(lambda: None, lambda state, commit: None, None, "fork/1")


class TeamFork(NamedTuple):
    """``task``: the fork of the root; ``members``: the fork of each task; ``cut``: the revision of each stream."""

    task: str
    members: dict[str, str]
    cut: Cut


class Plan(NamedTuple):
    """``recorded``: each task that is forked, as of the cut, the root first; ``births``: the forks to be."""

    team: Team
    cut: Cut
    recorded: dict[str, Recorded]
    births: dict[str, Birth]


def moment(team: Team, at: At) -> Cut:
    """The greatest consistent cut of a team not beyond a revision of its root, or a time. By a revision of the root it
    is what had happened by the time of that commit, and whatever that commit follows from."""
    history, streams, root = history_of(team), team.streams, stream_of("task", team.root)
    last = len(streams[root])
    if isinstance(at, int) and not 1 <= at <= last:
        raise InputError(f"task {team.root} has no revision {at}: it is at {last}")
    if at is None:
        bound = {stream: len(commits) for stream, commits in streams.items()}
    else:
        time = (
            streams[root][at - 1].time
            if isinstance(at, int)
            else (at.astimezone(UTC) - _EPOCH) // timedelta(microseconds=1)
        )
        bound = {
            stream: next((n for n, commit in enumerate(commits) if commit.time > time), len(commits))
            for stream, commits in streams.items()
        }
    if isinstance(at, int):
        needed = past_of(history, (root, at))
        bound = {stream: max(bound[stream], needed[stream]) for stream in bound} | {root: at}
    cut = greatest(history, bound)
    if not cut[root]:
        raise InputError(f"task {team.root} was not there yet at {at}: give a later moment")
    return cut


def plan(team: Team, cut: Cut, task: str, by: str, now: int, change: Change) -> Plan:
    """Who is forked, and how. ``task``: the id of the root's fork. Pure."""
    members: dict[str, str] = {}
    recorded: dict[str, Recorded] = {}
    parents: dict[str, Parent] = {}
    todo = [(team.root, task)]
    while todo:
        old, new = todo.pop(0)
        members[old] = new
        recorded[old] = as_it_was(old, team.tasks[old][: cut[stream_of("task", old)]])
        begun = recorded[old].state.begun
        for number, wait in enumerate(recorded[old].state.waits):
            child = child_id(old, number, begun)
            is_there = starts_task(wait) and cut.get(stream_of("task", child), 0) > 0
            if is_there and not is_left(wait.settled):
                todo.append((child, child_id(new, number, min(begun, 1))))
                parents[child] = Parent(new, number)
    shared = _Shared(team, cut, task, members, recorded)
    births: dict[str, Birth] = {}
    for old, new in members.items():
        birth = Birth(new, by, team.log, now, parent=parents.get(old), team=task, ended=old != team.root)
        birth = birth._replace(source=shared.source, settled=shared.done(old), mail=shared.on_the_way(old))
        births[old] = birth._replace(change=change, members=members, cut=cut) if old == team.root else birth
    return Plan(team, cut, recorded, births)


class _Shared:
    """What passes between the tasks of a team at a cut."""

    def __init__(self, team: Team, cut: Cut, fork: str, members: dict[str, str], recorded: dict[str, Recorded]) -> None:
        self._team, self._cut, self._fork, self._members, self._recorded = team, cut, fork, members, recorded
        root = recorded[team.root].state.forked
        self._aliases = root.members if root else {}
        self._streams = {stream_of("task", old): stream_of("task", new) for old, new in members.items()}
        self._streams |= {stream: self.memory(stream) for stream in team.memories}
        self._written = {c.id for s, commits in team.memories.items() for c in commits[: cut[s]]}
        self._heard = {old: set(_received(one)) for old, one in recorded.items()}

    def memory(self, stream: str) -> str:
        """The fork's stream for a memory."""
        return stream_of("agent", memory_of(stream.removeprefix("agent/"), self._fork))

    def source(self, source: Source | None) -> Source | None:
        """Where in the fork an outcome comes from: what was taken over stands in first commits."""
        if source is None or source.stream not in self._streams:
            return source
        return Source(self._streams[source.stream], 1)

    def done(self, task: str) -> dict[int, Settled]:
        """Open waits whose doing is in the cut, though not that it was done: they are not done again."""
        return {
            number: Settled(number)
            for number, wait in self._open(task)
            if self._is_written(task, number, wait) or self._is_received(task, number, wait)
        }

    def _open(self, task: str) -> Iterator[tuple[int, WaitState]]:
        state = self._recorded[task].state
        return ((number, state.waits[number]) for number in sorted(state.open))

    def _is_written(self, task: str, number: int, wait: WaitState) -> bool:
        key = wait_key(stream_of("task", task), number, self._recorded[task].state.begun)
        return wait.name.startswith("memory.set ") and command_id(self._team.log, key) in self._written

    def _is_received(self, task: str, number: int, wait: WaitState) -> bool:
        told = self._told(task, number, wait)
        return told is not None and told[1] in self._heard.get(told[0], set())

    def _told(self, task: str, number: int, wait: WaitState) -> tuple[str, bytes, bytes] | None:
        """Of a wait that tells another task something: that task, the message's id, its value."""
        if wait.kind != "step" or not wait.name.startswith("tell "):
            return None
        target, value = msgspec.msgpack.decode(wait.input, type=tuple[str, bytes])
        identity = message_id(stream_of("task", task), number, self._recorded[task].state.begun)
        return self._aliases.get(target, target), identity, value

    def on_the_way(self, task: str) -> list[Received]:
        """Messages to a task that were sent in the cut, and not received in it."""
        found: list[tuple[int, Received]] = []
        for sender, recorded in self._recorded.items():
            stream, state, before = stream_of("task", self._members[sender]), recorded.state, _taken_over(recorded)
            for number, wait in enumerate(state.waits):
                told = self._told(sender, number, wait)
                if number in before or not told or told[0] != task or told[1] in self._heard[task]:
                    continue
                if wait.settled and wait.settled.failure is None:
                    name = wait.name.removeprefix("tell ")
                    identity = message_id(stream, number, min(state.begun, 1))
                    message = Received("signal", name, told[2], identity, state.by, Source(stream, 1))
                    found.append((recorded.opened.get(number, 0), message))
        return [message for _, message in sorted(found, key=lambda one: one[0])]


def _taken_over(recorded: Recorded) -> set[int]:
    """The waits that had come to something before the task itself was forked, and what they sent with them."""
    events = recorded.commits[0].events if recorded.state.forked else ()
    return {settled.wait for event in events if isinstance(event, Advanced) for settled in event.settled}


def _received(recorded: Recorded) -> Iterator[bytes]:
    for event in (event for commit in recorded.commits for event in commit.events):
        if isinstance(event, Received):
            yield event.id
        elif isinstance(event, Forked):
            yield from (message.id for message in event.mail)


async def fork_team(
    log: Log, doorman: Doorman, past: Past, root: str, *, task: str, at: At, by: str, change: Change
) -> TeamFork:
    """Put the fork of a team on the log, once, under the id of its root. Whoever has their code runs the tasks."""
    stream = stream_of("task", task)
    asked = [change.agent, change.version, dict(change.models), dict(change.input)]
    identity = msgspec.msgpack.encode((past.log_id, root, str(at), asked), order="deterministic")
    if not await is_founded(log, stream, identity):
        team = await team_of(past, root)
        cut = await _agreed(log, doorman, team, task, at, identity)
        planned = plan(team, cut, task, by, log.ambient.now(), change)
        await _write(log, doorman, past, planned, identity)
    forked = await forked_at(log, task)
    assert forked is not None
    return TeamFork(task, dict(forked.members), dict(forked.cut))


async def _agreed(log: Log, doorman: Doorman, team: Team, task: str, at: At, identity: bytes) -> Cut:
    """Where the fork is cut: decided once, so that one that a crash left half made is made on as it was begun."""
    stream = stream_of("fork", task)
    if not await is_founded(log, stream, identity):
        events = [TeamCut(team.root, team.log, moment(team, at))]
        await found(log, doorman, _CUT, stream, identity, events, None)
    async for commit in log.read(stream, 1, 1):
        return {**dict.fromkeys(team.streams, 0), **commit.events[0].cut}
    raise MovedError(f"the fork of task {team.root} is not on the log yet: fork it again with the same id")


async def _write(log: Log, doorman: Doorman, past: Past, planned: Plan, identity: bytes) -> None:
    team, cut, recorded, births = planned
    root, swaps = births[team.root], Swaps()
    for old, one in recorded.items():
        await swaps.take_over(log, past, one, stream_of("task", births[old].task))
    for stream, commits in team.memories.items():
        agent = stream.removeprefix("agent/")
        folded = Folded(AGENT, stream)
        for commit in commits[: cut[stream]]:
            folded.add(commit)
        branched = Branched(agent, folded.revision, folded.head, past.log_id, dict(folded.state.memory))
        await found(log, doorman, AGENT, stream_of("agent", memory_of(agent, root.task)), identity, [branched], None)
    for old in reversed(recorded):  # those that were delegated to before who delegated, the root last
        events = opening(recorded[old], births[old], swaps)
        stream = stream_of("task", births[old].task)
        await found(log, doorman, TASK, stream, identity, events, cause_in(log, past, recorded[old]))
