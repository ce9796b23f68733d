"""A team: a task and all that it has delegated, with the memories of their agents; and what follows from what in it."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..eventstore.reading import Commit
from .cut import History, Point
from .decider import stream_of
from .delegation import child_id
from .errors import InputError, UnknownTaskError
from .events import (
    ABANDONED,
    INTERRUPTED,
    Advanced,
    Cancelled,
    Completed,
    Continued,
    Failed,
    Opened,
    Received,
    Requested,
    Settled,
    Started,
)
from .past import Past
from .task_state import WaitState
from .teams import memory_of
from .work import wait_key

MOST = 10_000
"""How many tasks a team may have to be forked."""


class Team(NamedTuple):
    """The commits of a task and its descendants by id, and of the memories by stream. ``log``: the id of their log."""

    root: str
    log: bytes
    tasks: dict[str, list[Commit]]
    memories: dict[str, list[Commit]]

    @property
    def streams(self) -> dict[str, list[Commit]]:
        """All commits, by stream."""
        return {stream_of("task", task): commits for task, commits in self.tasks.items()} | self.memories


def starts_task(wait: WaitState | Opened) -> bool:
    """Whether a wait starts a task."""
    return wait.kind == "child" or (wait.kind == "step" and wait.name.startswith("start "))


async def team_of(past: Past, root: str) -> Team:
    """A task's team. `UnknownTaskError`; `InputError` where it is too large."""
    tasks: dict[str, list[Commit]] = {}
    memories: dict[str, list[Commit]] = {}
    todo = [root]
    while todo:
        task = todo.pop()
        commits = [] if task in tasks else await past.commits(stream_of("task", task))
        if not commits:
            continue
        tasks[task] = commits
        todo += [child_id(task, one.wait, begun) for one, begun, _ in _openings(commits) if starts_task(one)]
        for stream in set(_memories(commits)) - memories.keys():
            memories[stream] = await past.commits(stream)
        if len(tasks) > MOST:
            raise InputError(f"task {root} has delegated to more than {MOST:,} tasks: fork one of them")
    if not tasks:
        raise UnknownTaskError(root)
    return Team(root, past.log_id, tasks, {stream: commits for stream, commits in memories.items() if commits})


def _memories(commits: Sequence[Commit]) -> Iterator[str]:
    team = ""
    for event in (event for commit in commits for event in commit.events):
        if isinstance(event, Requested):
            team = event.team
        elif isinstance(event, Started):
            yield stream_of("agent", memory_of(event.agent, team))


def _openings(commits: Sequence[Commit]) -> Iterator[tuple[Opened, int, int]]:
    """Each opening, how often the task had begun anew by then, and the revision."""
    begun = 0
    for commit in commits:
        for event in commit.events:
            begun += isinstance(event, Continued)
            if isinstance(event, Advanced):
                yield from ((opened, begun, commit.revision) for opened in event.opened)


def history_of(team: Team) -> History:
    """What each commit of a team follows from in the team's other streams: what was asked for from the asking, what
    was received from the sending, an outcome from where it came from, what is remembered from what wrote it."""
    writes: dict[bytes, Point] = {}
    for task, commits in team.tasks.items():
        stream = stream_of("task", task)
        for opened, begun, revision in _openings(commits):
            if opened.kind == "step" and opened.name.startswith("memory.set "):
                writes[command_id(team.log, wait_key(stream, opened.wait, begun))] = (stream, revision)
    history: dict[str, list[list[Point]]] = {}
    for stream, commits in team.streams.items():
        history[stream] = [[writes[commit.id]] if commit.id in writes else [] for commit in commits]
        for revision, commit in enumerate(commits):
            history[stream][revision] += _causes(commit)
    for task, commits in team.tasks.items():
        _add_ends(team, task, commits, history[stream_of("task", task)])
    return history


def command_id(log: bytes, text: str) -> bytes:
    """As `Host.command_id`, of a log that need not be open."""
    return hashlib.sha256(log + text.encode()).digest()[:16]


def _causes(commit: Commit) -> Iterator[Point]:
    if commit.cause:
        yield commit.cause.stream.decode(), commit.cause.revision
    for event in commit.events:
        sources = [one.source for one in event.settled] if isinstance(event, Advanced) else []
        sources += [event.source] if isinstance(event, Received) else []
        yield from ((source.stream, source.revision) for source in sources if source)


def _add_ends(team: Team, task: str, commits: Sequence[Commit], causes: list[list[Point]]) -> None:
    """An outcome of a child that does not say where it came from came from the child's last commit."""
    children: dict[int, str] = {}
    for opened, begun, _ in _openings(commits):
        if opened.kind == "child":
            children[opened.wait] = child_id(task, opened.wait, begun)
    for revision, commit in enumerate(commits):
        for settled in (one for event in commit.events if isinstance(event, Advanced) for one in event.settled):
            child = team.tasks.get(children.get(settled.wait, ""))
            if child and not settled.source and not is_left(settled) and has_ended(child):
                stream = stream_of("task", children[settled.wait])
                causes[revision].append((stream, child[-1].revision))


def has_ended(commits: Sequence[Commit]) -> bool:
    """Whether the task of these commits has come to something."""
    return any(isinstance(event, Completed | Failed | Cancelled) for event in commits[-1].events)


def is_left(settled: Settled | None) -> bool:
    """Whether a wait came to nothing but that its task does not await it any more."""
    return bool(settled and settled.failure and settled.failure.kind in (ABANDONED, INTERRUPTED))
