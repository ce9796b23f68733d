"""What a client holds of a task, an agent or an entity. Handles read the log; they need not be where the work is."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar

import msgspec

from .actors.activation import Folded, load
from .actors.agent_state import AGENT, AgentState
from .actors.decider import Decider, Reply, stream_of
from .actors.entities import entity_fold
from .actors.errors import (
    DeadlineError,
    RefusedError,
    SettledError,
    UnknownTaskError,
)
from .actors.events import Advanced, Received
from .actors.packing import pack_input
from .actors.statements import Decision, Statement, sign
from .actors.task_state import TASK, TaskState, result_of
from .actors.watch import Calm
from .eventstore.artifacts import Artifact, fetch
from .eventstore.reading import Commit

if TYPE_CHECKING:
    from .party import Party

T = TypeVar("T")
S = TypeVar("S")


class Entry(NamedTuple):
    """One line of a history. ``time``: microseconds since 1970; ``event``: its type; ``detail``: the event itself."""

    revision: int
    event_index: int
    time: int
    event: str
    detail: Any


class TaskHandle(Generic[T]):
    """A task, wherever it runs. Everything here but `cancel` and `approve` only reads the log."""

    def __init__(self, party: "Party", task: str, output: Any = Any) -> None:
        self._party, self.id, self._output = party, task, output
        self._message_id, self._deadline = "", 30.0
        self.stream = stream_of("task", task)

    async def state(self, at: int | None = None) -> TaskState:
        """The task's state now, or at a revision; `UnknownTaskError` if there is no such task."""
        return (await self._folded(at)).state

    async def _folded(self, at: int | None = None) -> Folded[TaskState]:
        log, snapshots = self._party.stack.log, self._party.stack.snapshots
        if at is None:
            await log.refresh()
        if not (await log.state(self.stream)).revision:
            raise UnknownTaskError(self.id)
        return await load(log, TASK, self.stream, snapshots=snapshots, at=at)

    async def result(self, timeout: float | None = None) -> T:
        """Wait for the result. Raises `TaskFailedError`, `TaskCancelledError`, `DeadlineError` after ``timeout`` s."""
        async for state in self.watch(timeout=timeout):
            if state.finished:
                return result_of(self.id, state, self._output)  # type: ignore[no-any-return]
        raise DeadlineError(
            f"task {self.id} has not finished after {timeout:g} s; it goes on: ask for its result again"
        )

    async def watch(self, timeout: float | None = None) -> AsyncIterator[TaskState]:
        """The task's state, now and each time it changes, until it has finished. The same object each time."""
        log, loop = self._party.stack.log, asyncio.get_running_loop()
        until = loop.time() + timeout if timeout is not None else None
        folded, calm = await self._folded(), Calm()
        while True:
            yield folded.state
            if folded.state.finished:
                return
            await calm.wait()
            left = 3600.0 if until is None else until - loop.time()
            grown = left > 0 and await self._party.watch.beyond(self.stream, folded.revision, left)
            if not grown and until is not None and loop.time() >= until:
                return
            async for commit in log.read(self.stream, folded.revision + 1):
                folded.add(commit)

    async def history(self, from_revision: int = 1) -> list[Entry]:
        """What happened, in order. `Advanced` comes as the waits that settled and opened in it."""
        await self.state()
        return [line async for c in self._party.stack.log.read(self.stream, from_revision) for line in _lines(c)]

    async def approve(
        self, name: str = "", *, note: str = "", person: str | None = None, wait: int | None = None
    ) -> None:
        """Sign and leave a person's approval for the open approval of this name or wait number (or the only one)."""
        await self._state("approve", name, note, person, wait)

    async def reject(
        self, name: str = "", *, note: str = "", person: str | None = None, wait: int | None = None
    ) -> None:
        """The same, saying no."""
        await self._state("reject", name, note, person, wait)

    def using(self, *, message_id: str = "", deadline: float = 30.0) -> "TaskHandle[T]":
        """Options for the message that is sent next. ``message_id``: the same id is the same message. ``deadline``:
        seconds."""
        handle = TaskHandle(self._party, self.id, self._output)
        handle._message_id, handle._deadline = message_id, deadline
        return handle

    async def signal(self, name: str, value: Any = None) -> None:
        """Send the task a message, which it gets when it asks for one of this name; it is on the log then.
        `SettledError` for a task that has finished."""
        message = self._message("signal", name, pack_input(value, f"signal {name}"))
        await self._party.runtime.deliver(self.id, message, self._deadline)

    async def update(self, name: str, /, **given: Any) -> Any:
        """Have the task change something, and give its answer. Raises `RefusedError` where its validator or the update
        itself says no, and `DeadlineError`: it may still be done then, ask again with the same ``message_id``."""
        message = self._message("update", name, pack_input(given, f"update {name}"))
        answered = await self._party.runtime.deliver(self.id, message, self._deadline)
        if answered and answered.failure:
            failure = answered.failure
            said = failure.message if failure.kind == "RefusedError" else f"{failure.kind}: {failure.message}"
            raise RefusedError(f"task {self.id} refused update {name!r}: {said}")
        return msgspec.msgpack.decode(answered.value) if answered else None

    async def query(self, name: str, /, **given: Any) -> Any:
        """Ask the task's handler something; nothing is recorded. Raises `RefusedError`, `SettledError`."""
        packed = pack_input(given, f"query {name}")
        return msgspec.msgpack.decode(await self._party.runtime.query(self.id, name, packed, self._deadline))

    def _message(self, kind: Literal["signal", "update"], name: str, packed: bytes) -> Received:
        ambient, person = self._party.stack.log.ambient, self._party.settings.person or None
        chosen = self._message_id
        identity = hashlib.sha256(chosen.encode()).digest()[:16] if chosen else ambient.random(16)
        return Received(kind, name, packed, identity, self._party.doorman.person(person)[0])

    async def pause(self, reason: str = "", *, person: str | None = None) -> None:
        """Ask, signed, that nothing new begins in the task until it is resumed."""
        await self._state("pause", "", reason, person, None)

    async def resume(self, *, person: str | None = None) -> None:
        """Ask, signed, that a paused task goes on."""
        await self._state("resume", "", "", person, None)

    async def cancel(self, reason: str = "", *, person: str | None = None) -> None:
        """Ask for the task to be stopped, signed; it is stopped as soon as its owner reads it."""
        await self._state("cancel", "", reason, person, None)

    async def shown(self, name: str = "") -> tuple[int, str, Any]:
        """Wait number, name and content of the open approval of this name (or the only one)."""
        state = await self.state()
        number = self._open_approval(state, name)
        return number, state.waits[number].name, msgspec.msgpack.decode(state.waits[number].input)

    async def artifact(self, artifact: Artifact) -> bytes:
        """The content of an artifact that the result names."""
        return await fetch(self._party.stack.log, artifact)

    def _open_approval(self, state: TaskState, name: str, wait: int | None = None) -> int:
        found = [n for n in sorted(state.open) if state.waits[n].asks_a_person]
        if wait is not None and wait in found:
            return wait
        if wait is not None:
            raise SettledError(f"wait {wait} of task {self.id} ({state.status}) is no open approval, or not any more")
        named = [n for n in found if name in ("", state.waits[n].name)]
        if len(named) != 1 and not (name and named):
            waits = ", ".join(repr(state.waits[n].name) for n in found) or "none"
            which = f"no open approval {name!r}" if name else "not exactly one open approval"
            raise SettledError(f"task {self.id} ({state.status}) has {which}; open: {waits}")
        return named[0]

    async def _state(self, decision: Decision, name: str, note: str, person: str | None, number: int | None) -> None:
        log, state = self._party.stack.log, await self.state()
        if state.finished:
            raise SettledError(f"task {self.id} is {state.status} already")
        wait = -1 if decision in ("cancel", "pause", "resume") else self._open_approval(state, name, number)
        who, key = self._party.doorman.person(person or self._party.settings.person or None)
        shown = state.waits[wait] if wait >= 0 else None
        statement = Statement(
            log=log.identity.log_id,
            task=self.id,
            wait=wait,
            opened=shown.opened if shown else b"",
            name=shown.name if shown else "",
            shown=shown.input if shown else b"",
            decision=decision,
            person=who,
            key=key.public,
            time=log.ambient.now(),
            note=note,
        )
        await self._party.leave_in_inbox(self.stream, sign(statement, key))


