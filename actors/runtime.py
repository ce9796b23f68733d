"""The contract of a runtime: where cells live, and how messages reach them."""

from collections.abc import Sequence
from typing import Any, Protocol

from ..eventstore.verify import Cause
from .agent import Agent
from .decider import Decider, Reply
from .events import Answered, Received, Requested
from .streaming import Piece

DEADLINE = 30.0


class Runtime(Protocol):
    """Every call has a deadline; every command an id, so that sending it again does nothing twice.

    What a task comes to is read from the log, not asked of the runtime: whoever can read the log can wait for it.
    """

    async def join(self, agents: Sequence[Agent]) -> None:
        """Bring agents' code in; their unfinished tasks go on."""
        ...

    async def leave(self) -> None:
        """Let go of the code that this party brought in; what it ran is passivated."""
        ...

    async def place(self, task: str, requested: Requested, cause: Cause | None = None) -> None:
        """Start a task where it belongs, durably, unless it exists. Returns once the request is on the log."""
        ...

    async def cancel(self, task: str, by: str, reason: str) -> None:
        """Cancel a task, wherever it lives; one that has finished stays as it is."""
        ...

    async def deliver(self, task: str, message: Received, deadline: float) -> Answered | None:
        """Take a signal or an update to a task, wherever it lives; what an update led to."""
        ...

    async def query(self, task: str, name: str, given: bytes, deadline: float) -> bytes:
        """What a task's handler answers to a query, packed."""
        ...

    async def stream_since(self, task: str, cursor: int | None) -> tuple[list[Piece], int]:
        """What a task's steps have said since a cursor, and the next cursor; without one, what those say that run."""
        ...

    async def send(
        self, decider: type[Decider[Any, Any, Any]], name: str, command: Any, command_id: bytes, deadline: float
    ) -> Reply[Any]:
        """Have an entity handle a command. Raises `DeadlineError`, `MailboxFullError`, or what `decide` raised."""
        ...

    async def recall(self, agent: str, key: str) -> bytes | None:
        """What an agent remembers under a key, packed."""
        ...

    async def remember(self, agent: str, key: str, value: bytes, command_id: bytes) -> None:
        """Have an agent remember."""
        ...

    async def close(self) -> None:
        """Passivate everything this process runs."""
        ...
