"""How the agents here stand: which of them take tasks, which begin nothing new, and why."""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from ..eventstore.log import Log
from ..eventstore.snapshots import Snapshots
from .activation import Folded, load
from .agent import Agent
from .agent_state import AGENT, AgentState
from .decider import stream_of
from .task_state import TaskState


class Lifecycle:
    """Follows the streams of the agents that have joined here, whoever writes them.

    ``spawn`` runs something in the background; ``moved(agent)`` is called when an agent has moved on.
    """

    def __init__(
        self,
        log: Log,
        snapshots: Snapshots | None,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        moved: Callable[[str], Coroutine[Any, Any, None]],
    ) -> None:
        self._log, self._snapshots, self._spawn, self._moved = log, snapshots, spawn, moved
        self._known: dict[str, Folded[AgentState]] = {}
        log.listen(self._grown)

    async def follow(self, agent: str) -> None:
        """An agent has joined here."""
        self._known[agent] = await load(self._log, AGENT, stream_of("agent", agent), snapshots=self._snapshots)

    def forget(self) -> None:
        """All agents have left."""
        self._known.clear()

    def _grown(self, stream: bytes) -> None:
        kind, _, agent = stream.decode().partition("/")
        for name in [agent] if kind == "agent" else list(self._known) if not stream else []:
            if name in self._known:
                self._spawn(self._read_on(name))

    async def _read_on(self, agent: str) -> None:
        known = self._known.get(agent)
        if known is None:
            return
        before = _standing(known.state)
        async for commit in self._log.read(known.stream, known.revision + 1):
            if commit.revision == known.revision + 1:  # another look may have come here meanwhile
                known.add(commit)
        if _standing(known.state) != before:
            await self._moved(agent)

    def is_paused(self, agent: str) -> bool:
        """Whether nothing new begins in the agent's tasks."""
        known = self._known.get(agent)
        return known is not None and known.state.phase == "paused"

    @property
    def is_reluctant(self) -> bool:
        """Whether any agent here does not go on with all of its tasks."""
        return any(known.state.draining or known.state.phase != "running" for known in self._known.values())

    def draining(self) -> list[str]:
        """The agents that only finish what they have begun."""
        return [name for name, known in self._known.items() if known.state.draining and known.state.phase != "paused"]

    def refusal(self, agent: str, task: TaskState) -> str:
        """Why the agent does not go on with a task now; empty if it does."""
        if not (known := self._known.get(agent)):
            return ""
        phase, why = known.state.phase, f" ({known.state.reason})" if known.state.reason else ""
        if phase == "paused":
            return f"agent {agent}, which is paused{why}, to be resumed"
        if task.runs or (phase not in ("archived", "completed", "failed") and not known.state.draining):
            return ""
        if phase == "archived":
            return f"another agent: {agent} is retired{why}"
        return f"agent {agent}, which is drained{why}, to be resumed"

    def lacking(self, task: TaskState, agents: Sequence[Agent]) -> str:
        """Why none of the agents that could do a task goes on with it; empty if none could."""
        able = (a for a in agents if task.capability in a.capabilities and task.agent in ("", a.name))
        return next((why for agent in able if (why := self.refusal(agent.name, task))), "")


def _standing(state: AgentState) -> tuple[str, bool]:
    return state.phase, state.draining
