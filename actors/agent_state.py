"""An agent's state: the fold of its stream. Lifecycle: template → provisioned → running ⇄ paused → completed | failed
→ archived; its memory."""

from typing import Any

import msgspec

from ..eventstore.reading import Commit
from .activation import Fold
from .agent_events import Joined, Left, Moved, Registered, Remembered

_NIL = b"\xc0"
MEMORY_LIMIT = 10_000


class AgentState(msgspec.Struct):
    """``hosts``: the processes it has joined. ``memory``: packed values by key."""

    phase: str = "template"
    registered: Registered | None = None
    hosts: set[bytes] = set()
    memory: dict[str, bytes] = {}


def evolve(state: AgentState, commit: Commit) -> AgentState:
    """The state after a commit; changed in place, the fold owns it."""
    for event in commit.events:
        _evolve(state, event)
    return state


def _evolve(state: AgentState, event: Any) -> None:
    match event:
        case Registered():
            state.registered = event
            state.phase = "provisioned" if state.phase == "template" else state.phase
        case Joined():
            state.hosts.add(event.host)
            state.phase = "running" if state.phase == "provisioned" else state.phase
        case Left():
            state.hosts.discard(event.host)
        case Moved():
            state.phase = event.phase
        case Remembered():
            if event.value == _NIL:
                state.memory.pop(event.key, None)
            else:
                state.memory[event.key] = event.value


AGENT = Fold(AgentState, evolve, AgentState, "agent/1")
