"""Versions of handlers side by side, tasks that outlive their code, and recorded histories against today's code."""

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from agent_party import Agent, Party, Task
from agent_party.actors.errors import ConfigurationError
from agent_party.actors.past import LogPast, recorded
from agent_party.actors.rehearsal import rehearse
from agent_party.actors.versions import natural
from agent_party.timetravel import debug
from tests.golden.handlers import HISTORIES, keeper
from tests.unit.handlers_kit import no_pauses, result, world
from tests.unit.test_fork import forked
from tests.unit.test_messages import message
from tests.unit.world import Process, World, until

__all__ = ["no_pauses", "world"]


def versioned(version: str, *, before: int = 0, name: str = "w", capability: str = "say") -> Agent:
    """An agent that says its version after a signal; ``before``: steps that it does first."""
    agent = Agent(name, version=version)

    @agent.on(capability)
    async def say(task: Task) -> str:
        for number in range(before):
            await task.step(len, "x" * number)
        await task.signal("go")
        return version

    return agent


async def go(process: Process, task: str) -> Any:
    await process.host.deliver(task, message("signal", "go", 1))
    return result(await process.finished(task))


def test_versions_have_a_natural_order() -> None:
    given = ["1", "1.2", "1.10", "2", "10", "2.0-rc1", "beta"]
    shuffled = random.Random(1).sample(given, len(given))
    assert sorted(shuffled, key=natural) == ["beta", "1", "1.2", "1.10", "2", "2.0-rc1", "10"]


async def test_new_tasks_get_the_newest_and_those_in_flight_keep_theirs(world: World) -> None:
    process = await world.process(versioned("2", before=1))
    await process.ask("old", "say")
    await process.opened("old", "go")
    await world.kill(process)
    process = await world.process(versioned("2", before=1), versioned("10"), versioned("9"))
    await process.ask("new", "say")
    assert await go(process, "new") == "10"
    assert await go(process, "old") == "2"
    assert (await process.state("old")).version == "2"
    rows = await process.registry.agents()
    assert [(row.name, row.version) for row in rows] == [("w", "10")]
    agent = (await process.commits("agent/w"))[-1]
    assert [event.older for event in agent.events if hasattr(event, "older")] == [["9", "2"]]


async def test_a_task_whose_version_is_gone_tries_the_newest_and_stops_where_that_differs(world: World) -> None:
    process = await world.process(versioned("1", before=2))
    await process.ask("t", "say")
    await process.opened("t", "go")
    await world.kill(process)
    process = await world.process(versioned("3", before=1), versioned("2", before=1))
    await process.host.deliver("t", message("signal", "go", 1))
    await until(lambda: _status(process, "t", "stopped"))
    failure = (await process.state("t")).failure
    assert failure is not None
    assert failure.kind == "ReplayError"
    assert "wait 1 is recorded as step 'len', and the handler now asks for signal 'go'" in failure.message
    await process.ask("other", "say")
    assert await go(process, "other") == "3"
    await process.host.join([versioned("1.1", before=2), versioned("1", before=2)])
    assert result(await process.finished("t")) == "1"


async def _status(process: Process, task: str, status: str) -> bool:
    return (await process.state(task)).status == status


async def test_a_newer_version_that_does_the_same_goes_on(world: World) -> None:
    process = await world.process(versioned("1", before=1))
    await process.ask("t", "say")
    await process.opened("t", "go")
    await world.kill(process)
    process = await world.process(versioned("2", before=1))
    assert await go(process, "t") == "2"
    assert (await process.state("t")).version == "2"


@pytest.mark.parametrize("now", [versioned("2", capability="tell"), versioned("2", name="v")])
async def test_a_task_whose_handler_was_renamed_or_removed_says_what_it_waits_for(world: World, now: Agent) -> None:
    process = await world.process(versioned("1"))
    await process.ask("t", "say")
    await process.opened("t", "go")
    await world.kill(process)
    process = await world.process(now)
    other = next(iter(now.capabilities))
    await process.ask("other", other)
    assert await go(process, "other") == "2"
    await process.host.deliver("t", message("signal", "go", 1))
    assert process.host.waiting_for["t"] == "agent w with capability say to join"
    assert (await process.state("t")).status == "waiting"
    await process.host.join([versioned("1")])
    assert result(await process.finished("t")) == "1"


