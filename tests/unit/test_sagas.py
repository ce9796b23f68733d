"""Sagas: taking back what was done, after a failure, a cancellation, a crash."""

import asyncio
import threading

import pytest

from agent_party import Agent, Task, step
from agent_party.actors.errors import CompensationError, TaskCancelledError
from tests.unit.handlers_kit import world
from tests.unit.test_messages import message
from tests.unit.world import World, until

__all__ = ["world"]


def sagas(done: list[str], fail: bool = True) -> Agent:
    agent = Agent("a")

    def cancel_room(name: str) -> None:
        done.append(f"-{name}")

    @step(undo=cancel_room)
    def room(name: str) -> None:
        done.append(name)

    @step()
    def pay() -> None:
        if fail:
            raise ValueError("no money")

    @agent.on("travel")
    async def travel(task: Task) -> str:
        async with task.saga() as saga:
            await saga.step(room, "oslo")
            await saga.step(room, "rome")
            await task.signal("go")
            await task.step(pay)
        return "gone"

    return agent


async def test_a_saga_takes_back_in_reverse_order_what_it_did(world: World) -> None:
    done: list[str] = []
    process = await world.process(sagas(done))
    await process.ask("t", "travel")
    await process.host.deliver("t", message("signal", "go", 1))
    state = await process.finished("t")
    assert state.status == "failed"
    assert state.failure is not None
    assert "no money" in state.failure.message
    assert done == ["oslo", "rome", "-rome", "-oslo"]


@pytest.mark.parametrize("turns", range(20))
async def test_a_cancelled_saga_is_taken_back_also_over_a_crash(world: World, turns: int) -> None:
    """Whenever it comes, it repeats at most the one step that was in flight."""
    done, others = list[str](), set(threading.enumerate())
    agent = sagas(done, fail=False)
    process = await world.process(agent)
    await process.ask("t", "travel")
    await process.opened("t", "go")
    await process.host.cancel("t", "ada", "changed my mind")
    for _ in range(turns):
        await asyncio.sleep(0)
    await world.kill(process)
    for thread in set(threading.enumerate()) - others:  # what the dead had begun does not come later
        await asyncio.to_thread(thread.join) if thread.name == "effect" else None
    process = await world.process(agent)
    state = await process.finished("t")
    assert state.status == "cancelled"
    assert list(dict.fromkeys(done)) == ["oslo", "rome", "-rome", "-oslo"]
    assert done[:3] == ["oslo", "rome", "-rome"]
    assert done[3:] in (["-oslo"], ["-rome", "-oslo"], ["-oslo", "-oslo"])
    assert state.cancelled is not None
    assert state.cancelled.by == "ada"


async def test_a_running_step_of_a_cancelled_saga_is_stopped(world: World) -> None:
    agent, seen = Agent("a"), []

    @step()
    async def long() -> None:
        seen.append("began")
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("stopped")

    @agent.on("work")
    async def work(task: Task) -> None:
        async with task.saga() as saga:
            saga.undo(lambda: seen.append("undone"))
            try:
                await task.step(long)
            except TaskCancelledError:
                seen.append("told")
                raise

    process = await world.process(agent)
    await process.ask("t", "work")
    await until(lambda: seen)
    await process.host.cancel("t", "ada", "")
    assert (await process.finished("t")).status == "cancelled"
    assert seen == ["began", "stopped", "told", "undone"]


async def test_what_cannot_be_taken_back_is_said(world: World) -> None:
    agent = Agent("a")

    def stuck() -> None:
        raise OSError("the door is locked")

    @agent.on("work")
    async def work(task: Task) -> None:
        async with task.saga() as saga:
            saga.undo(stuck)
            raise ValueError("first")

    process = await world.process(agent)
    await process.ask("t", "work")
    state = await process.finished("t")
    assert state.failure is not None
    assert state.failure.kind == CompensationError.__name__
    assert "the door is locked" in state.failure.message
