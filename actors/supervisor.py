"""Keeps what the log says should run, and what runs here, the same; and hears what is left in inboxes.

It asks the registry only for what could run: newly requested, begun by a process that has gone, with mail, with a child
that has ended, due by now, or left behind by its parent. What waits for days is not looked at.
"""

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from ..eventstore.errors import (
    BlobError,
    EventStoreError,
    KeyringError,
    LogError,
    PayloadError,
    SchemaError,
)
from .activation import load
from .decider import stream_of
from .dj import Candidate
from .errors import CallError, MailboxFullError
from .events import Stated
from .passivation import LIVE
from .statements import says_cancel
from .task_state import TASK, TaskState

if TYPE_CHECKING:
    from .host import Host

ROUND = 2.0
"""Seconds between two looks at what should run."""
SAID_AGAIN = 60.0
"""Seconds after which the same trouble is told again."""
_LONGEST = 600.0
"""Seconds between two tries at a task that waits, and of which nothing has come of the last try."""
_PRUNED = 200
_UNREADABLE = (SchemaError, PayloadError, BlobError, KeyringError, LogError)
_MICRO = 1_000_000
_log = logging.getLogger("agent_party")


class Supervisor:
    """One for each host. ``aside``: tasks that cannot go on with the code that is here."""

    def __init__(self, host: "Host") -> None:
        self._host = host
        self.aside: set[str] = set()
        self.closed = False
        self._background: set[asyncio.Task[Any]] = set()
        self._said: dict[str, float] = {}
        self._reconciler: asyncio.Task[None] | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._timekeeper: asyncio.Task[None] | None = None
        self._next_due = self._behind = 0
        self._sooner = asyncio.Event()
        self._tried: OrderedDict[str, tuple[str, float, float]] = OrderedDict()
        self._waking: dict[str, bool] = {}
        self._looked_through: OrderedDict[str, int] = OrderedDict()
        host.watch.on_inbox(self._inbox_grew)

    async def start(self) -> None:
        """New code has joined: look at everything again, now and from now on."""
        self.aside.clear()
        self._tried.clear()
        await self._set_clock()
        await self.reconcile()
        loop = asyncio.get_running_loop()
        if self._reconciler is None:
            self._reconciler = loop.create_task(self._keep_reconciling())
        if self._sweeper is None:
            self._sweeper = loop.create_task(self._keep_sweeping())
        if self._timekeeper is None:
            self._timekeeper = loop.create_task(self._keep_time())

    async def stop(self) -> None:
        """Stop looking."""
        rounds = (self._reconciler, self._sweeper, self._timekeeper)
        work = [*self._background, *(task for task in rounds if task)]
        self._reconciler = self._sweeper = self._timekeeper = None
        for task in work:
            task.cancel()
        if work:
            await asyncio.wait(work)

    # What arrives

    def _inbox_grew(self, stream: str) -> None:
        kind, _, name = stream.partition("/")
        if self.closed or kind not in ("", "task", "agent"):
            return
        if kind != "task":
            self.spawn(self._host.read_agents_inboxes(name))
        if kind == "agent":
            return
        if stream and name not in self._host.cells:
            self.wake(name)
        for cell in [self._host.cells.get(name)] if stream else list(self._host.cells.values()):
            if cell:
                self.spawn(cell.messages.read_inbox())

    def wake(self, task: str) -> None:
        """Something has arrived for a task that nobody may be running: look, once for all that arrives meanwhile."""
        looks = task in self._waking
        self._waking[task] = True
        if not looks:
            self.spawn(self._woken(task))

    async def _woken(self, task: str) -> None:
        self._waking[task] = False
        try:
            await self._wake(task)
        finally:
            if self._waking.pop(task):
                self.wake(task)

    async def _wake(self, task: str) -> None:
        host, stream = self._host, stream_of("task", task)
        holder = await host.doorman.holder_of(stream)
        ours = holder == host.presence.holder
        if self.closed or not host.wants(task) or (host.lives(holder) and not ours) or await host.end_of(stream):
            return
        if not ours:
            state = (await load(host.log, TASK, stream, snapshots=host.snapshots)).state
            # Without its code a task is only taken over to be cancelled.
            if not (host.handler_for(state) or await self._is_to_be_cancelled(task, state.inbox)):
                return
        if cell := await host.activate(task):
            await host.go(cell)

    def ended(self, task: str) -> None:
        """A task that ran here has ended: its parent may have been passivated here."""
        if task not in self._host.cells and not self.closed:
            self.wake(task)

    async def _is_to_be_cancelled(self, task: str, read: int) -> bool:
        """Whether somebody has left word of it; what was looked through before is not read again and again."""
        read = max(read, self._looked_through.pop(task, 0))
        async for commit in self._host.log.read(f"inbox/task/{task}", read + 1, lenient=True):
            if any(isinstance(event, Stated) and says_cancel(event) for event in commit.events):
                return True
            read = commit.revision
        self._looked_through[task] = read
        if len(self._looked_through) > LIVE:
            self._looked_through.popitem(last=False)
        return False

    # What should run

    async def reconcile(self) -> None:
        """Activate what could run, belongs here, and is run by nobody alive; cancel what is left behind."""
        registry, host = self._host.registry, self._host
        for task in list(host.waiting_for)[:_PRUNED]:
            unfinished = await registry.unfinished(task)
            what = host.waiting_for.pop(task, None)  # it may wait no longer, or for something else by now
            if unfinished and what is not None:
                host.waiting_for[task] = what
        await self._try_all(await registry.runnable(host.capabilities()))
        await self._run_due()
        for task, parent in await registry.orphans():
            if task in host.cells or host.wants(task):
                with contextlib.suppress(EventStoreError, CallError):  # it is there again at the next look
                    await host.cancel_here(task, parent, f"its parent {parent} has ended")

    async def _try_all(self, candidates: list[Candidate]) -> None:
        living: dict[bytes, bool] = {b"": False, self._host.presence.holder: False}
        for candidate in candidates:
            task, holder = candidate.task, candidate.holder
            if task in self._host.cells or task in self.aside or not self._host.wants(task):
                continue
            if holder not in living:
                living[holder] = self._host.lives(holder)
            if living[holder] or not self._is_time_to_try(candidate):
                continue
            try:
                await self._try(candidate)
            except MailboxFullError:
                return
            except _UNREADABLE as error:
                _log.warning("task %s cannot be read and is set aside until code joins: %s", task, error)
                self.aside.add(task)
            except (EventStoreError, CallError) as error:
                _log.warning("task %s is set aside for now: %s", task, error)

    async def _try(self, candidate: Candidate) -> None:
        state = TaskState(capability=candidate.capability, agent=candidate.agent, runs=candidate.runs)
        if self._host.handler_for(state) and (cell := await self._host.activate(candidate.task)):
            await self._host.go(cell)

    def _is_time_to_try(self, candidate: Candidate) -> bool:
        """A task that waits is not replayed again and again for a reason of which nothing comes."""
        if candidate.reason in ("requested", "running", "stopped", "cancelling"):
            return True
        now = asyncio.get_running_loop().time()
        reason, when, pause = self._tried.pop(candidate.task, ("-", 0.0, 0.0))
        if reason == candidate.reason and now < when:
            self._tried[candidate.task] = (reason, when, pause)
            return False
        pause = min(_LONGEST, 2 * pause) if reason == candidate.reason and pause else ROUND
        self._tried[candidate.task] = (candidate.reason, now + pause, pause)
        if len(self._tried) > LIVE:
            self._tried.popitem(last=False)
        return True

    # Time

    def at(self, due: int) -> None:
        """Something that was passivated is due at this time."""
        if not self._next_due or due < self._next_due:
            self._next_due = due
            self._sooner.set()

    async def _set_clock(self) -> None:
        """Where the clock was set back since something was recorded, time goes on from there: nothing waits longer."""
        loads = [await self._host.registry.load(agent) for agent in self._host.agents]
        newest = max((load.last for load in loads), default=0)
        self._behind = max(0, newest - self._host.log.ambient.now())

    def now(self) -> int:
        """Microseconds since 1970; where the clock was set back since something was recorded, on from there."""
        return self._host.log.ambient.now() + self._behind

    async def _run_due(self) -> None:
        """Wake what is due, and see when the next one is."""
        self._next_due = 0
        late, following = await self._host.registry.due(self._host.capabilities(), self.now())
        if following:
            self.at(following)
        await self._try_all(late)

    async def _keep_time(self) -> None:
        """One timer for all that sleeps out of memory."""
        while True:
            self._sooner.clear()
            left = (self._next_due - self.now()) / _MICRO if self._next_due else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, left) if left is not None else None):
                    await self._sooner.wait()
                    continue
            await self._noted(self._run_due())

    async def _keep_reconciling(self) -> None:
        while True:
            await asyncio.sleep(ROUND)
            await self._noted(self.reconcile())

    async def _keep_sweeping(self) -> None:
        """Beside the rounds: those may be long where much is asked for, and just then much has to go."""
        while True:
            await asyncio.sleep(ROUND)
            await self._noted(self._host.sweep())

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something in the background; nothing any more once this host closes, for its log closes too."""
        if self.closed:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(self._noted(work))
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        task.add_done_callback(lambda _: work.close())  # one that is cancelled before it begins has not begun this

    def _say(self, why: str) -> None:
        """The same thing once in a while: a store that is away fails every round."""
        now = asyncio.get_running_loop().time()
        self._said = {said: time for said, time in self._said.items() if now - time < SAID_AGAIN}
        if why not in self._said:
            self._said[why] = now
            _log.warning("work in the background is set aside: %s", why)

    async def _noted(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except (EventStoreError, CallError) as error:
            self._say(str(error))
        except Exception:
            _log.exception("work in the background failed, by a fault of this program")
