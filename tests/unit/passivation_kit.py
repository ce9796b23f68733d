"""A task that waits for one thing or another, and what arrives for it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agent_party import Agent, Task
from agent_party.actors import supervisor
from agent_party.actors.events import Received
from agent_party.actors.packing import pack
from tests.unit.world import NEVER, Process, World, a_world, until


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world() as world:
        yield world


@pytest.fixture(autouse=True)
def no_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """What arrives must be noticed when it does, not at the supervisor's next round."""
    monkeypatch.setattr(supervisor, "ROUND", 3_600.0)


HOUR = 3_600.0
agent = Agent("worker")
ended: list[str] = []


@agent.on("child")
async def child(task: Task) -> str:
    return str(await task.signal("grow up"))


@agent.on("work")
async def work(task: Task, what: str) -> Any:
    """Waits for something, in the middle of steps; says how it ends when it is cancelled."""
    total = [0]

    async def add(by: int) -> int:
        total[0] += by
        return total[0]

    task.on_update("add", add)
    task.on_query("total", lambda: total[0])
    before = await task.step(str.upper, "before ")
    try:
        match what:
            case "signal":
                got = await task.signal("go")
            case "approval":
                got = (await task.approval("go")).person
            case "child":
                got = await task.ask("child")
            case "sleep":
                await task.sleep(HOUR)
                got = "slept"
            case _:
                got = await task.first(task.signal("never"), task.approval("nor this"))
        return before + await task.step(str.upper, str(got))
    except asyncio.CancelledError:
        ended.append(what)
        await task.step(str.upper, "this must not be recorded")
        raise


def message(name: str, value: Any, kind: Any = "signal", mark: bytes = b"m") -> Received:
    return Received(kind, name, pack(value, "value"), mark * 16)


async def records(world: World) -> int:
    return len(world.tape.records)


async def at_rest(process: Process, *tasks: str) -> None:
    """Have everything that may go taken out of memory now."""
    process.host.passivation.idle = 0.0

    async def gone() -> bool:
        await process.host.passivation.sweep()
        return not any(task in process.host.cells for task in tasks)

    await until(gone)
    process.host.passivation.idle = NEVER


async def waiting(process: Process, task: str) -> None:
    async def stands() -> bool:
        state = await process.state(task)
        return state.status in ("waiting", "paused") and any(state.waits[n].kind != "update" for n in state.open)

    await until(stands)


async def child_of(process: Process, task: str) -> str:
    async def find() -> str:
        return next((row.id for row in await process.registry.tasks() if row.parent == task), "")

    return str(await until(find))


async def signalled(process: Process) -> None:
    await process.host.deliver("t", message("go", "signal"))


async def left_in_the_inbox(process: Process) -> None:
    from agent_party.actors.events import Sent

    await process.leave("t", Sent(message("go", "inbox")))


async def approved(process: Process) -> None:
    await process.decide("t", "go")


async def grown_up(process: Process) -> None:
    await process.host.deliver(await child_of(process, "t"), message("grow up", "old"))


async def time_passes(process: Process) -> None:
    process.let_pass(HOUR)
