"""Passivation: what waits for days is taken out of memory, and comes back when something arrives.

A task may go when all that it awaits may take days and its handler stands still: the handler's coroutine is cancelled,
with nothing of it on the log, and the key and grant of its stream are kept, so that coming back writes nothing either.
What makes it come back is on the log: mail in its inbox, a child's end, its time. Whatever of that arrives while it
goes is looked for once it has gone, so nothing is missed in between.
"""

import asyncio
import itertools
import logging
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ..eventstore.log import Log, Writer
from .errors import MailboxFullError
from .events import DURABLE
from .task_state import TaskState, WaitState

if TYPE_CHECKING:
    from .cell import TaskCell
    from .host import Host

LIVE = 20_000
"""How many tasks, and how many entities, may be live in one process."""
IDLE = 10.0
"""Seconds after which what only waits is taken out of memory."""
KEPT = 20_000
"""Of how many passivated streams the process keeps key and grant; to take up another costs a new grant."""
WORTH = 32
"""A snapshot is kept of what has grown by so many commits since the last one: less is as fast to read again."""
_TOGETHER = 100
_LOOK = 0.01
_MICRO = 1_000_000
_log = logging.getLogger("agent_party")


class Kept:
    """Keys and grants of streams that this process owns and has let go of; the newest ones."""

    def __init__(self, limit: int = KEPT) -> None:
        self._limit = limit
        self._writers: OrderedDict[str, Writer] = OrderedDict()

    def keep(self, writer: Writer | None) -> None:
        """Remember a stream's writer."""
        if writer is not None:
            self._writers[writer.stream] = writer
            self._writers.move_to_end(writer.stream)
            if len(self._writers) > self._limit:
                self._writers.popitem(last=False)

    async def take(self, log: Log, stream: str) -> Writer | None:
        """A stream's writer, if its grant is in force and the only one."""
        writer = self._writers.pop(stream, None)
        return writer if writer and list((await log.state(stream)).grants) == [writer.grant] else None


class Passivation:
    """Which tasks of a host are live, from the one that has been silent the longest to the one that moved last."""

    def __init__(self, host: "Host", idle: float = IDLE) -> None:
        self._host, self.idle = host, idle
        self.kept = Kept()
        self._touched: OrderedDict[str, float] = OrderedDict()
        self._making_room = asyncio.Lock()

    def touch(self, task: str) -> None:
        """Something happens in a live task."""
        if task in self._host.cells:
            self._touched[task] = asyncio.get_running_loop().time()
            self._touched.move_to_end(task)

    def forget(self, task: str) -> None:
        """A task is not live any more."""
        self._touched.pop(task, None)

    async def make_room(self) -> None:
        """See that one more task may be live; `MailboxFullError` if none of those that are can go."""
        if len(self._host.cells) < LIVE:
            return
        async with self._making_room:
            while len(self._host.cells) >= LIVE:
                live = list(self._touched)
                # Where some have gone that were not ours to count, others have come in their place, and may go.
                if not await self._rest(live, 1) and all(task in self._host.cells for task in live):
                    raise MailboxFullError(
                        f"this host runs {LIVE:,} tasks already: wait for some to finish, or add hosts"
                    )

    async def sweep(self) -> int:
        """Passivate what has been silent for long. How many there were."""
        silent, until = list[str](), asyncio.get_running_loop().time() - self.idle
        for task, moved in self._touched.items():
            if moved > until:
                break
            silent.append(task)
        return await self._rest(silent, len(silent))

    async def _rest(self, tasks: Iterable[str], wanted: int) -> int:
        """Passivate up to so many of these, as far as they may go; the others count as moved now."""
        gone, soon, left = 0, self._host.now() + int(self.idle * _MICRO), iter(tasks)
        while gone < wanted and (some := list(itertools.islice(left, min(_TOGETHER, wanted - gone)))):
            gone += sum(await asyncio.gather(*(self._try_to_rest(task, soon) for task in some)))
        return gone

    async def _try_to_rest(self, task: str, soon: int) -> bool:
        cell = self._host.cells.get(task)
        if cell and may_rest(cell, soon) and not await self._has_news(cell) and may_rest(cell, soon):
            await self.rest(cell)
            return True
        self.touch(task)
        return False

    async def rest(self, cell: "TaskCell") -> None:
        """Take a task out of memory that may go, then look for what has arrived meanwhile."""
        due = next_due(cell.state)
        self.kept.keep(cell.activation.writer)
        await cell.rest()
        cell.activation.snapshot(WORTH)
        if due:
            self._host.at(due)
        if await self._has_news(cell):
            self._host.wake(cell.id)

    async def _has_news(self, cell: "TaskCell") -> bool:
        log, state = self._host.log, cell.state
        if (await log.state(f"inbox/{cell.stream}")).revision > state.inbox:
            return True
        for child in [f"task/{cell.child(wait)}" for wait in state.open if state.waits[wait].kind == "child"]:
            if not (await log.state(child)).revision or await self._host.end_of(child):
                return True  # it has not even been asked for, or has ended
        return False


def may_rest(cell: "TaskCell", now: int) -> bool:
    """Whether a task may go: nothing of it is under way, nobody is about to be answered, and its time is not near."""
    state, due = cell.state, next_due(cell.state)
    return (
        cell.stands_still
        and not cell.callers
        and not state.finished
        and not state.cancelling
        and not state.owed
        and (state.status in ("waiting", "paused") or cell.is_held_back)
        and all(is_durable(state.waits[wait]) for wait in state.open)
        and (not due or due > now)
    )


def is_durable(wait: WaitState) -> bool:
    """Whether a wait may take days."""
    return wait.kind in DURABLE or wait.asks_a_person


async def drained(cells: Mapping[str, "TaskCell"], limit: float) -> None:
    """Wait until no effect of these tasks is in flight, for up to ``limit`` seconds. They must begin nothing new."""
    loop = asyncio.get_running_loop()
    until = loop.time() + limit
    for cell in cells.values():
        cell.stir()

    def busy() -> bool:
        return any(not is_durable(cell.state.waits[wait]) for cell in cells.values() for wait in cell.state.open)

    while busy() and loop.time() < until:  # noqa: ASYNC110 - it depends on every task there is
        await asyncio.sleep(_LOOK)


def next_due(state: TaskState) -> int:
    """When time next moves a task on, its deadline included, in microseconds since 1970; 0 if it does not."""
    times = [] if state.paused or state.due is None else [state.due]
    return min([*times, *([state.requested_at + int(state.within * 1_000_000)] if state.within else [])], default=0)
