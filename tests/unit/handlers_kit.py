"""What tests of handlers share."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from agent_party import Agent
from agent_party.actors import cell
from agent_party.actors.steps import StepOptions
from agent_party.actors.task_state import TaskState
from tests.unit.world import Process, World, a_world, until


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world() as world:
        yield world


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries and stubborn handlers cost no time."""
    monkeypatch.setattr(StepOptions, "pause", lambda self, attempt, chance: 0.001)
    monkeypatch.setattr(cell, "STOPPING", 0.05)


def does(*handlers: Any, **options: Any) -> Agent:
    """An agent with these handlers, each under its own name."""
    agent = Agent("worker", **options)
    for handler in handlers:
        agent.on(handler.__name__)(handler)
    return agent


async def run(world: World, handler: Any, *others: Any, within: float = 0, **given: Any) -> tuple[Process, TaskState]:
    """A process, and what a task of the handler comes to in it."""
    process = await world.process(does(handler, *others))
    await process.ask("t", handler.__name__, within=within, **given)
    return process, await process.finished("t")


def result(state: TaskState) -> Any:
    assert state.status == "completed", state.failure
    return msgspec.msgpack.decode(state.result or b"")


def failure(state: TaskState) -> tuple[str, str]:
    assert state.status == "failed"
    assert state.failure is not None
    return state.failure.kind, state.failure.message


async def asked(process: Process) -> str:
    """The name of the wait that a person is asked about, once one is."""

    async def held() -> list[str]:
        return [wait.name for wait in (await process.state("t")).waits if wait.asks_a_person]

    return str((await until(held))[0])
