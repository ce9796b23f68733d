"""Which version of an agent does a task, where the code of several is here.

The newest is the highest by natural order of the version's text: 2 before 1, 1.10 before 1.9. So every process says
the same, in whatever order they were given.
"""

import re
from collections.abc import Iterable, Sequence

from .agent import Agent, Capability
from .task_state import TaskState


def natural(version: str) -> tuple[tuple[int, int, str], ...]:
    """The order of versions: numbers in the text count as numbers, and come after words."""
    parts = re.findall(r"[0-9]+|[^0-9]+", version)
    return tuple((1, int(part), "") if part.isascii() and part.isdigit() else (0, 0, part) for part in parts)


def newest_first(agents: Iterable[Agent]) -> list[Agent]:
    """Agents in the order in which their names were given first, each one's versions from the newest down."""
    names: dict[str, list[Agent]] = {}
    for agent in agents:
        names.setdefault(agent.name, []).append(agent)
    return [
        agent
        for several in names.values()
        for agent in sorted(several, key=lambda agent: natural(agent.version), reverse=True)
    ]


def chosen(agents: Sequence[Agent], state: TaskState) -> tuple[Agent, Capability] | None:
    """Who of these, as `newest_first` gives them, goes on with a task.

    A task that was asked for with a version is done by that one only. Another keeps the version that its last wait is
    of; where that is not here, and for a new task, it is the newest that has the capability.
    """
    able = [
        (agent, agent.capabilities[state.capability])
        for agent in agents
        if state.capability in agent.capabilities
        and state.agent in ("", agent.name)
        and state.pinned in ("", agent.version)
    ]
    version = state.fitting or state.version
    kept = (one for one in able if (one[0].name, one[0].version) == (state.agent, version))
    return next(kept, able[0] if able else None)


def lacking(state: TaskState) -> str:
    """What has to join for a task to go on, in words."""
    version = f" {state.pinned}" if state.pinned else ""
    who = f"agent {state.agent}{version}" if state.agent else f"an agent{f' of version{version}' if version else ''}"
    return f"{who} with capability {state.capability} to join"