class EntityHandle(Generic[S]):
    """An entity of a decider's kind."""

    def __init__(self, party: "Party", decider: type[Decider[S, Any, Any]], name: str) -> None:
        self._party, self._decider, self.name = party, decider, name
        self.stream = stream_of(decider.kind, name)

    async def send(self, command: Any, *, command_id: str = "", deadline: float = 30.0) -> Reply[S]:
        """Have the entity handle a command. The same ``command_id`` again is answered again, and done once."""
        log = self._party.stack.log
        identity = hashlib.sha256(command_id.encode()).digest()[:16] if command_id else log.ambient.random(16)
        return await self._party.runtime.send(self._decider, self.name, command, identity, deadline)

    async def state(self, at: int | None = None) -> S:
        """The entity's state now, or at a revision, read from the log."""
        log = self._party.stack.log
        await log.refresh()
        for cls in self._decider.events:
            log.codec.add(cls)
        return (await load(log, entity_fold(self._decider()), self.stream, snapshots=None, at=at)).state  # type: ignore[no-any-return]


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
        return [line async for c in self._party.stack.log.read(self.stream, from_revision) for line in _lines(c)]


def _lines(commit: Commit) -> list[Entry]:
    lines: list[Entry] = []

    def add(name: str, detail: Any) -> None:
        lines.append(Entry(commit.revision, len(lines), commit.time, name, detail))

    for event in commit.events:
        if isinstance(event, Advanced):
            for settled in event.settled:
                add("wait.settled", settled)
            for opened in event.opened:
                add("wait.opened", opened)
        else:
            add(type(event).__event__.name.decode(), event)
    return lines
