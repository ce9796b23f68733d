"""What a client holds of an agent: how it stands, how it does, what it remembers; and a person's wishes for it."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from .actors.activation import load
from .actors.agent_state import AGENT, AgentState, moved
from .actors.decider import stream_of
from .actors.errors import UnknownAgentError
from .actors.memory import matching, typed
from .actors.statements import Statement, sign
from .handles import Entry, lines_of

if TYPE_CHECKING:
    from .party import Party

Wish = Literal["pause", "resume", "drain", "retire"]
LATELY = 3_600_000_000
"""Microseconds: what counts as lately."""


class Health(NamedTuple):
    """How an agent does. ``hosts``: processes that live and have its code; ``queued``: tasks that it has not begun;
    ``live`` and ``waiting``: begun, at work or in a wait that may take days; ``failed``: of the tasks that ended in the
    last hour; ``error_rate``: of the last tasks that ended (up to 100), which part failed; ``last``: when something
    happened in one of its tasks, in microseconds since 1970, 0 if never."""

    phase: str
    hosts: int
    queued: int
    live: int
    waiting: int
    failed: int
    error_rate: float
    last: int


class AgentHandle:
    """An agent, whether its code is here or not."""

    def __init__(self, party: "Party", name: str) -> None:
        self._party, self.name = party, name
        self.stream = stream_of("agent", name)

    async def state(self, at: int | None = None) -> AgentState:
        """The agent's state: phase, capabilities, memory."""
        await self._party.stack.log.refresh()
        return (await load(self._party.stack.log, AGENT, self.stream, snapshots=None, at=at)).state

    async def history(self, from_revision: int = 1) -> list[Entry]:
        """What happened to the agent, in order."""
        await self._party.stack.log.refresh()
        return [line async for c in self._party.stack.log.read(self.stream, from_revision) for line in lines_of(c)]

    async def memory(
        self, *, prefix: str = "", kind: Any = Any, where: Callable[[Any], bool] | None = None
    ) -> dict[str, Any]:
        """What the agent remembers under keys with a prefix, as far as it is of a type and ``where(value)`` is true."""
        memory = {key: value for key, value in (await self.state()).memory.items() if key.startswith(prefix)}
        return {key: typed(key, value, kind) for key, value in sorted(matching(memory, kind, where).items())}

    async def health(self) -> Health:
        """How the agent does. Raises `UnknownAgentError`."""
        registry, now = self._party.stack.registry, self._party.stack.log.ambient.now()
        await self._party.stack.log.refresh()
        row = next((row for row in await registry.agents() if row.name == self.name), None)
        if row is None:
            raise UnknownAgentError(self.name)
        load = await registry.load(self.name)
        failed = [time for time, status in load.outcomes if status == "failed"]
        return Health(
            phase=row.phase,
            hosts=row.hosts,
            queued=load.queued,
            live=load.running,
            waiting=load.waiting,
            failed=sum(time > now - LATELY for time in failed),
            error_rate=len(failed) / len(load.outcomes) if load.outcomes else 0.0,
            last=load.last,
        )

    async def pause(self, reason: str = "", *, person: str | None = None) -> None:
        """Ask, signed, that nothing new begins in the agent's tasks, and that new tasks wait, until it is resumed.

        Like the others below, this returns when the statement is on the log; who owns the agent's stream acts on it
        as soon as it runs. Raises `StatementError` for what cannot be, `UnknownAgentError`.
        """
        await self._wish("pause", reason, person)

    async def resume(self, *, person: str | None = None) -> None:
        """Ask, signed, that the agent goes on, after a pause or a drain."""
        await self._wish("resume", "", person)

    async def drain(self, reason: str = "", *, person: str | None = None) -> None:
        """Ask, signed, that the agent finishes what it has begun and begins no other task."""
        await self._wish("drain", reason, person)

    async def retire(self, reason: str = "", *, person: str | None = None) -> None:
        """Ask, signed, that the agent is given no task any more, for good. What it has begun it finishes."""
        await self._wish("retire", reason, person)

    async def _wish(self, wish: Wish, reason: str, person: str | None) -> None:
        party, state = self._party, await self.state()
        if state.phase == "template":
            raise UnknownAgentError(self.name)
        moved(state, wish, reason)
        log = party.stack.log
        who, key = party.doorman.person(person or party.settings.person or None)
        statement = Statement(
            log=log.identity.log_id, task=self.stream, wait=-1, opened=b"", name="", shown=b"", decision=wish,
            person=who, key=key.public, time=log.ambient.now(), note=reason,
        )  # fmt: skip
        await party.leave_in_inbox(self.stream, sign(statement, key))
