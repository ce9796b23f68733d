"""The test kit's world for tests of agents and tasks in real time: hosts over a tape that outlives them, and that can
be killed at will.

A killed process is one whose tape, from one moment to the next, does not answer any more: nothing it does afterwards
reaches the log. It lives no longer, as the others see it, and its tasks are cancelled without being given a chance.
"""

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from agent_party import testing
from agent_party.actors.activation import load
from agent_party.actors.agent import Agent
from agent_party.actors.doorman import Doorman
from agent_party.actors.events import CORE, Requested, Stated
from agent_party.actors.host import Host
from agent_party.actors.packing import pack_input
from agent_party.actors.statements import Decision, Statement, sign
from agent_party.actors.task_state import TASK, TaskState
from agent_party.cluster.registry import ViewRegistry
from agent_party.eventstore.ambient import Ambient, System
from agent_party.eventstore.log import Log
from agent_party.eventstore.reading import Commit
from agent_party.eventstore.snapshots import Snapshots
from agent_party.projections.agents_and_tasks import AgentsAndTasks
from agent_party.projections.backends.views_memory import MemoryViews
from agent_party.projections.projection import Read, Write
from agent_party.projections.worker import Worker
from agent_party.testing.lives import Life
from agent_party.testing.world import folder

__all__ = ["DEADLINE", "NEVER", "Clock", "Process", "World", "a_world", "folder", "until"]
DEADLINE = 120.0
"""Seconds for what takes milliseconds: a machine may have much else to do."""
NEVER = 86_400.0
"""Seconds after which what only waits is taken out of memory: a test that is about it says when."""


async def until(condition: Callable[[], Any], deadline: float = DEADLINE) -> Any:
    """What ``condition`` gives once it is true; it is asked again and again until the deadline."""
    loop = asyncio.get_running_loop()
    end = loop.time() + deadline
    while True:
        found = condition()
        if value := await found if inspect.isawaitable(found) else found:
            return value
        assert loop.time() < end, "the condition did not come true in time"
        await asyncio.sleep(0.002)


class Clock(System):
    """A clock that can be set: ``ahead`` of the machine's by so many seconds."""

    def __init__(self, ahead: float = 0) -> None:
        self.ahead = ahead

    def now(self) -> int:
        return super().now() + int(self.ahead * 1_000_000)


class Process:
    """A host over the world's tape, as if it were alone in its process."""

    def __init__(self, world: "World", life: Life, log: Log) -> None:
        self.world, self.life, self.tape, self.log = world, life, life.tape, log
        self.presence = life.presence(world.ambient.random(16))
        self.snapshots = Snapshots(world.folder / "snapshots.db", log.identity.log_id, log.keys, log.ambient)
        self.views = MemoryViews()
        self.worker: Worker[Write, Read] = Worker(log, AgentsAndTasks(), self.views)
        self.registry = ViewRegistry(self.worker, self.views, self.presence)
        self.host = Host(log, self.registry, self.presence, self.snapshots, idle=NEVER)
        self.doorman = Doorman(log, self.presence.holder)

    async def ask(self, task: str, capability: str, *, agent: str = "", within: float = 0, **given: Any) -> str:
        """Ask for a task under an id of the caller's choice."""
        await self.host.place(task, Requested(capability, pack_input(given, "input"), agent, by="ada", within=within))
        return task

    async def state(self, task: str, at: int | None = None) -> TaskState:
        await self.log.refresh()
        return (await load(self.log, TASK, f"task/{task}", snapshots=None, at=at)).state

    async def finished(self, task: str, deadline: float = DEADLINE) -> TaskState:
        """The state that a task has come to."""

        self.log.tail()
        await until(lambda: self.host.end_of(f"task/{task}"), deadline)
        return await self.state(task)

    async def commits(self, stream: str) -> list[Commit]:
        await self.log.refresh()
        return [commit async for commit in self.log.read(stream, lenient=True)]

    async def opened(self, task: str, name: str) -> int:
        """The number of an open wait, once it is there."""

        async def find() -> list[int]:
            state = await self.state(task)
            return [number + 1 for number in state.open if state.waits[number].name == name]

        found: list[int] = await until(find)
        return found[0] - 1

    async def statement(
        self, task: str, wait: int, decision: Decision = "approve", person: str = "ada", **changed: Any
    ) -> Stated:
        """A signed statement about what a task shows; ``changed``: other fields than the true ones."""
        state = await self.state(task)
        key = self.log.keyring.person(person)
        fields: dict[str, Any] = {"opened": b"", "name": "", "shown": b""}
        if wait >= 0:
            shown = state.waits[wait]
            fields = {"opened": shown.opened, "name": shown.name, "shown": shown.shown}
        fields |= {"log": self.log.identity.log_id, "person": person, "key": key.public, "task": task, "time": 0}
        return sign(Statement(wait=wait, decision=decision, **{**fields, **changed}), key)

    async def leave(self, task: str, *events: Any) -> None:
        """Leave events in a task's inbox."""
        inbox = f"inbox/task/{task}"
        writer = await self.doorman.writer(inbox)
        await self.log.append(writer, events, expected=None)
        await self.doorman.release(writer)

    async def decide(self, task: str, name: str, decision: Decision = "approve", **changed: Any) -> None:
        """Sign about an open approval, and leave it in the inbox."""
        await self.leave(task, await self.statement(task, await self.opened(task, name), decision, **changed))

    def let_pass(self, seconds: float) -> None:
        """Have so much time pass at once, for this process; what sleeps out of memory is looked at."""
        assert isinstance(self.log.ambient, Clock)
        self.log.ambient.ahead += seconds
        self.host._supervisor._sooner.set()

    def die(self) -> None:
        """From now on nothing that this process does has any effect on the world."""
        self.life.die()

    async def close(self) -> None:
        if self.life.gone:
            return
        await self.host.close()
        self.snapshots.close()
        await self.log.close()


class World(testing.World):
    """The kit's world, with hosts that stand alone, in real time."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.processes: list[Process] = []

    async def process(self, *agents: Agent, ambient: Ambient | None = None, events: Sequence[type] = CORE) -> Process:
        """Start a process that has these agents' code."""
        life = self.begin()
        process = Process(self, life, await self.open_log(life, events=events, ambient=ambient or Clock()))
        self.processes.append(process)
        if agents:
            await process.host.join(agents)
        return process

    async def kill(self, process: Process) -> None:
        """End a process, with nothing of it left to run."""
        process.die()
        mine = _tasks_of(process)
        for task in mine:
            task.cancel()
        if mine:
            await asyncio.wait(mine, timeout=2)


def _tasks_of(process: Process) -> list[asyncio.Task[Any]]:
    host = process.host
    rounds = host._supervisor
    tasks: list[Any] = [*rounds._background, rounds._reconciler, rounds._sweeper, rounds._timekeeper]
    tasks += process.log._tails
    for cell in host.cells.values():
        tasks += [cell._run, *cell.waits._commits]
        cell.waits.stop()
    return [task for task in tasks if task is not None and task is not asyncio.current_task()]


@contextlib.asynccontextmanager
async def a_world() -> AsyncIterator[World]:
    """A world; at the end, its processes that live are closed, and nothing is left running."""
    with folder() as path:
        world = World(path)
        before = asyncio.all_tasks()
        try:
            yield world
        finally:
            for process in world.processes:
                await process.close()
            left = [task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()]
            for task in left:
                task.cancel()
            if left:
                await asyncio.wait(left, timeout=2)
            for process in world.processes:
                process.log.keys.close()
                process.snapshots.close()
