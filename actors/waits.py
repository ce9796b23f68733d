"""The one wait primitive: everything a task awaits is opened, then settled, and replayed by its number.

An outcome is committed together with the next opening, or alone a few milliseconds later. No effect starts before its
opening is durable, so a crash leaves at most the effects in flight unknown, and a task's step costs one commit.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from ..eventstore.reading import Commit
from .errors import ReplayError
from .events import Advanced, Opened, Settled, WaitKind
from .task_state import TaskState, WaitState

ALONE_AFTER = 0.005
"""Seconds an outcome waits for company."""

Record = Callable[[Sequence[Any]], Awaitable[Commit]]


class Waits:
    """The waits of one run of a task's handler. ``state`` is the task's fold, which `record` moves on."""

    def __init__(self, state: TaskState, record: Record) -> None:
        self._state, self._record = state, record
        self._next = 0
        self._before: list[Any] = []
        self._opening: list[Opened] = []
        self._settling: dict[int, Settled] = {}
        self._inbox = 0
        self._lock = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._flushing: set[asyncio.Task[None]] = set()
        self._answers: dict[int, asyncio.Future[Settled]] = {}
        self.replayed = 0

    def note(self, event: Any) -> None:
        """An event that goes out with the next commit."""
        self._before.append(event)
        self._soon()

    async def enter(self, kind: WaitKind, name: str, given: bytes = b"\xc0") -> tuple[int, WaitState]:
        """Open the next wait, durably; or, on replay, the one that is recorded under its number.

        Raises `ReplayError` where the record says something else than the handler asks for.
        """
        number, recorded = self._open(kind, name, given)
        if recorded is not None:
            return number, recorded
        await asyncio.sleep(0)
        await self.flush()
        return number, self._state.waits[number]

    def value(self, name: str, make: Callable[[], bytes]) -> bytes:
        """A value from outside that is no effect (the time, chance): opened and settled at once, recorded soon."""
        number, recorded = self._open("value", name, b"\xc0")
        if recorded is not None and recorded.settled is not None:
            return recorded.settled.value
        settled = Settled(number, make())
        self.settle(settled)
        return settled.value

    def _open(self, kind: WaitKind, name: str, given: bytes) -> tuple[int, WaitState | None]:
        number, self._next = self._next, self._next + 1
        if number < len(self._state.waits):
            recorded = self._state.waits[number]
            if (recorded.kind, recorded.name, recorded.input) != (kind, name, given):
                same = "with another input" if (recorded.kind, recorded.name) == (kind, name) else ""
                raise ReplayError(
                    f"wait {number} is recorded as {recorded.kind} {recorded.name!r}, and the handler now asks for "
                    f"{kind} {name!r} {same}".rstrip()
                    + ": the code has changed, or does not do the same each time"
                )
            self.replayed += recorded.settled is not None
            return number, recorded
        self._opening.append(Opened(number, kind, name, given))
        return number, None

    def settle(self, settled: Settled, inbox: int = 0) -> None:
        """What a wait came to; committed with the next opening, or soon. A wait is settled once."""
        self._inbox = max(self._inbox, inbox)
        if not self.is_settled(settled.wait):
            self._settling[settled.wait] = settled
            if answer := self._answers.pop(settled.wait, None):
                answer.set_result(settled)
        self._soon()

    def is_settled(self, wait: int) -> bool:
        """Whether a wait has its outcome, recorded or about to be."""
        recorded = wait < len(self._state.waits) and self._state.waits[wait].settled is not None
        return wait in self._settling or recorded

    async def answer(self, wait: int) -> Settled:
        """Wait until somebody settles a wait."""
        recorded = self._settling.get(wait) or self._state.waits[wait].settled
        if recorded is not None:
            return recorded
        return await self._answers.setdefault(wait, asyncio.get_running_loop().create_future())

    def read_inbox(self, revision: int) -> None:
        """The inbox was read this far, and nothing of it settles anything."""
        self._inbox = max(self._inbox, revision)
        self._soon()

    async def flush(self, *after: Any) -> None:
        """Commit what is waiting, then ``after``, as one commit."""
        async with self._lock:
            if self._timer:
                self._timer.cancel()
                self._timer = None
            before, self._before = self._before, []
            opening, self._opening = self._opening, []
            settling, inbox = dict(self._settling), self._inbox if self._inbox > self._state.inbox else 0
            advanced = [Advanced(list(settling.values()), opening, inbox)] if settling or opening or inbox else []
            events = [*before, *advanced, *after]
            try:
                if events:
                    await self._record(events)
            except BaseException:
                self._before, self._opening = before + self._before, opening + self._opening
                raise
            for wait in settling:
                del self._settling[wait]

    def _soon(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(ALONE_AFTER, self._flush_alone)

    def _flush_alone(self) -> None:
        self._timer = None
        task = asyncio.get_running_loop().create_task(self._quietly())
        self._flushing.add(task)
        task.add_done_callback(self._flushing.discard)

    async def _quietly(self) -> None:
        # A failure here shows again at the next commit, which has a caller to hear it.
        with contextlib.suppress(Exception):
            await self.flush()

    def stop(self) -> None:
        """Forget the timer; what is not committed is not."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
