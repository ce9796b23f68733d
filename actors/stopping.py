"""How a live task is stopped: by whoever cancels it, and by its own handler, which awaits something no more."""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Iterator
from typing import TYPE_CHECKING, Any

from ..eventstore.errors import EventStoreError
from .delegation import DETACHED
from .errors import CallError, SettledError
from .events import ABANDONED, INTERRUPTED, Cancelled, Cancelling, Failure, Paused, Resumed, Settled, WaitKind

if TYPE_CHECKING:
    from .host import Host
    from .spending import Spending
    from .task_state import TaskState
    from .waits import Waits

_log = logging.getLogger("agent_party")


class Stopping:
    """The part of a `TaskCell` that stops what it does. ``cleaning``: how many sagas are open in it."""

    host: "Host"
    id: str
    waits: "Waits"
    spending: "Spending"
    closed: bool
    cleaning: int
    _stopping: bool
    _cancelling: Cancelling | None
    _interruptible: dict[int, asyncio.Task[Any]]
    _interrupted: set[int]

    if TYPE_CHECKING:

        @property
        def state(self) -> TaskState: ...
        def serve(self, work: Coroutine[Any, Any, None]) -> None: ...
        def child(self, wait: int) -> str: ...
        async def _stop_run(self) -> None: ...

    # What the handler awaits

    @contextlib.contextmanager
    def interruptible(self, wait: int) -> Iterator[None]:
        """Meanwhile the wait may be settled by a cancellation of the task, which then ends what is being done."""
        running = asyncio.current_task()
        assert running is not None
        self._interruptible[wait] = running
        try:
            yield
        finally:
            del self._interruptible[wait]

    def interrupted(self, wait: int) -> Settled | None:
        """The outcome of a wait that a cancellation of the task has settled while it was under way."""
        if wait not in self._interrupted:
            return None
        self._interrupted.discard(wait)
        running = asyncio.current_task()
        if running:
            running.uncancel()
        return self.waits.settled(wait)

    def abandon(self, wait: int, kind: WaitKind) -> None:
        """The handler does not await something any more, while it goes on itself."""
        if self._stopping or self.closed or self.state.finished or self.waits.is_settled(wait):
            return
        self.waits.settle(self.spending.stopped(wait, Failure(ABANDONED, "")))
        if self.waits.is_recorded(wait) and self.state.waits[wait].kind == "child" and self.spending.reserved(wait):
            self.serve(self.spending.settle_up(wait))
        elif kind == "child":
            self.serve(self._cancel_child(wait, f"its parent {self.id} does not await it any more", self.id))

    # What others ask of the task

    async def cancel(self, by: str, reason: str = "") -> None:
        """Stop the task: recorded first, then its handler is cancelled, then its children.

        A handler in a saga is given `TaskCancelledError` wherever it waits, and time to clean up; cancelled again, it
        is stopped at once.
        """
        if self.state.finished or not self.state.status:
            raise SettledError(f"task {self.id} is {self.state.status or 'unknown'} already")
        if self.cleaning and not self.state.cancelling:
            self._cancelling = Cancelling(by, reason)
            self.waits.note(self._cancelling, soon=False)
            self._interrupt(by)
            await self.waits.flush()
            return
        # Whoever asks for it may go away: what was begun here is done to its end.
        self._being_cancelled = asyncio.get_running_loop().create_task(self._cancel_at_once(by, reason))
        self._being_cancelled.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.shield(self._being_cancelled)

    async def _cancel_at_once(self, by: str, reason: str) -> None:
        if self.spending.children():
            if not (self.state.cancelling and self.state.cancelling.at_once):
                await self.waits.flush(Cancelling(by, reason, at_once=True))
                await self._stop_run()
            await self.host.wind_up(self.id)
            return
        with self.spending.ends():
            await self.waits.flush(self.spending.ending(Cancelled(by, reason)))
        await self._stop_run()
        await self._cancel_children(f"its parent {self.id} was cancelled", by)

    def _interrupt(self, by: str) -> None:
        """Settle all that the handler awaits."""
        for wait in self.waits.awaited:
            if not self.waits.is_settled(wait):
                told = Failure(INTERRUPTED, f"task {self.id} was cancelled by {by}")
                self.waits.settle(self.spending.stopped(wait, told))
                if wait in self.spending.children():
                    self.serve(self.spending.settle_up(wait))
                elif wait in self.state.open and self.state.waits[wait].kind == "child":
                    self.serve(self._cancel_child(wait, f"its parent {self.id} was cancelled", by))
                if running := self._interruptible.get(wait):
                    self._interrupted.add(wait)
                    running.cancel()

    async def pause(self, by: str, reason: str = "") -> None:
        """Let nothing new begin; what is under way ends, and is recorded."""
        if self.state.finished:
            raise SettledError(f"task {self.id} is {self.state.status} already")
        if not self.state.paused:
            await self.waits.flush(Paused(by, reason))

    async def resume(self, by: str) -> None:
        """Go on after a pause."""
        if self.state.paused and not self.state.finished:
            await self.waits.flush(Resumed(by))

    async def _cancel_children(self, reason: str, by: str) -> None:
        for wait in sorted(self.state.open):
            if self.state.waits[wait].kind == "child" and self.state.waits[wait].terms != DETACHED:
                await self._cancel_child(wait, reason, by)

    async def _cancel_child(self, wait: int, reason: str, by: str) -> None:
        try:
            await self.host.cancel(self.child(wait), by, reason)
        except (EventStoreError, CallError) as error:  # whoever runs the child finds out by itself
            _log.warning("a child of task %s is not cancelled yet: %s", self.id, error)
