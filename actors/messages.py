"""What others send a task: signals, updates, queries; and what they leave in its inbox."""

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from ..eventstore.errors import IdReusedError
from .deciding import Decisions
from .errors import MailboxFullError, MovedError, RefusedError, ReplayError, SettledError, StatementError
from .events import Answered, Received, Sent, Settled, Stated
from .packing import failure_of, pack
from .statements import person_of, read

if TYPE_CHECKING:
    from .cell import TaskCell
    from .task import Task

MAIL = 10_000
"""How many messages may wait for a task to ask for them."""
_log = logging.getLogger("agent_party")


class Updates(NamedTuple):
    """How a handler takes updates of one name. ``validate`` refuses by raising; neither may change anything."""

    handle: Callable[..., Any]
    validate: Callable[..., Any] | None


class Messages:
    """The messages of one live task."""

    def __init__(self, cell: "TaskCell") -> None:
        self._cell = cell
        self._updates: dict[str, Updates] = {}
        self._queries: dict[str, Callable[..., Any]] = {}
        self._mail = {key: list(messages) for key, messages in cell.state.mail.items()}
        self._awaiting: dict[str, list[int]] = {}
        self._received: set[bytes] = set()
        self._inbox = asyncio.Lock()
        self._heard = 0
        self.decisions = Decisions(cell)

    # What a handler declares

    def on_update(self, task: "Task", name: str, updates: Updates) -> None:
        """Serve updates of a name, one at a time, for as long as the handler runs."""
        self._updates[name] = updates
        self._cell.serve(self._serve(task, name, updates))
        self._cell.stir()

    @property
    def standing(self) -> int:
        """How many kinds of updates the handler takes."""
        return len(self._updates)

    def on_query(self, name: str, answer: Callable[..., Any]) -> None:
        """Answer queries of a name."""
        self._queries[name] = answer
        self._cell.stir()

    async def _serve(self, task: "Task", name: str, updates: Updates) -> None:
        while True:
            message = msgspec.msgpack.decode(await task.receive("update", name), type=Received)
            try:
                value = updates.handle(**msgspec.msgpack.decode(message.input))
                value = await value if inspect.isawaitable(value) else value
                answered = Answered(message.id, pack(value, f"the answer to update {name}"))
            except (ReplayError, SettledError, MovedError):
                raise
            except Exception as error:
                answered = Answered(message.id, failure=failure_of(error))
            if self._cell.state.heard.get(message.id) is None:
                self._cell.waits.note(answered)

    # What others send

    async def receive(self, message: Received) -> Answered | None:
        """Take a signal, or an update with its answer; once for each id. Raises `RefusedError`, `SettledError`,
        `MailboxFullError`; then nothing of it is recorded."""
        cell = self._cell
        if message.id not in cell.state.heard:
            self._refuse_if_finished(message)
            key = f"{message.kind} {message.name}"
            if len(self._mail.get(key, [])) >= MAIL:
                raise MailboxFullError(f"{MAIL:,} messages {message.name!r} wait for task {cell.id}: retry later")
            if message.kind == "update":
                await self._validated(message)
            if not self.knows(message.id):
                self._received.add(message.id)
                cell.waits.note(message)
                self._mail.setdefault(key, []).append(message)
                self._match(key)
            await cell.waits.flush()
        return await self._answer(message.id) if message.kind == "update" else None

    def knows(self, message: bytes) -> bool:
        """Whether a message of this id was received, recorded or about to be."""
        return message in self._received or message in self._cell.state.heard

    def _refuse_if_finished(self, message: Received) -> None:
        if self._cell.state.finished:
            raise SettledError(
                f"task {self._cell.id} is {self._cell.state.status}: it takes no {message.kind} any more"
            )

    async def _validated(self, message: Received) -> None:
        updates = await self._declared(self._updates, "update", message.name)
        if updates.validate is None:
            return
        try:
            updates.validate(**msgspec.msgpack.decode(message.input))
        except Exception as error:
            failure = failure_of(error)
            raise RefusedError(f"update {message.name!r} was refused: {failure.kind}: {failure.message}") from error

    async def _answer(self, message: bytes) -> Answered:
        cell = self._cell
        while (answered := cell.state.heard.get(message)) is None:
            if cell.state.finished:
                raise SettledError(f"task {cell.id} is {cell.state.status}, and has not answered the update")
            if cell.closed:
                raise MovedError(f"task {cell.id} is not live here any more: ask again with the same id")
            await cell.moved()
        return answered

    async def query(self, name: str, given: bytes) -> bytes:
        """What the handler answers to a query; nothing is recorded."""
        answer = await self._declared(self._queries, "query", name)
        try:
            return pack(answer(**msgspec.msgpack.decode(given)), f"the answer to query {name}")
        except Exception as error:
            failure = failure_of(error)
            raise RefusedError(f"query {name!r} failed: {failure.kind}: {failure.message}") from error

    async def _declared(self, declared: dict[str, Any], kind: str, name: str) -> Any:
        """What the handler declares under a name, once it has come to where it is."""
        cell = self._cell
        await cell.waits.replay.over()
        while name not in declared and not (cell.closed or cell.state.finished or cell.state.open):
            await cell.moved()
        if cell.state.finished:
            raise SettledError(f"task {cell.id} is {cell.state.status}: it takes no {kind} any more")
        if cell.closed:
            raise MovedError(f"task {cell.id} is not live here any more: ask again")
        if name not in declared:
            known = ", ".join(sorted(declared)) or "none"
            raise RefusedError(f"task {cell.id} takes no {kind} {name!r}; it takes {known}")
        return declared[name]

    # Meeting of messages and waits

    async def awaited(self, kind: str, name: str, wait: int) -> Settled:
        """The outcome of a wait for a message."""
        self._awaiting.setdefault(f"{kind} {name}", []).append(wait)
        self._match(f"{kind} {name}")
        return await self._cell.waits.answer(wait)

    def _match(self, key: str) -> None:
        """Settle the waits for messages of a name with those that are there, each the oldest."""
        waits = self._cell.waits
        mail, awaiting = self._mail.get(key, []), self._awaiting.get(key, [])
        while mail and awaiting:
            wait = awaiting.pop(0)
            if waits.is_settled(wait):
                continue
            message = mail.pop(0)
            value = message.input if message.kind == "signal" else msgspec.msgpack.encode(message)
            waits.settle(Settled(wait, value, source=message.source))

    # The inbox

    async def read_inbox(self) -> None:
        """Read what others have left for this task, and act on it."""
        cell = self._cell
        inbox = f"inbox/{cell.stream}"
        async with self._inbox:
            async for commit in cell.host.log.read(inbox, max(cell.state.inbox, self._heard) + 1, lenient=True):
                stated = [event for event in commit.events if isinstance(event, Stated)]
                if not all([await self.decisions.prepare(event) for event in stated]):
                    cell.serve(self._read_on(stated))
                    return
                self._heard = commit.revision
                for event in commit.events:
                    await self._hear(event, commit.revision, commit.time)

    async def _read_on(self, stated: list[Stated]) -> None:
        """Read the inbox from where it was left, once what stands there can be judged."""
        while not all(self.decisions.can_judge(event) for event in stated):
            await self._cell.moved()
        await self.read_inbox()

    async def _hear(self, event: Any, revision: int, time: int) -> None:
        cell = self._cell
        try:
            if isinstance(event, Sent):
                await self._take_from_inbox(msgspec.structs.replace(event.message, inbox=revision))
            elif isinstance(event, Stated):
                await self._stated(event, revision, time)
            else:
                raise StatementError(f"the inbox holds something else at revision {revision}")
        except (StatementError, SettledError, MailboxFullError, IdReusedError) as error:
            _log.warning("task %s ignores a message: %s", cell.id, error)
            if not cell.state.finished:
                if isinstance(event, Stated):
                    self.decisions.refused(event, error, revision)
                cell.waits.read_inbox(revision)

    async def _take_from_inbox(self, message: Received) -> None:
        """Like `receive`, but nobody waits here: an update that is refused is answered on the log."""
        cell = self._cell
        if self.knows(message.id):
            cell.waits.read_inbox(message.inbox)
        elif message.kind == "signal":
            await self.receive(message)
        else:
            cell.serve(self._update_from_inbox(message))

    async def _update_from_inbox(self, message: Received) -> None:
        try:
            await self.receive(message)
        except RefusedError as error:
            self._cell.waits.read_inbox(message.inbox)
            self._cell.waits.note(Answered(message.id, failure=failure_of(error)))

    async def _stated(self, event: Stated, revision: int, time: int) -> None:
        cell = self._cell
        key = cell.host.doorman.person_key(person_of(event))
        statement = read(event, cell.host.log.identity.log_id, cell.id, key)
        match statement.decision:
            case "cancel":
                await cell.cancel(statement.person, statement.note)
            case "pause":
                await cell.pause(statement.person, statement.note)
            case "resume":
                await cell.resume(statement.person)
            case _:
                self.decisions.decide(statement, event, revision, time)
                return
        if not cell.state.finished:
            cell.waits.read_inbox(revision)
