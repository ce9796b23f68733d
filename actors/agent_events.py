"""What stands on the log of agents. Payloads only: ids, times and causes are in the commits."""

from typing import Any

import msgspec

from ..eventstore.codec import event


@event("agent.registered")
class Registered(msgspec.Struct, frozen=True, omit_defaults=True):
    """An agent with its capabilities: name → JSON schema of its input. ``older``: versions that are there as well."""

    version: str
    capabilities: dict[str, dict[str, Any]]
    description: str = ""
    approval: str = "automatic"
    concurrency: int = 16
    older: list[str] = []


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


@event("agent.branched")
class Branched(msgspec.Struct, frozen=True):
    """The memory that a team fork goes on with: that of an agent after its commit at ``revision`` of log ``log``."""

    agent: str
    revision: int
    commit: bytes
    log: bytes
    memory: dict[str, bytes]


@event("agent.moved")
class Moved(msgspec.Struct, frozen=True, omit_defaults=True):
    """The agent's lifecycle went on to another phase. ``draining``: it only finishes what it has begun.

    ``by``, ``statement``, ``signature``: the person who asked for it, and what they signed; ``inbox``: revision of the
    inbox read so far. A statement that is refused leaves the phase as it is, and says so in ``reason``.
    """

    phase: str
    reason: str = ""
    draining: bool = False
    by: str = ""
    statement: bytes = b""
    signature: bytes = b""
    inbox: int = 0
