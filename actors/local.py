"""The local runtime: one host in this process, no Ray, instant start."""

from collections.abc import Sequence
from typing import Any

from ..eventstore.verify import Cause
from .agent import Agent
from .decider import Decider, Reply
from .events import Answered, Received, Requested
from .host import Host
from .streaming import Piece


class LocalRuntime:
    """Everything runs here."""

    def __init__(self, host: Host) -> None:
        self.host = host

    async def join(self, agents: Sequence[Agent]) -> None:
        await self.host.join(agents)

    async def leave(self) -> None:
        await self.host.leave()

    async def place(self, task: str, requested: Requested, cause: Cause | None = None) -> None:
        await self.host.start_task(task, requested, cause)

    async def cancel(self, task: str, by: str, reason: str) -> None:
        await self.host.cancel_here(task, by, reason)

    async def deliver(self, task: str, message: Received, deadline: float) -> Answered | None:
        return await self.host.deliver(task, message, deadline)

    async def query(self, task: str, name: str, given: bytes, deadline: float) -> bytes:
        return await self.host.query(task, name, given, deadline)

    async def stream_since(self, task: str, cursor: int | None) -> tuple[list[Piece], int]:
        return self.host.streams.since(task, cursor)

    async def send(
        self, decider: type[Decider[Any, Any, Any]], name: str, command: Any, command_id: bytes, deadline: float
    ) -> Reply[Any]:
        return await self.host.send(decider, name, command, command_id, deadline)

    async def recall(self, agent: str, key: str) -> bytes | None:
        return await self.host.recall(agent, key)

    async def remember(self, agent: str, key: str, value: bytes, command_id: bytes) -> None:
        await self.host.remember(agent, key, value, command_id)

    async def close(self) -> None:
        await self.host.close()
