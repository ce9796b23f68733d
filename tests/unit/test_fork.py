"""Forks of tasks: what was recorded is not done again, what was open is awaited anew, what is changed goes on live."""

import asyncio
import time
from collections import Counter
from typing import Any

import msgspec
import pytest

from agent_party import Agent, Task, step
from agent_party.actors import rehearsal
from agent_party.actors.budgets import Budget, Spent
from agent_party.actors.errors import InputError, RefusedError, UnknownTaskError
from agent_party.actors.events import Forked, Requested
from agent_party.actors.fork import Change, fork
from agent_party.actors.packing import pack_input
from agent_party.actors.past import LogPast, recorded
from agent_party.eventstore.errors import DataKeyMissingError, IdReusedError
from tests.unit.handlers_kit import failure, no_pauses, result, world
from tests.unit.world import Process, World, until

__all__ = ["no_pauses", "world"]


async def forked(
    process: Process, task: str = "t", new: str = "f", *, at: int | None = None, past: Any = None, **changed: Any
) -> str:
    """A fork of a task, placed in a process."""
    source = past or LogPast(process.log)
    before = await recorded(source, task, at)
    change = Change(**changed)
    asked = await fork(process.log, process.doorman, source, before, task=new, by="ada", change=change)
    await process.host.place(new, asked)
    return new


