"""The one wait primitive: everything a task awaits is opened, then settled, and replayed by its number.

An outcome is committed together with the next opening, or alone a few milliseconds later. No effect starts before its
opening is durable, so a crash leaves at most the effects in flight unknown, and a task's step costs one commit.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import msgspec

from ..eventstore.codec import NIL
from ..eventstore.errors import BlobError, PayloadError, SchemaError, StoreError
from ..eventstore.reading import Commit
from .budgets import Spent
from .errors import MovedError, SettledError
from .events import ABANDONED, Advanced, Diverged, Failure, Opened, Progressed, Settled, Started, WaitKind
from .replay import Replay
from .task_state import TaskState, WaitState

ALONE_AFTER = 0.005
"""Seconds an outcome waits for company."""
_TURNS = 10
"""Turns of the loop that it waits besides: a loop that was held up has held up the company too."""
_AGAIN = 1.0
_PIECE = 1024 * 1024
T = TypeVar("T")

Record = Callable[[Sequence[Any]], Awaitable[Commit]]


class Waits:
    """The waits of one run of a task's handler. ``state`` is the task's fold, which `record` moves on.

    ``trouble`` is why the last commit could not be recorded, if it could not for a reason that is not the handler's.
    """

    def __init__(self, state: TaskState, record: Record) -> None:
        self._state, self._record = state, record
        self.replay = Replay(state.waits, self._diverge)
        self.trouble: Exception | None = None
        self.own = ""
        self._next = 0
        self._before: list[Any] = []
        self._opening: list[Opened] = []
        self._unrecorded: set[int] = set()
        self._settling: dict[int, Settled] = {}
        self._taken: list[int] = []
        self._inbox = self._begun = 0
        self._lock = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._commits: set[asyncio.Task[None]] = set()
        self._answers: dict[int, asyncio.Future[Settled]] = {}
        self._stopped = self._closed = False
        self.replayed = 0

    def note(self, event: Any, *, soon: bool = True) -> None:
        """An event that goes out with the next commit; ``soon``: at the latest in a few milliseconds."""
        if isinstance(event, Progressed):
            self._before = [kept for kept in self._before if not isinstance(kept, Progressed)]
        self._before.append(event)
        if soon:
            self._soon()

    def peek(self) -> WaitState | None:
        """What is recorded as the next wait that the handler opens; None beyond the record's end."""
        return self.replay.recorded(self._next)

    def open(
        self,
        kind: WaitKind,
        name: str,
        given: bytes = NIL,
        *,
        terms: bytes = b"",
        due: int = 0,
        reserved: Spent | None = None,
        formerly: Callable[[], bytes] | None = None,
    ) -> tuple[int, WaitState | None]:
        """The next wait: its number, and on replay its record. One without a record is to be awaited by `opened`.

        ``formerly``: how an earlier version of this program recorded the same input, which holds as well.
        Raises `ReplayError` where the record says something else than the handler asks for.
        """
        if self._stopped or self._closed or self._state.finished:
            raise SettledError(f"the task has ended: it cannot await {kind} {name!r} any more")
        number, self._next = self._next, self._next + 1
        if formerly and (known := self.replay.recorded(number)) and known.input != given and known.input == formerly():
            given = known.input
        if recorded := self._replayed(number, kind, name, given):
            self.replayed += recorded.settled is not None
            return number, recorded
        taken, self._taken = self._taken, []
        self._opening.append(Opened(number, kind, name, given, taken, terms, due, reserved))
        self._unrecorded.add(number)
        return number, None

    def _replayed(self, number: int, kind: WaitKind, name: str, given: bytes) -> WaitState | None:
        """The record of a wait. What a fork took over holds only as far as the fork does the same."""
        recorded = self.replay.recorded(number)
        given = self._as_recorded(number, given)
        same = recorded is None or (recorded.kind, recorded.name, recorded.input) == (kind, name, given)
        if not same and self._diverge(number):
            return None
        return self.replay.open(number, kind, name, given)

    def _as_recorded(self, number: int, given: bytes) -> bytes:
        """An input as the task from whose past a fork goes on would have given it: with that task's id for its own."""
        recorded, forked = self.replay.recorded(number), self._state.forked
        if not (recorded and forked and self.own and number < self._state.foreign) or recorded.input == given:
            return given
        said = (given.replace(packed(self.own), packed(name)) for name in forked.names)
        return recorded.input if recorded.input in said else given

    def _diverge(self, number: int) -> bool:
        """Drop what a fork took over from this wait on, because it does something else; whether there was such."""
        if number >= self._state.foreign or self.replay.recorded(number) is None:
            return False
        self._taken = [*self.replay.cut(number), *self._taken]
        self.note(Diverged(number))
        return True

    async def opened(self, number: int) -> WaitState:
        """Wait until an opening is durable, together with others of this moment."""
        await asyncio.sleep(0)
        await self.flush()
        return self._state.waits[number]

    async def take(self, number: int) -> None:
        """Give a wait's outcome to the handler, now or when it is its turn; what is opened next may depend on it."""
        if self.replay.takes(number) and await self.replay.turn(number):
            return
        await self.replay.over()
        self._taken.append(number)

    def value(self, name: str, make: Callable[[], bytes]) -> bytes:
        """A value from outside that is no effect (the time, chance): opened and settled at once, recorded soon."""
        number, recorded = self.open("value", name, NIL)
        if recorded is not None and recorded.settled is not None:
            return recorded.settled.value
        settled = Settled(number, make())
        self.settle(settled)
        return settled.value

    def reserve(self, wait: int, amount: Spent) -> bool:
        """What a wait may use of the budget, while its opening is not on its way yet; whether it still was not."""
        place = next((n for n, opening in enumerate(self._opening) if opening.wait == wait), None)
        if place is not None:
            self._opening[place] = msgspec.structs.replace(self._opening[place], reserved=amount)
        return place is not None

    def is_recorded(self, wait: int) -> bool:
        """Whether a wait's opening is on the log."""
        return wait not in self._unrecorded and wait < len(self._state.waits)

    @property
    def settling(self) -> Iterable[Settled]:
        """Outcomes that are about to be recorded."""
        return self._settling.values()

    def settle(self, settled: Settled, inbox: int = 0) -> None:
        """What a wait came to; committed with the next opening, or soon. A wait is settled once."""
        self._inbox = max(self._inbox, inbox)
        if not self.is_settled(settled.wait):
            self._settling[settled.wait] = settled
            answer = self._answers.pop(settled.wait, None)
            if answer and not answer.done():
                answer.set_result(settled)
        self._soon()

    def abandon(self, wait: int) -> None:
        """The handler does not await this any more, whatever it comes to."""
        self.settle(Settled(wait, failure=Failure(ABANDONED, "")))

    def settled(self, wait: int) -> Settled | None:
        """A wait's outcome, recorded or about to be."""
        recorded = wait not in self._unrecorded and wait < len(self._state.waits)
        return self._settling.get(wait) or (self._state.waits[wait].settled if recorded else None)

    @property
    def awaited(self) -> list[int]:
        """The waits that are open, recorded or about to be."""
        return sorted(self._state.open | self._unrecorded)

    def is_settled(self, wait: int) -> bool:
        """Whether a wait has its outcome, recorded or about to be."""
        return self.settled(wait) is not None

    async def answer(self, wait: int) -> Settled:
        """Wait until somebody settles a wait."""
        if (recorded := self.settled(wait)) is not None:
            return recorded
        answer = self._answers.get(wait)
        if answer is None:
            answer = self._answers[wait] = asyncio.get_running_loop().create_future()
        return await asyncio.shield(answer)

    def read_inbox(self, revision: int) -> None:
        """The inbox was read this far, and nothing of it settles anything."""
        self._inbox = max(self._inbox, revision)
        self._soon()

    def close(self) -> None:
        """The handler has ended: what it left running opens nothing any more."""
        self._closed = True

    async def flush(self, *after: Any) -> None:
        """Commit what is waiting, then ``after``, as one commit. Cancelling the caller does not stop the commit.

        A function among ``after`` gives its events when all that goes before them is known.
        """
        commit = asyncio.get_running_loop().create_task(self._commit(after))
        self._commits.add(commit)
        commit.add_done_callback(self._committed)
        await asyncio.shield(commit)

    def _committed(self, commit: asyncio.Task[None]) -> None:
        self._commits.discard(commit)
        if not commit.cancelled() and isinstance(commit.exception(), StoreError):
            self._soon(_AGAIN)

    async def _commit(self, after: tuple[Any, ...]) -> None:
        async with self._lock:
            if self._is_over(after):
                return
            self._begun += 1
            if self._timer:
                self._timer.cancel()
                self._timer = None
            before, self._before = self._before, []
            opening, self._opening = self._opening, []
            settling = dict(self._settling)
            inbox = self._inbox if self._inbox > self._state.inbox else 0
            last = [event for one in after for event in (one() if callable(one) else (one,))]
            events = [*before, *_advanced(list(settling.values()), opening, inbox), *last]
            if not events:
                return
            try:
                await self._record(events)
            except BaseException as error:
                self._before, self._opening = before + self._before, opening + self._opening
                # What cannot be stored is the handler's affair, and nothing was written; the rest is not.
                if isinstance(error, Exception) and not isinstance(error, PayloadError | SchemaError | BlobError):
                    self.trouble = error
                raise
            self.trouble = None
            self._unrecorded.difference_update(opened.wait for opened in opening)
            for wait in settling:
                del self._settling[wait]

    def _is_over(self, after: tuple[Any, ...]) -> bool:
        """Whether the task has ended, and there is nothing that would have to be refused for it."""
        if self.trouble and not isinstance(self.trouble, StoreError):
            raise MovedError(f"this run of the task is over: {self.trouble}") from self.trouble
        if self._stopped:
            raise MovedError("this run of the task is over: resolve it again")
        if self._state.finished and (after or self._opening):
            raise SettledError(f"the task is {self._state.status} already")
        return self._state.finished

    def _soon(self, seconds: float = ALONE_AFTER) -> None:
        if self._timer is None and not self._stopped:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._flush_alone)

    def _flush_alone(self) -> None:
        # A failure here shows again at the next commit, which has a caller to hear it.
        self._timer = None
        if not self._stopped and not self._state.finished:
            commit = asyncio.get_running_loop().create_task(self._commit_alone())
            self._commits.add(commit)
            commit.add_done_callback(self._committed)

    async def _commit_alone(self) -> None:
        begun = self._begun
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        if self._begun == begun and not self._stopped and not self._state.finished:
            await self._commit(())

    def stop(self) -> None:
        """Nothing more is committed; what is not committed by now is not."""
        self._stopped = True
        if self._timer:
            self._timer.cancel()
            self._timer = None

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is on its way to the log, and the handler has gone over all that was recorded.

        That a run has begun is recorded only with the first thing that is new in it.
        """
        coming = self._opening or self._settling or self._commits or self._timer or self._inbox > self._state.inbox
        only_begun = all(isinstance(event, Started) for event in self._before)
        return only_begun and not (coming or self.replay.running)

    async def idle(self) -> None:
        """Wait for the commits that are on their way."""
        while self._commits:
            await asyncio.wait(self._commits)
            await asyncio.sleep(0)


def packed(task: str) -> bytes:
    """A task's id as it stands in packed values."""
    return msgspec.msgpack.encode(task)


def _advanced(settled: list[Settled], opened: list[Opened], inbox: int) -> list[Advanced]:
    """The events for these waits: one, or several where it would be too large; then openings come first."""
    size = sum(len(one.value) for one in settled) + sum(len(one.input) for one in opened)
    if size <= _PIECE:
        return [Advanced(settled, opened, inbox)] if settled or opened or inbox else []
    smallest_first = sorted(settled, key=lambda one: len(one.value))
    events = [Advanced([], list(piece), 0) for piece in _pieces(opened, lambda one: len(one.input))]
    events += [Advanced(list(piece), [], 0) for piece in _pieces(smallest_first, lambda one: len(one.value))]
    return [*events, Advanced([], [], inbox)] if inbox else events


def _pieces(items: Sequence[T], size: Callable[[T], int]) -> Iterator[Sequence[T]]:
    """Runs of items of no more than `_PIECE` together, or of one that is larger."""
    start = total = 0
    for n, item in enumerate(items):
        if n > start and total + size(item) > _PIECE:
            yield items[start:n]
            start, total = n, 0
        total += size(item)
    if items:
        yield items[start:]