async def test_a_fork_of_one_version_waits_for_that_version(world: World) -> None:
    process = await world.process(versioned("1"), versioned("2"))
    await process.ask("t", "say")
    await process.opened("t", "go")
    await forked(process, new="newest")
    await forked(process, new="pinned", version="1")
    await forked(process, new="later", version="3")
    assert await go(process, "newest") == "2"
    assert await go(process, "pinned") == "1"
    assert process.host.waiting_for["later"] == "agent w 3 with capability say to join"
    before = len(process.log.index.control_rows(b"task/later"))
    await process.host.reconcile()
    assert len(process.log.index.control_rows(b"task/later")) == before
    await process.host.join([versioned("3")])
    assert await go(process, "later") == "3"


async def test_the_same_name_and_version_twice_is_refused(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARTY_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="same name and version: w 1"):
        await Party.open(agents=[versioned("1"), versioned("1")], runtime="local").start()
    async with Party.open(agents=[versioned("1"), versioned("2")], runtime="local") as party:
        task = await party.ask("say")
        await task.signal("go")
        assert await task.result() == "2"


# Recorded histories


@pytest.mark.parametrize(("name", "ended"), [("finished", True), ("waiting", False)])
@pytest.mark.parametrize("folder", HISTORIES, ids=lambda folder: folder.name)
def test_the_golden_histories_are_gone_over_by_todays_code(folder: Path, name: str, ended: bool) -> None:
    told = debug(folder / f"{name}.party", [keeper])
    assert (told.differs, told.reached, told.ended, told.notes) == ("", len(told.waits), ended, ())
    assert len(told.waits) >= 14
    if ended:
        assert told.result == "6 [12, 12] 0 True ValueError owls fine"


def test_a_golden_history_is_not_gone_over_by_other_code() -> None:
    other = Agent("keeper")

    @other.on("keep")
    async def keep(task: Task, text: str) -> int:
        return await task.step(len, text)

    told = debug(HISTORIES[-1] / "waiting.party", [other])
    assert "wait 0 is recorded as step 'count', and the handler now asks for step 'len'" in told.differs


@pytest.mark.parametrize(
    ("what", "wait", "says"),
    [
        ("other step", 1, "wait 1 is recorded as step 'two', and the handler now asks for step 'three'"),
        ("other input", 0, "wait 0 is recorded as step 'one', and the handler now asks for step 'one' with another"),
        ("less", 1, "wait 1 is recorded as step 'two', and the handler now returns before it"),
        ("raises", 1, "wait 1 is recorded as step 'two', and the handler now raises ValueError before it"),
        ("stands", 1, "wait 1 is recorded as step 'two', and the handler does not ask for it"),
        ("same", None, ""),
        ("more", None, ""),
    ],
)
async def test_a_handler_that_does_not_do_the_same_is_told_by_wait_and_name(
    world: World, what: str, wait: int | None, says: str
) -> None:
    planted, agent, calls = "", Agent("a"), []

    def named(name: str) -> Any:
        def effect(number: int) -> int:
            calls.append(name)
            return number

        effect.__qualname__ = name
        return effect

    @agent.on("work")
    async def work(task: Task) -> int:
        await task.step(named("one"), 2 if planted == "other input" else 1)
        if planted == "less":
            return 0
        if planted == "raises":
            raise ValueError("planted")
        if planted == "stands":
            await asyncio.Event().wait()
        await task.step(named("three" if planted == "other step" else "two"), 2)
        if planted == "more":
            await task.step(named("more"), 3)
        return 5

    process = await world.process(agent)
    await process.ask("t", "work")
    await process.finished("t")
    calls.clear()
    planted, past = what, LogPast(process.log)
    told = await rehearse(await recorded(past, "t"), [agent], past, patience=2.0 if what == "stands" else 30)
    assert says in told.differs
    assert bool(told.differs) == bool(says)
    assert (told.wait, calls) == (wait, [])
    assert told.asks == (("step 'more'",) if what == "more" else ())
    assert told.notes == (("it had come to its end, and now asks for step 'more'",) if what == "more" else ())
