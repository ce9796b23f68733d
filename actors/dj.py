"""The DJ: who works on what. For now: which agent gets a task, by capability."""

from typing import NamedTuple, Protocol


class AgentRow(NamedTuple):
    """An agent as the registry knows it. ``hosts``: how many processes it has joined; ``load``: unfinished tasks."""

    name: str
    version: str
    phase: str
    capabilities: tuple[str, ...]
    hosts: int
    load: int


class TaskRow(NamedTuple):
    """A task as the registry knows it. Times are microseconds since 1970."""

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


class DJ:
    """Chooses from what the registry knows, and can say why."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def resolve(self, capability: str) -> str:
        """The agent for a task: one that has joined, with the least to do; "" if there is none, and the task waits."""
        able = [row for row in await self._registry.agents_with(capability) if row.phase == "running" and row.hosts]
        return min(able, key=lambda row: (row.load, row.name)).name if able else ""
