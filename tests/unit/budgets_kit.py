"""What tests of budgets share."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from agent_party import Task
from agent_party.actors.budgets import Budget, Spent, bounded
from agent_party.actors.delegation import child_id
from agent_party.actors.events import Requested
from agent_party.actors.packing import pack_input
from agent_party.actors.task_state import TaskState
from tests.unit.world import Process, World, a_world, until


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world() as world:
        yield world


async def ask(process: Process, capability: str, budget: Budget | None, *, task: str = "t", **given: Any) -> str:
    """Ask for a task with a budget."""
    within = bounded(budget, 0)
    requested = Requested(capability, pack_input(given, "input"), by="ada", budget=budget, within=within)
    await process.host.place(task, requested)
    return task


async def held(process: Process, task: str = "t") -> tuple[int, str]:
    """The wait of a task that is held, once there is one, and why."""

    async def find() -> list[tuple[int, str]]:
        state = await process.state(task)
        return [(n + 1, state.waits[n].held) for n in sorted(state.open) if state.waits[n].asks_a_person]

    found: list[tuple[int, str]] = await until(find)
    return found[0][0] - 1, found[0][1]


async def running(process: Process, place: int = 0, task: str = "t") -> str:
    """The id of a task's child, once that runs."""

    async def find() -> str:
        known = (await children(process, task))[place : place + 1]
        return known[0] if known and (await process.state(known[0])).runs else ""

    return str(await until(find))


async def children(process: Process, task: str = "t") -> list[str]:
    """The ids of a task's children, in the order of its waits."""
    state = await process.state(task)
    return [child_id(task, n, state.begun) for n, wait in enumerate(state.waits) if wait.kind == "child"]


async def check(process: Process, task: str = "t", over: Spent | None = None) -> None:
    """What holds of every task at every commit: spent and reserved are within the limit; and at its end nothing is
    reserved. ``over``: by how much dear effects may have gone beyond it."""
    commits = await process.commits(f"task/{task}")
    for commit in commits:
        state = await process.state(task, at=commit.revision)
        if state.budget is None:
            continue
        used = state.spent + state.reserved - (over or Spent())
        assert not state.budget.lacks(used), f"{task} at {commit.revision}: {used} of {state.budget}"
        if state.finished:
            assert not state.reserved, f"{task} ends with {state.reserved} reserved"
            assert not state.owed
    for child in await children(process, task):
        if (await process.log.state(f"task/{child}")).revision:
            await check(process, child, over)


def spent(state: TaskState) -> dict[str, Any]:
    """What was spent, as plain numbers."""
    found: dict[str, Any] = msgspec.to_builtins(state.spent)
    return found


async def one() -> int:
    return 1


async def part(task: Task, tokens: int = 0) -> str:
    """Uses one call, and tokens."""
    await task.step(one)
    await task.budget.spend(tokens=tokens)
    return "done"


async def events(process: Process, kind: type, task: str = "t") -> list[Any]:
    return [event for commit in await process.commits(f"task/{task}") for event in commit.events if type(event) is kind]