class Bakery:
    """An agent whose effects are counted."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self.broken = True
        self.agent = Agent("baker")
        self.agent.on("bake")(self.bake)
        self.agent.on("buy")(self.buy)

    async def mix(self, what: str) -> str:
        self.done["mix"] += 1
        return f"dough of {what}"

    async def heat(self, dough: str, oven: str) -> str:
        self.done["heat"] += 1
        if self.broken:
            raise ValueError("the oven is cold")
        return f"{dough}, baked in {oven}"

    async def buy(self, task: Task, what: str) -> str:
        self.done["buy"] += 1
        return what.upper()

    async def bake(self, task: Task, what: str, oven: str = "a") -> str:
        bought = await task.ask("buy", what=what)
        dough = await task.step(self.mix, bought)
        return await task.step(self.heat, dough, oven)


async def failed(world: World, bakery: Bakery) -> Process:
    process = await world.process(bakery.agent)
    await process.ask("t", "bake", what="rye")
    assert failure(await process.finished("t"))[0] == "StepError"
    return process


async def revision_of(process: Process, task: str, wait: int, what: str) -> int:
    """The revision at which a wait was opened or settled."""
    for commit in await process.commits(f"task/{task}"):
        for event in commit.events:
            if any(one.wait == wait for one in getattr(event, what, [])):
                return commit.revision
    raise AssertionError


async def test_a_fork_reuses_what_was_recorded_and_goes_on_live(world: World) -> None:
    bakery = Bakery()
    process = await failed(world, bakery)
    bakery.broken = False
    before = dict(bakery.done)
    at = await revision_of(process, "t", 1, "settled")
    await forked(process, at=at)
    state = await process.finished("f")
    assert result(state) == "dough of RYE, baked in a"
    assert bakery.done - Counter(before) == Counter(heat=1)
    first = (await process.commits("task/f"))[0]
    assert isinstance(first.events[0], Requested)
    said = next(event for event in first.events if isinstance(event, Forked))
    parent = (await process.commits("task/t"))[at - 1]
    assert (said.task, said.revision, said.commit, said.log) == ("t", at, parent.hash, process.log.identity.log_id)
    assert first.cause is not None
    assert first.cause.commit == parent.hash


async def test_a_changed_input_goes_its_own_way_from_where_it_differs(world: World) -> None:
    bakery = Bakery()
    process = await failed(world, bakery)
    bakery.broken = False
    before = Counter(bakery.done)
    await forked(process, "t", "oven", input={"oven": "b"})
    assert result(await process.finished("oven")) == "dough of RYE, baked in b"
    assert bakery.done - before == Counter(heat=1)
    await forked(process, "t", "spelt", at=3, input={"what": "spelt"})
    assert result(await process.finished("spelt")) == "dough of SPELT, baked in a"
    assert bakery.done - before == Counter(heat=2, mix=1, buy=1)


async def test_a_fork_that_does_less_leaves_the_rest_of_the_record(world: World) -> None:
    bakery = Bakery()
    process = await failed(world, bakery)
    short = Agent("baker", version="2")

    @short.on("bake")
    async def bake(task: Task, what: str, oven: str = "a") -> str:
        return str(await task.ask("buy", what=what))

    await process.host.join([short])
    await forked(process)
    state = await process.finished("f")
    assert (result(state), len(state.waits)) == ("RYE", 1)


async def test_the_same_fork_twice_is_one_and_another_under_its_id_is_refused(world: World) -> None:
    bakery = Bakery()
    process = await failed(world, bakery)
    bakery.broken = False
    await forked(process, at=4)
    await forked(process, at=4)
    assert result(await process.finished("f")) == "dough of RYE, baked in a"
    await forked(process, at=4)
    with pytest.raises(IdReusedError):
        await forked(process, at=3)
    with pytest.raises(IdReusedError):
        await forked(process, at=4, models={"main": "other"})


async def test_what_cannot_be_forked_says_why(world: World) -> None:
    bakery = Bakery()
    process = await failed(world, bakery)
    last = len(await process.commits("task/t"))
    for at in (0, last + 1):
        with pytest.raises(InputError, match=f"task t has no revision {at}: it is at {last}"):
            await forked(process, at=at)
    with pytest.raises(UnknownTaskError, match="there is no task nobody"):
        await forked(process, "nobody")
    key = process.log.keys.of_subject("task/t")
    process.log.keys._db.execute("DELETE FROM data_key WHERE id = ?", (key.id,))
    process.log.keys._by_id.clear()
    process.log.keys._by_subject.clear()
    with pytest.raises(DataKeyMissingError, match="task/t cannot be gone over again"):
        await forked(process)


async def test_a_fork_has_a_key_and_artifacts_of_its_own(world: World) -> None:
    agent = Agent("a")

    async def read(text: bytes) -> int:
        return len(text)

    @agent.on("write")
    async def write(task: Task) -> str:
        made = await task.artifact("page", b"words")
        size = await task.step(read, await task.open(made))
        await task.approval("publish", show=made)
        return f"{made.stream} {size}"

    process = await world.process(agent)
    await process.ask("t", "write")
    await process.opened("t", "publish")
    await forked(process)
    await process.opened("f", "publish")
    key = process.log.keys.of_subject("task/t")
    process.log.keys._db.execute("DELETE FROM data_key WHERE id = ?", (key.id,))
    process.log.keys._by_id.clear()
    await process.decide("f", "publish")
    assert result(await process.finished("f")) == "task/f 5"


@pytest.mark.parametrize("on_crash", ["retry", "ask"])
async def test_what_was_open_is_awaited_anew(world: World, on_crash: Any) -> None:
    agent, done = Agent("a"), Counter[str]()

    @agent.on("sub")
    async def sub(task: Task) -> str:
        done["sub"] += 1
        await task.signal("go")
        return task.id

    @step(on_crash=on_crash)
    async def slow() -> str:
        done["slow"] += 1
        if done["slow"] == 1:
            await until(lambda: done["free"])
        return "slow"

    @agent.on("all")
    async def everything(task: Task) -> list[Any]:
        first = await task.approval("first")
        return [first.person, await task.step(slow), await task.ask("sub")]

    process = await world.process(agent)
    await process.ask("t", "all")
    await process.decide("t", "first", person="bob")
    await until(lambda: done["slow"])
    await forked(process, new="step")
    child = await until(lambda: _child_of(process, "step"))
    await until(lambda: done["sub"])
    assert done == Counter(slow=2, sub=1)
    assert (await process.state("step")).waits[0].settled is not None
    await forked(process, at=await revision_of(process, "t", 0, "opened"), new="asked")
    await process.decide("asked", "first", person="eve")
    other = await until(lambda: _child_of(process, "asked"))
    assert child != other
    done["free"] += 1
    for fork_, ended in (("step", child), ("asked", other)):
        from tests.unit.test_messages import message

        await process.host.deliver(ended, message("signal", "go", 1))
        assert result(await process.finished(fork_))[2] == ended


async def _child_of(process: Process, task: str) -> str:
    rows = [row for row in await process.registry.tasks() if row.parent == task]
    return rows[0].id if rows else ""


async def test_a_fork_of_a_fork_and_one_after_beginning_anew(world: World) -> None:
    agent, done = Agent("a"), Counter[int]()

    async def count(number: int) -> int:
        done[number] += 1
        return number

    @agent.on("endless")
    async def endless(task: Task, number: int, most: int = 3) -> int:
        await task.step(count, number)
        if number < most:
            task.continue_as_new(number=number + 1, most=most)
        return number

    process = await world.process(agent)
    await process.ask("t", "endless", number=1)
    assert result(await process.finished("t")) == 3
    await forked(process)
    assert result(await process.finished("f")) == 3
    assert done == Counter({1: 1, 2: 1, 3: 1})
    await forked(process, "f", "g", input={"most": 5})
    assert result(await process.finished("g")) == 5
    assert done == Counter({1: 1, 2: 1, 3: 1, 4: 1, 5: 1})


async def test_a_fork_survives_a_crash_and_keeps_to_its_record(world: World) -> None:
    bakery = Bakery()
    process = await failed(world, bakery)
    before = await recorded(LogPast(process.log), "t", await revision_of(process, "t", 1, "settled"))
    await fork(process.log, process.doorman, LogPast(process.log), before, task="f", by="ada", change=Change())
    await world.kill(process)
    bakery.broken = False
    done = Counter(bakery.done)
    process = await world.process(bakery.agent)
    assert result(await process.finished("f")) == "dough of RYE, baked in a"
    assert bakery.done - done == Counter(heat=1)


async def test_what_was_taken_over_costs_nothing(world: World) -> None:
    bakery = Bakery()
    process = await world.process(bakery.agent)
    budget = Budget.of(calls=5)
    given = pack_input({"what": "rye"}, "the input")
    await process.host.place("t", Requested("bake", given, by="ada", budget=budget))
    await process.finished("t")
    assert (await process.state("t")).spent.calls == 2
    bakery.broken = False
    await forked(process, at=await revision_of(process, "t", 1, "settled"))
    state = await process.finished("f")
    assert result(state) == "dough of RYE, baked in a"
    assert (state.budget, state.spent.calls, state.reserved) == (budget, 1, Spent())


async def test_a_query_to_a_task_that_lives_elsewhere_is_answered_from_its_record(world: World) -> None:
    agent, done = Agent("a"), Counter[str]()

    async def found(name: str) -> int:
        done[name] += 1
        return len(name)

    @agent.on("ask")
    async def ask(task: Task, name: str) -> int:
        letters = await task.step(found, name)
        task.on_query("letters", lambda: letters)
        await task.signal("go")
        return letters

    process, other = await world.process(agent), await world.process(agent)
    await process.ask("t", "ask", name="ravens")
    await process.opened("t", "go")
    await other.log.refresh()
    assert await other.host.query("t", "letters", b"\x80") == b"\x06"
    with pytest.raises(RefusedError, match="takes no query 'words'; it takes letters"):
        await other.host.query("t", "words", b"\x80")
    assert done == Counter(ravens=1)
    assert (await process.state("t")).status == "waiting"


@pytest.mark.parametrize("at_once", [False, True], ids=["one after the other", "at once"])
async def test_a_process_that_is_held_up_answers_from_a_record_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    """Whatever holds up the process has held up the handler too: it has not stood still."""
    agent = Agent("a")

    async def found(number: int) -> int:
        return number

    @agent.on("ask")
    async def ask(task: Task) -> None:
        numbers: list[int] = []
        task.on_query("found", lambda: numbers)

        async def find(number: int) -> None:
            for _ in range(5 * (number % 7)):
                await asyncio.sleep(0)
            numbers.append(await task.step(found, number))

        if at_once:
            await asyncio.gather(*(find(number) for number in range(60)))
        else:
            for number in range(60):
                await find(number)
        await task.signal("go")

    async def hold_up() -> None:
        for _ in range(10):
            await asyncio.sleep(0)
            time.sleep(0.2)  # noqa: ASYNC251 - nothing of this process goes on meanwhile

    process, other = await world.process(agent), await world.process(agent)
    await process.ask("t", "ask")
    await process.opened("t", "go")
    await other.log.refresh()
    monkeypatch.setattr(rehearsal, "PATIENCE", 0.02)
    holding = asyncio.create_task(hold_up())
    answer = msgspec.msgpack.decode(await other.host.query("t", "found", b"\x80"))
    assert sorted(answer) == list(range(60))
    await holding
