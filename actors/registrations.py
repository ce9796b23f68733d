"""The agents whose code is in this process, and their own streams: who has joined, and what they remember."""

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from ..eventstore.errors import EventStoreError
from ..eventstore.log import Log
from ..eventstore.snapshots import Snapshots
from .activation import Activation, Folded, load
from .agent import Agent
from .agent_events import Branched, Joined, Left, Moved, Registered, Remembered
from .agent_state import AGENT, MEMORY_LIMIT, AgentState, moved
from .decider import stream_of
from .dj import Registry
from .doorman import Doorman
from .errors import CallError, InputError, MovedError, StatementError
from .events import Stated
from .passivation import Kept
from .presence import Presence
from .racing import let_finish, patiently
from .statements import person_of, read
from .teams import BRANCH, is_forked, origin_of

_log = logging.getLogger("agent_party")


class Registrations:
    """Writes the streams of the agents that this process owns. Several processes may: each takes them over in turn.

    An agent's state is in memory only while it is used: what is silent for a while is let go by `sweep`.
    """

    def __init__(
        self,
        log: Log,
        doorman: Doorman,
        presence: Presence,
        snapshots: Snapshots | None,
        lock: Callable[[str], asyncio.Lock],
    ) -> None:
        self._log, self._doorman, self._presence, self._snapshots, self._lock = log, doorman, presence, snapshots, lock
        self._owned: set[str] = set()
        self._live: dict[str, Activation[AgentState]] = {}
        self._used: dict[str, float] = {}
        self._kept = Kept()

    def owns(self, agent: str) -> bool:
        """Whether this process writes the agent's stream."""
        return agent in self._owned

    def owned(self) -> list[str]:
        """The agents whose streams this process writes."""
        return sorted(self._owned)

    async def register(self, versions: Sequence[Agent]) -> None:
        """Record what an agent is and that its code has joined; processes that are gone are struck off.

        ``versions``: all of it that are here, the newest first; what the agent can do is what any of them can.
        """
        agent, schemas = versions[0], dict[str, dict[str, Any]]()
        for one in reversed(versions):
            known = one.capabilities
            schemas |= {name: known[name].schema() if name in known else {} for name in one.names()}
        older = [one.version for one in versions[1:]]
        registered = Registered(
            agent.version, schemas, agent.description, agent.approval, agent.concurrency, older=older
        )
        for _ in patiently():
            activation = await self._own(agent.name)
            stands = activation.state.registered == registered
            gone = [Left(host) for host in sorted(activation.state.hosts) if not self._presence.alive(host)]
            joined = Joined(self._presence.holder)
            with contextlib.suppress(MovedError):
                await activation.record([*gone, joined] if stands else [registered, *gone, joined])
                return
        raise MovedError(f"agent {agent.name} is taken over again and again by other processes: try again")

    async def leave(self) -> None:
        """Record that this process lets its agents go."""
        for name in [name for name in self.owned() if not is_forked(name)]:
            with contextlib.suppress(CallError, EventStoreError):
                activation = await self._own(name)
                await activation.record([Left(self._presence.holder)])
                activation.snapshot()
        for kept in (self._owned, self._live, self._used):
            kept.clear()

    def sweep(self, idle: float) -> None:
        """Let go of the states of agents that were not used for so many seconds."""
        until = asyncio.get_running_loop().time() - idle
        for name in [name for name, used in self._used.items() if used < until]:
            if self._lock(f"agent:{name}").locked() or self._live[name].is_busy:
                continue
            del self._used[name]
            activation = self._live.pop(name)
            activation.snapshot()
            if not activation.ended:
                self._kept.keep(activation.writer)

    # What people wish

    async def read_inbox(self, agent: str) -> None:
        """Act on the signed statements that people have left for an agent; each once."""
        inbox = f"inbox/{stream_of('agent', agent)}"
        async for commit in self._log.read(inbox, (await self._own(agent)).state.inbox + 1, lenient=True):
            for event in commit.events:
                wished = functools.partial(self._wished, agent, event, commit.revision)
                await self._write(agent, commit.id, b"", wished)

    def _wished(self, agent: str, event: Any, revision: int, state: AgentState) -> list[Moved]:
        """What a message in an agent's inbox leads to."""
        if state.inbox >= revision:
            return []
        try:
            if not isinstance(event, Stated):
                raise StatementError("it is no statement")
            key = self._doorman.person_key(person_of(event))
            statement = read(event, self._log.identity.log_id, stream_of("agent", agent), key)
            wish = moved(state, statement.decision, statement.note)
        except StatementError as error:
            _log.warning("agent %s ignores a message: %s", agent, error)
            return [Moved(state.phase, f"a message was ignored: {error}", state.draining, inbox=revision)]
        signed = {"statement": event.statement, "signature": event.signature, "by": statement.person}
        return [msgspec.structs.replace(wish, inbox=revision, **signed)]

    async def finish_draining(self, draining: Sequence[str], registry: Registry) -> None:
        """Record of each of these agents that has finished what it had begun that it has."""
        for agent in filter(self.owns, draining):
            load = await registry.load(agent)
            if not load.running and not load.waiting:
                await self._write(agent, self._log.ambient.random(16), b"", _drained)

    # Memory

    async def recall(self, agent: str, key: str) -> bytes | None:
        """What an agent remembers under a key, packed; whoever wrote it."""
        return (await self._state(agent)).memory.get(key)

    async def find(self, agent: str, prefix: str) -> dict[str, bytes]:
        """What an agent remembers under keys with a prefix, packed, by key; whoever wrote it."""
        memory = (await self._state(agent)).memory
        return {key: memory[key] for key in sorted(memory) if key.startswith(prefix)}

    async def _state(self, agent: str) -> AgentState:
        if live := self._live.get(agent):
            await live.catch_up()
            if live.folded.revision:
                self._use(agent)
                return live.state
        await self._log.refresh()
        folded = await self._load(agent)
        if is_forked(agent) and not folded.revision:
            return await self._state(origin_of(agent))
        return folded.state

    async def _load(self, agent: str) -> Folded[AgentState]:
        return await load(self._log, AGENT, stream_of("agent", agent), snapshots=self._snapshots)

    async def remember(self, agent: str, key: str, value: bytes, command_id: bytes) -> None:
        """Have an agent remember. ``value``: packed; nil forgets."""

        def decide(state: AgentState) -> list[Remembered]:
            if len(state.memory) >= MEMORY_LIMIT and key not in state.memory:
                raise InputError(f"agent {agent} remembers {MEMORY_LIMIT:,} things already: forget some first")
            return [Remembered(key, value)]

        await self._write(agent, command_id, msgspec.msgpack.encode((key, value)), decide)

    async def _write(
        self, agent: str, command_id: bytes, request: bytes, decide: Callable[[AgentState], Sequence[Any]]
    ) -> None:
        """Have a command done once on an agent's stream, whoever else takes the stream over meanwhile."""
        for _ in patiently():
            activation = await self._own(agent)
            with contextlib.suppress(MovedError):
                if is_forked(agent):
                    await self._branch(agent, activation)
                await activation.command(command_id, request, decide)
                return
        raise MovedError(f"agent {agent} is taken over again and again by other processes: retry with the same id")

    async def _branch(self, agent: str, activation: Activation[AgentState]) -> None:
        """A fork's memory of an agent that was no part of the forked team begins as what the agent remembers now."""
        if activation.folded.revision:
            return
        origin = await self._load(origin_of(agent))
        memory = dict(origin.state.memory)
        place = (origin_of(agent), origin.revision, origin.head, self._log.identity.log_id)

        def decide(_: AgentState) -> list[Branched]:
            return [] if activation.folded.revision else [Branched(*place, memory)]

        await activation.command(BRANCH, b"", decide)

    async def _own(self, name: str) -> Activation[AgentState]:
        stream = stream_of("agent", name)
        async with self._lock(f"agent:{name}"):
            activation = self._live.get(name)
            if activation is None or activation.ended:
                if activation:
                    await let_finish(self._log, stream)
                kept = await self._kept.take(self._log, stream)
                activation = Activation(self._log, AGENT, stream, self._snapshots)
                await activation.start(self._doorman.writer, kept)
                self._live[name] = activation
            self._owned.add(name)
            self._use(name)
            return activation

    def _use(self, agent: str) -> None:
        self._used[agent] = asyncio.get_running_loop().time()


def _drained(state: AgentState) -> list[Moved]:
    return [Moved("completed", state.reason or "drained")] if state.draining and state.phase != "paused" else []
