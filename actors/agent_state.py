"""An agent's state: the fold of its stream. Lifecycle: template → provisioned → running ⇄ paused → completed | failed
→ archived; its memory."""

from typing import Any

import msgspec

from ..eventstore.codec import NIL
from ..eventstore.reading import Commit
from .activation import Fold
from .agent_events import Branched, Joined, Left, Moved, Registered, Remembered
from .errors import StatementError

MEMORY_LIMIT = 10_000


class AgentState(msgspec.Struct):
    """``hosts``: the processes it has joined. ``memory``: packed values by key. ``draining``: it only finishes what it
    has begun; ``reason``: why it is in its phase; ``inbox``: revision of its inbox read so far."""

    phase: str = "template"
    registered: Registered | None = None
    hosts: set[bytes] = set()
    memory: dict[str, bytes] = {}
    draining: bool = False
    reason: str = ""
    inbox: int = 0


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
            if (event.phase, event.draining) != (state.phase, state.draining):
                state.phase, state.draining, state.reason = event.phase, event.draining, event.reason
            state.inbox = max(state.inbox, event.inbox)
        case Branched():
            state.memory = dict(event.memory)
        case Remembered():
            if event.value == NIL:
                state.memory.pop(event.key, None)
            else:
                state.memory[event.key] = event.value


def moved(state: AgentState, wish: str, reason: str = "") -> Moved:
    """Where the agent goes when a person wishes it: pause, resume, drain or retire; `StatementError` if it cannot."""
    if state.phase == "archived":
        raise StatementError("the agent is retired: that is for good")
    if wish == "retire":
        return Moved("archived", reason)
    if wish == "pause" and state.phase in ("provisioned", "running"):
        return Moved("paused", reason, state.draining)
    if wish == "resume" and state.phase in ("paused", "running", "completed", "failed"):
        return Moved("running" if state.hosts else "provisioned", reason)
    if wish == "drain" and state.phase in ("provisioned", "running", "paused"):
        return Moved("running" if state.hosts else "provisioned", reason, draining=True)
    raise StatementError(f"an agent that is {state.phase} cannot be made to {wish}")


AGENT = Fold(AgentState, evolve, AgentState, "agent/2")
