"""The agents whose code is in this process, and their own streams: who has joined, and what they remember."""

import asyncio
import contextlib
from collections.abc import Callable

import msgspec

from ..eventstore.errors import EventStoreError
from ..eventstore.log import Log
from ..eventstore.snapshots import Snapshots
from .activation import Activation, load
from .agent import Agent
from .agent_events import Joined, Left, Registered, Remembered
from .agent_state import AGENT, MEMORY_LIMIT, AgentState
from .decider import stream_of
from .doorman import Doorman
from .errors import CallError, InputError, MovedError
from .presence import Presence

_TRIES = 10


class Registrations:
    """Writes the streams of the agents that this process owns. Several processes may: each takes them over in turn."""

    def __init__(
        self,
        log: Log,
        doorman: Doorman,
        presence: Presence,
        snapshots: Snapshots | None,
        lock: Callable[[str], asyncio.Lock],
    ) -> None:
        self._log, self._doorman, self._presence, self._snapshots, self._lock = log, doorman, presence, snapshots, lock
        self._owned: dict[str, Activation[AgentState]] = {}

    def owns(self, agent: str) -> bool:
        """Whether this process writes the agent's stream."""
        return agent in self._owned

    async def register(self, agent: Agent) -> None:
        """Record what the agent is and that its code has joined; processes that are gone are struck off."""
        names = agent.names()
        schemas = {name: agent.capabilities[name].schema() if name in agent.capabilities else {} for name in names}
        registered = Registered(agent.version, schemas, agent.description, agent.approval, agent.concurrency)
        for _ in range(_TRIES):
            activation = await self._own(agent.name)
            known = activation.state.registered == registered
            gone = [Left(host) for host in sorted(activation.state.hosts) if not self._presence.alive(host)]
            joined = Joined(self._presence.holder)
            with contextlib.suppress(MovedError):
                await activation.record([*gone, joined] if known else [registered, *gone, joined])
                return
        raise MovedError(f"agent {agent.name} is taken over again and again by other processes: try again")

    async def leave(self) -> None:
        """Record that this process lets its agents go."""
        for name in list(self._owned):
            with contextlib.suppress(CallError, EventStoreError):
                if self._owned[name].ended:
                    await self._own(name)
                await self._owned[name].record([Left(self._presence.holder)])
                self._owned[name].snapshot()
        self._owned.clear()

    async def recall(self, agent: str, key: str) -> bytes | None:
        """What an agent remembers under a key, packed; whoever wrote it."""
        if owned := self._owned.get(agent):
            await owned.catch_up()
            return owned.state.memory.get(key)
        await self._log.refresh()
        folded = await load(self._log, AGENT, stream_of("agent", agent), snapshots=self._snapshots)
        return folded.state.memory.get(key)

    async def remember(self, agent: str, key: str, value: bytes, command_id: bytes) -> None:
        """Have an agent remember. ``value``: packed; nil forgets."""

        def decide(state: AgentState) -> list[Remembered]:
            if len(state.memory) >= MEMORY_LIMIT and key not in state.memory:
                raise InputError(f"agent {agent} remembers {MEMORY_LIMIT:,} things already: forget some first")
            return [Remembered(key, value)]

        for _ in range(_TRIES):
            activation = await self._own(agent)
            with contextlib.suppress(MovedError):
                await activation.command(command_id, msgspec.msgpack.encode((key, value)), decide)
                return
        raise MovedError(f"agent {agent} is taken over again and again by other processes: retry with the same id")

    async def _own(self, name: str) -> Activation[AgentState]:
        async with self._lock(f"agent:{name}"):
            activation = self._owned.get(name)
            if activation is None or activation.ended:
                activation = Activation(self._log, AGENT, stream_of("agent", name), self._snapshots)
                await activation.start(self._doorman.writer)
                self._owned[name] = activation
            return activation
