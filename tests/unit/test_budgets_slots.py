"""Limits on tasks at once: of an agent, of a capability, and of how many wait."""

import asyncio
from typing import Any

import pytest

from agent_party import Agent, Task
from agent_party.actors.errors import ConfigurationError, MailboxFullError
from agent_party.actors.slots import Limits
from tests.unit.budgets_kit import world
from tests.unit.handlers_kit import result
from tests.unit.world import Process, World, until

__all__ = ["world"]


class Busy:
    """A step that waits for a gate, and counts how many run at once."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.now = self.most = 0

    async def work(self) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        await self.gate.wait()
        self.now -= 1


async def test_a_capability_has_a_limit_beside_its_agents(world: World) -> None:
    agent, narrow, wide = Agent("a", concurrency=3), Busy(), Busy()

    @agent.on("narrow", concurrency=1)
    async def _(task: Task, n: int) -> None:
        await task.step(narrow.work)

    @agent.on("wide")
    async def _wide(task: Task, n: int) -> None:
        await task.step(wide.work)

    process = await world.process(agent)
    names = [f"{kind}{n}" for n in range(4) for kind in ("narrow", "wide")]
    for name in names:
        await process.ask(name, name[:-1], n=int(name[-1]))
    await until(lambda: (narrow.now, wide.now) == (1, 2))
    narrow.gate.set()
    wide.gate.set()
    for name in names:
        await process.finished(name)
    assert (narrow.most, wide.most <= 3) == (1, True)
    await until(lambda: process.host.limits(agent).free == 3)


async def test_a_parent_and_its_children_do_not_hang_at_one_at_a_time(world: World) -> None:
    agent = Agent("a", concurrency=1)

    @agent.on("whole", concurrency=1)
    async def whole(task: Task, depth: int) -> int:
        if not depth:
            return await task.step(len, "x")
        return sum(await asyncio.gather(*(task.ask("whole", depth=depth - 1) for _ in range(2))))

    process = await world.process(agent)
    for n in range(5):
        await process.ask(f"t{n}", "whole", depth=3)
    for n in range(5):
        assert result(await process.finished(f"t{n}")) == 8
    await until(lambda: process.host.limits(agent).free == 1)


async def test_what_is_left_of_several_waits_holds_no_place(world: World) -> None:
    agent = Agent("a", concurrency=1)

    @agent.on("quick")
    async def quick(task: Task, n: int) -> int:
        return await task.step(len, "x" * n)

    @agent.on("both")
    async def both(task: Task) -> None:
        await asyncio.gather(task.ask("quick", n=1), task.signal("never"))

    process = await world.process(agent)
    await process.ask("t", "both")

    async def one_has_ended() -> bool:
        return any(wait.settled for wait in (await process.state("t")).waits)

    await until(one_has_ended)
    await process.ask("other", "quick", n=2)
    assert result(await process.finished("other")) == 2


async def _records(process: Process) -> int:
    await process.log.refresh()
    return len(await process.registry.tasks(limit=100))


async def test_who_asks_while_too_many_wait_is_refused_and_nothing_is_recorded(world: World) -> None:
    agent, busy = Agent("a", concurrency=1, queue=2), Busy()

    @agent.on("work")
    async def work(task: Task, n: int) -> Any:
        await task.step(busy.work)
        return n

    process = await world.process(agent)
    await process.ask("t0", "work", n=0)
    await until(lambda: busy.now)
    for n in (1, 2):
        await process.ask(f"t{n}", "work", n=n)
    with pytest.raises(MailboxFullError, match="2 tasks wait for agent a here already"):
        await process.ask("t3", "work", n=3)
    assert not (await process.log.state("task/t3")).revision
    assert not (await process.log.state("task/t3")).grants
    await process.ask("t2", "work", n=2)
    busy.gate.set()
    await process.finished("t2")
    await process.ask("t3", "work", n=3)
    assert result(await process.finished("t3")) == 3
    assert process.host.limits(agent).waiting == 0


async def test_many_asked_at_once_do_not_slip_in(world: World) -> None:
    agent, busy = Agent("a", concurrency=1, queue=3), Busy()

    @agent.on("work")
    async def work(task: Task, n: int) -> None:
        await task.step(busy.work)

    process = await world.process(agent)
    asked = await asyncio.gather(*(process.ask(f"t{n}", "work", n=n) for n in range(9)), return_exceptions=True)
    assert sum(isinstance(one, MailboxFullError) for one in asked) >= 5
    assert await _records(process) == sum(isinstance(one, str) for one in asked) <= 4
    busy.gate.set()
    for task in asked:
        if isinstance(task, str):
            await process.finished(task)


async def test_what_a_task_delegates_is_let_in(world: World) -> None:
    agent = Agent("a", concurrency=1, queue=1)

    @agent.on("part")
    async def part(task: Task, n: int) -> int:
        return await task.step(len, "x" * n)

    @agent.on("whole")
    async def whole(task: Task) -> int:
        return sum(await asyncio.gather(*(task.ask("part", n=n) for n in range(6))))

    process = await world.process(agent)
    await process.ask("t", "whole")
    assert result(await process.finished("t")) == 15


async def test_who_is_cancelled_while_it_waits_for_its_places_holds_none() -> None:
    limits = Limits("a", 1, 10, {"x": 2})
    first, second = limits.slot("t1", "x"), limits.slot("t2", "x")
    await first.take()
    waiting = asyncio.create_task(second.take())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert limits.waiting == 1
    waiting.cancel()
    await asyncio.wait([waiting])
    assert (limits.waiting, limits.free) == (0, 0)
    first.let_go()
    third, fourth = limits.slot("t3", "x"), limits.slot("t4", "x")
    await third.take()
    third.let_go()
    await fourth.take()
    assert limits.free == 0


@pytest.mark.parametrize("number", [0, -1])
def test_a_limit_that_lets_nothing_through_is_refused(number: int) -> None:
    with pytest.raises(ConfigurationError, match="queue must be 1 or more"):
        Agent("a", queue=number)
    with pytest.raises(ConfigurationError, match="the concurrency of x must be 1 or more"):
        Agent("a").on("x", concurrency=number)
