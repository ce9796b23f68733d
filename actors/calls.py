"""How requests and messages reach tasks: live here, passivated here, or live in another process."""

import asyncio
import contextlib
from typing import TYPE_CHECKING

from ..eventstore.errors import IdReusedError
from ..eventstore.verify import Cause
from .activation import load
from .cell import TaskCell
from .decider import stream_of
from .errors import DeadlineError, MovedError, RefusedError, SettledError, UnknownTaskError
from .events import Answered, Received, Requested, Sent
from .inbox import leave
from .past import LogPast, recorded
from .runtime import DEADLINE
from .task_state import TASK, TaskState
from .versions import chosen, lacking

if TYPE_CHECKING:
    from .host import Host

PATIENCE = 2.0
"""Seconds that another process has to record the request of a task that it has taken on."""


class Calls:
    """What others ask of a host's tasks. Whatever is asked activates the task, and keeps it until it has answered."""

    def __init__(self, host: "Host") -> None:
        self._host = host

    async def start(self, task: str, requested: Requested, cause: Cause | None) -> None:
        """See `Host.start_task`."""
        with contextlib.ExitStack() as unless:
            await self._let_in(task, requested, unless)
            await self._start(task, requested, cause)
            unless.pop_all()

    async def _let_in(self, task: str, requested: Requested, unless: contextlib.ExitStack) -> None:
        host = self._host
        new = requested.parent is None and task not in host.cells
        found = host.handler_for(TaskState(capability=requested.capability, agent=requested.agent)) if new else None
        if found and not (await host.log.state(stream_of("task", task))).revision:
            limits = host.limits(found[0])
            limits.let_in(task)
            unless.callback(limits.turn_away, task)

    async def _start(self, task: str, requested: Requested, cause: Cause | None) -> None:
        host, loop, stream = self._host, asyncio.get_running_loop(), stream_of("task", task)
        began = loop.time()
        while loop.time() < began + DEADLINE:
            late = loop.time() > began + PATIENCE
            cell = host.cells.get(task) or await host.activate(task, new=True, steal=late)
            if cell is None:
                if await self._is_same(task, requested):
                    return
                await host.watch.beyond(stream, 0, PATIENCE)
                continue
            try:
                await cell.request(requested, cause)
            except MovedError:
                cell.drop()
                continue
            finally:
                await host.go(cell)
            return
        raise DeadlineError(f"task {task} is not on the log after {DEADLINE:g} s: ask again with the same id")

    async def _is_same(self, task: str, requested: Requested) -> bool:
        """Whether a task is on the log; `IdReusedError` if it is another one."""
        host = self._host
        state = (await load(host.log, TASK, stream_of("task", task), snapshots=host.snapshots)).state
        known = (state.capability, state.original or state.input)
        if state.status and known != (requested.capability, requested.input):
            raise IdReusedError(f"task/{task}", task)
        return bool(state.status)

    async def deliver(self, task: str, message: Received, deadline: float) -> Answered | None:
        """See `Host.deliver`."""
        limit = asyncio.timeout(deadline)
        try:
            async with limit:
                return await self._deliver(task, message)
        except TimeoutError:
            if not limit.expired():
                raise
            raise DeadlineError(
                f"task {task} did not answer in {deadline:g} s: send it again with the same id"
            ) from None

    async def _deliver(self, task: str, message: Received) -> Answered | None:
        host = self._host
        while cell := await self._awake(task):
            cell.callers += 1
            try:
                return await cell.messages.receive(message)
            except MovedError:
                cell.drop()
            finally:
                cell.callers -= 1
        await leave(host.log, host.doorman, stream_of("task", task), Sent(message))
        return None if message.kind == "signal" else await self._answered(task, message.id)

    async def query(self, task: str, name: str, given: bytes, deadline: float) -> bytes:
        """See `Host.query`."""
        try:
            async with asyncio.timeout(deadline):
                with contextlib.suppress(SettledError):
                    while not await self._is_left_alone(task) and (cell := await self._awake(task)):
                        cell.callers += 1
                        try:
                            return await cell.messages.query(name, given)
                        except MovedError:
                            cell.drop()
                        finally:
                            cell.callers -= 1
                return await self._rehearsed(task, name, given)
        except TimeoutError:
            raise DeadlineError(f"task {task} did not answer within {deadline:g} s: ask again") from None

    async def _rehearsed(self, task: str, name: str, given: bytes) -> bytes:
        """The answer of a task that has finished, lives elsewhere, or whose agent is paused: its handler goes over what
        is recorded of it."""
        from .rehearsal import answer

        past = LogPast(self._host.log)
        before = await recorded(past, task)
        if chosen(self._host.code, before.state):
            return await answer(before, self._host.code, past, name, given)
        if before.ending:
            raise SettledError(f"task {task} has finished, and its code is not here: ask where it is")
        holder = await self._host.doorman.holder_of(stream_of("task", task))
        if holder != self._host.presence.holder and self._host.lives(holder):
            raise MovedError(f"task {task} is live in another process: ask there")
        raise RefusedError(f"task {task} waits for {lacking(before.state)}: ask again when its code has joined")

    async def _is_left_alone(self, task: str) -> bool:
        """Whether an agent here leaves a task alone for now, paused or drained: a question does not take it up."""
        host = self._host
        if task in host.cells or not host.lifecycle.is_reluctant:
            return False
        state = (await load(host.log, TASK, stream_of("task", task), snapshots=host.snapshots)).state
        return bool(state.status) and not host.handler_for(state) and bool(host.lifecycle.lacking(state, host.code))

    async def _awake(self, task: str) -> TaskCell | None:
        """A task, live here; None if it lives elsewhere. `SettledError` for one that has finished."""
        host = self._host
        cell = host.cells.get(task) or await host.activate(task)
        if cell:
            host.passivation.touch(task)
            await host.go(cell)
            if not cell.closed:
                return cell
        stream = stream_of("task", task)
        if await host.end_of(stream):
            raise SettledError(f"task {task} has finished: it takes no message any more")
        if not (await host.log.state(stream)).revision:
            raise UnknownTaskError(task)
        return None

    async def _answered(self, task: str, message: bytes) -> Answered:
        """Wait until a task that is live elsewhere has answered an update."""
        host, stream = self._host, stream_of("task", task)
        folded = await load(host.log, TASK, stream, snapshots=host.snapshots)
        while (answered := folded.state.heard.get(message)) is None:
            if folded.state.finished:
                raise SettledError(f"task {task} is {folded.state.status}, and has not answered the update")
            await host.watch.beyond(stream, folded.revision, 3600)
            async for commit in host.log.read(stream, folded.revision + 1):
                folded.add(commit)
        return answered
