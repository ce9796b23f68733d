"""What a client holds of a task, an agent or an entity. Handles read the log; they need not be where the work is."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar

import msgspec

from .actors.activation import Folded, load
from .actors.decider import Decider, Reply, stream_of
from .actors.endings import ended, value_of
from .actors.entities import entity_fold
from .actors.errors import (
    DeadlineError,
    RefusedError,
    SettledError,
    UnknownTaskError,
)
from .actors.events import Advanced, Received
from .actors.packing import pack_input
from .actors.statements import Decision
from .actors.streaming import Piece
from .actors.task_state import TASK, TaskState, WaitState
from .actors.watch import Calm
from .eventstore.artifacts import Artifact, fetch, fetch_pieces
from .eventstore.reading import Commit
from .signing import NO_ANSWER, open_approval, statement_about, statement_on, still

if TYPE_CHECKING:
    from .party import Party

T = TypeVar("T")
_LISTEN = 0.05
"""Seconds between two looks at what a task's steps say."""
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
        """Wait for the result. Raises `TaskFailedError`, `TaskCancelledError`, `DeadlineError` after ``timeout`` s.

        `StoreError` where the log cannot be read: the task is none the worse for it, ask again.
        """
        log = self._party.stack.log
        await log.refresh()
        if not (await log.state(self.stream)).revision:
            raise UnknownTaskError(self.id)
        if ending := await ended(log, self._party.watch, self.stream, timeout):
            return value_of(self.id, ending, self._output)  # type: ignore[no-any-return]
        raise DeadlineError(
            f"task {self.id} has not finished after {timeout:g} s; it goes on: ask for its result again"
        )

    async def watch(self, timeout: float | None = None) -> AsyncIterator[TaskState]:
        """The task's state, now and each time it changes, until it has finished; or until so many seconds have passed,
        and what it has come to by then was shown. The same object each time."""
        log, loop = self._party.stack.log, asyncio.get_running_loop()
        until = loop.time() + timeout if timeout is not None else None
        folded, calm, over = await self._folded(), Calm(), False
        while True:
            yield folded.state
            if folded.state.finished or over:
                return
            await calm.wait()
            left = 3600.0 if until is None else until - loop.time()
            over = left <= 0
            grown = await self._party.watch.beyond(self.stream, folded.revision, max(left, 0.0))
            if not grown and until is not None and loop.time() >= until:
                return
            async for commit in log.read(self.stream, folded.revision + 1):
                folded.add(commit)

    async def listen(self) -> AsyncIterator[Piece]:
        """What the task's steps say while they run, a model's answer above all, until the task has finished. Nothing of
        it is recorded: who comes late begins with the calls that still run, who is slow is told what was lost."""
        log, seen, over = self._party.stack.log, -1, False
        cursor: int | None = None
        await self.state()
        while not over:
            await log.refresh()
            if (revision := (await log.state(self.stream)).revision) != seen:
                seen, over = revision, (await self.state()).finished
            pieces, cursor = await self._party.runtime.stream_since(self.id, cursor)
            for piece in pieces:
                yield piece
            await asyncio.sleep(0 if over else _LISTEN)

    async def history(self, from_revision: int = 1) -> list[Entry]:
        """What happened, in order. `Advanced` comes as the waits that settled and opened in it."""
        await self.state()
        return [line async for c in self._party.stack.log.read(self.stream, from_revision) for line in lines_of(c)]

    async def approve(
        self,
        name: str = "",
        *,
        answer: Any = NO_ANSWER,
        note: str = "",
        person: str | None = None,
        wait: int | None = None,
        shown: WaitState | None = None,
    ) -> None:
        """Sign and leave a person's approval for the open approval of this name or wait number (or the only one).

        ``answer``: the form's values, as its type or as JSON has them; without, those that others have signed.
        ``shown``: the wait as the person saw it: if it is another by now, nothing is signed. Raises `StatementError`
        where it would not count, `InputError` for an answer that does not fit, `SettledError`.
        """
        await self._state("approve", name, note, person, wait, shown=shown, answer=answer)

    async def reject(
        self,
        name: str = "",
        *,
        note: str = "",
        person: str | None = None,
        wait: int | None = None,
        shown: WaitState | None = None,
    ) -> None:
        """The same, saying no."""
        await self._state("reject", name, note, person, wait, shown=shown)

    async def delegate(
        self,
        name: str = "",
        *,
        to: str,
        note: str = "",
        person: str | None = None,
        wait: int | None = None,
        shown: WaitState | None = None,
    ) -> None:
        """Hand the decision on, signed: ``to``, a person's id, decides in this person's place."""
        await self._state("delegate", name, note, person, wait, shown=shown, to=to)

    def using(self, *, message_id: str = "", deadline: float = 30.0) -> "TaskHandle[T]":
        """Options for the message that is sent next. ``message_id``: the same id is the same message. ``deadline``:
        seconds."""
        handle: TaskHandle[T] = TaskHandle(self._party, self.id, self._output)
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
        return Received(kind, name, packed, identity, self._party.doorman.person_id(person))

    async def fork(
        self,
        *,
        at: int | None = None,
        input: Mapping[str, Any] | None = None,  # noqa: A002
        agent: str = "",
        version: str = "",
        models: Mapping[str, str] | None = None,
        request_id: str = "",
    ) -> "TaskHandle[T]":
        """A new task that goes on from this one's past, after a revision or its last, as far as it does the same.

        What was recorded is not done again; what was open is awaited anew. ``input``: arguments that replace those of
        the same name; ``agent`` and ``version``: who does it, by default the newest that is here; ``models``: names of
        models to use instead of others. The same ``request_id`` is the same fork. Raises `InputError` for a revision
        that there is not, `UnknownTaskError`, and `DataKeyMissingError` where payloads were erased.
        """
        from .timetravel import changed, fork_task

        change = changed(input, agent, version, models)
        forked = await fork_task(self._party, self.id, at=at, change=change, request_id=request_id)
        forked._output = self._output
        return forked

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
        number = open_approval(self.id, state, name)
        return number, state.waits[number].name, msgspec.msgpack.decode(state.waits[number].shown)

    async def artifact(self, artifact: Artifact) -> bytes:
        """The content of an artifact that the result names."""
        return await fetch(self._party.stack.log, artifact)

    def pieces(self, artifact: Artifact) -> AsyncIterator[bytes]:
        """The same piece by piece, in bounded memory, each verified before it is given out."""
        return fetch_pieces(self._party.stack.log, artifact)

    async def _state(
        self,
        decision: Decision,
        name: str,
        note: str,
        person: str | None,
        number: int | None,
        shown: WaitState | None = None,
        **more: Any,
    ) -> None:
        party, state = self._party, await self.state()
        if state.finished:
            raise SettledError(f"task {self.id} is {state.status} already")
        who = person or party.settings.person or party.doorman.person()[0]
        if decision in ("cancel", "pause", "resume"):
            stated = statement_on(party, self.id, decision, who, note)
        else:
            number = open_approval(self.id, state, name, number)
            wait = still(self.id, state.waits[number], shown)
            stated = await statement_about(party, self.id, wait, number, decision, who, note=note, **more)
        await party.leave_in_inbox(self.stream, stated)


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


def lines_of(commit: Commit) -> list[Entry]:
    """What a commit says, as lines of a history."""
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
