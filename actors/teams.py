"""What tasks of one team fork share: the memory of their agents as it was, and the ids of each other."""

import hashlib

from ..eventstore.log import Log
from .decider import stream_of
from .events import Forked
from .task_state import TaskState

_MARK = "~"
BRANCH = hashlib.sha256(b"agent-party branch").digest()[:16]
"""The command by which a fork's memory begins, once."""


def memory_of(agent: str, team: str) -> str:
    """The name under which an agent remembers: its own, or in a team fork one that only the fork's tasks use."""
    return f"{origin_of(agent)}{_MARK}{team}" if team else agent


def is_forked(memory: str) -> bool:
    """Whether a name is that of a fork's memory."""
    return _MARK in memory


def origin_of(memory: str) -> str:
    """The agent whose memory it is."""
    return memory.partition(_MARK)[0]


def message_id(stream: str, wait: int, begun: int) -> bytes:
    """The id of the message that a wait sends: the same each time, so that it is received once."""
    again = f"\0{begun}" if begun else ""
    return hashlib.sha256(f"agent-party message\0{stream}\0{wait}{again}".encode()).digest()[:16]


async def forked_at(log: Log, task: str) -> Forked | None:
    """How a task was forked; None for one that was not, or is not on the log."""
    async for commit in log.read(stream_of("task", task), 1, 1):
        return next((event for event in commit.events if isinstance(event, Forked)), None)
    return None


async def stands(log: Log, state: TaskState) -> bool:
    """Whether a task may go on: one of a team fork may as soon as the fork's root is on the log, which comes last."""
    root = stream_of("task", state.team) if state.team and state.forked else ""
    if root and not (await log.state(root)).revision:
        await log.refresh()
    return not root or (await log.state(root)).revision > 0


async def counterpart(log: Log, team: str, task: str) -> str:
    """The task of a team fork that stands for a task of the forked team; else the task itself."""
    root = await forked_at(log, team) if team else None
    return root.members.get(task, task) if root else task
