"""The DJ: who works on what. For now: which agent gets a task, by capability."""

from collections.abc import Iterable
from typing import NamedTuple, Protocol


class AgentRow(NamedTuple):
    """An agent as the registry knows it. ``phase``: also draining, where it only finishes what it has begun;
    ``hosts``: how many processes it has joined; ``load``: unfinished tasks."""

    name: str
    version: str
    phase: str
    capabilities: tuple[str, ...]
    hosts: int
    load: int


class TaskRow(NamedTuple):
    """A task as the registry knows it. ``status``: also held, where a person must let it go on; ``due``: when time next
    moves it on, 0 if it does not. Times are microseconds since 1970."""

    id: str
    capability: str
    agent: str
    status: str
    steps: int
    open: tuple[str, ...]
    created: int
    updated: int
    parent: str
    done: int
    total: int
    due: int = 0


class Candidate(NamedTuple):
    """A task that could run. ``holder``: who has it, empty if nobody does; ``runs``: how often it was begun;
    ``reason``: why it could run, another text each time that changes, also for each time at which it is due."""

    task: str
    capability: str
    agent: str
    holder: bytes
    runs: int
    reason: str = ""


class Load(NamedTuple):
    """What an agent has to do. ``last``: when something happened in one of its tasks; ``outcomes``: time and status of
    the tasks that ended last."""

    queued: int = 0
    running: int = 0
    waiting: int = 0
    last: int = 0
    outcomes: tuple[tuple[int, str], ...] = ()


class Registry(Protocol):
    """Look-ups in a projection of agents and tasks; each answer includes everything read from the log so far."""

    async def agents_with(self, capability: str) -> list[AgentRow]:
        """The agents that declare a capability."""
        ...

    async def agents(self) -> list[AgentRow]:
        """All agents."""
        ...

    async def tasks(self, *, unfinished: bool = False, limit: int = 1_000) -> list[TaskRow]:
        """Tasks, the newest first."""
        ...

    async def unfinished(self, task: str) -> bool:
        """Whether a task was asked for and has not ended."""
        ...

    async def runnable(self, capabilities: Iterable[str]) -> list[Candidate]:
        """The tasks with these capabilities that could run now, but for those whose time has come."""
        ...

    async def due(self, capabilities: Iterable[str], now: int) -> tuple[list[Candidate], int]:
        """Those whose time has come by ``now``, the oldest first; and when the next one's comes, 0 if none is known."""
        ...

    async def orphans(self) -> list[tuple[str, str]]:
        """Tasks that must end because their parent has ended, each with its parent."""
        ...

    async def load(self, agent: str) -> Load:
        """What an agent has to do."""
        ...


class DJ:
    """Chooses from what the registry knows, and can say why."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def resolve(self, capability: str) -> str:
        """The agent for a task: one that has joined, with the least to do; "" if there is none, and the task waits."""
        able = [row for row in await self._registry.agents_with(capability) if row.phase == "running" and row.hosts]
        return min(able, key=lambda row: (row.load, row.name)).name if able else ""
