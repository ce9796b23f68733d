"""What stands on the log of agents. Payloads only: ids, times and causes are in the commits."""

from typing import Any

import msgspec

from ..eventstore.codec import event


@event("agent.registered")
class Registered(msgspec.Struct, frozen=True, omit_defaults=True):
    """An agent with its capabilities: name → JSON schema of its input."""

    version: str
    capabilities: dict[str, dict[str, Any]]
    description: str = ""
    approval: str = "automatic"
    concurrency: int = 16


@event("agent.joined")
class Joined(msgspec.Struct, frozen=True):
    """The agent's code runs in a process. ``host``: 16 bytes that name it."""

    host: bytes


@event("agent.left")
class Left(msgspec.Struct, frozen=True):
    """The process let the agent go."""

    host: bytes


@event("agent.remembered")
class Remembered(msgspec.Struct, frozen=True):
    """The agent keeps a value under a key; MessagePack nil forgets it."""

    key: str
    value: bytes


@event("agent.moved")
class Moved(msgspec.Struct, frozen=True):
    """The agent's lifecycle went on to another phase."""

    phase: str
    reason: str = ""
