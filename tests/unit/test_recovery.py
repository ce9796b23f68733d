"""A task whose process dies at every append and at every effect, and which goes on in the next one.

Whatever the moment: the result is the same, each effect is done once, but for those that were in flight at the crash,
and none is done before its opening is on the log.
"""

import asyncio
import functools
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from agent_party import Agent, RejectedError, StepError, Task
from agent_party.actors.task_state import TaskState, WaitState
from agent_party.actors.waits import Waits
from tests.unit.world import Process, World, a_world, until

RESULT = "got ravens; child of 7 is 14; refused by ada; ValueError; 4 in all; 10"


class Moments:
    """Counts the effects of a run, and crashes its process at one of them."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self.opened_first: list[bool] = []
        self.process: Process | None = None
        self.crash: Callable[[int], None] = lambda n: None

    async def effect(self, name: str) -> None:
        """What each step does first; the log is looked at as another process sees it."""
        records = self.process.world.tape.records if self.process else []
        self.opened_first.append(self._is_durable(name, len(records)))
        self.done[name] += 1
        self.crash(self.done.total())
        await asyncio.sleep(0)

    def _is_durable(self, name: str, records: int) -> bool:
        """Whether the opening of this step has reached the tape: the process has acknowledged it."""
        assert self.process is not None
        for cell in self.process.host.cells.values():
            if any(w.name.endswith(name) and w.settled is None and w.opened for w in cell.state.waits):
                return True
        return False


def party(moments: Moments) -> Agent:
    agent = Agent("worker")

    async def fetch(topic: str) -> str:
        await moments.effect("fetch")
        return f"got {topic}"

    async def double(number: int) -> int:
        await moments.effect("double")
        return 2 * number

    async def fails() -> None:
        await moments.effect("fails")
        raise ValueError("always")

    async def one(number: int) -> int:
        await moments.effect(f"one{number}")
        return number

    one_named = []
    for number in range(1, 5):

        async def numbered(number: int = number) -> int:
            return await one(number)

        numbered.__qualname__ = f"one{number}"
        one_named.append(numbered)

    @agent.on("double")
    async def doubled(task: Task, number: int) -> int:
        return await task.step(double, number)

    async def two(task: Task, first: int) -> int:
        """Two steps after each other, beside two others."""
        return await task.step(one_named[first]) + await task.step(one_named[first + 1])

    @agent.on("work")
    async def work(task: Task, topic: str) -> str:
        facts = await task.step(fetch, topic)
        task.progress(1, 3)
        child = await task.ask("double", number=7)
        await task.approval("publish", show=facts)
        await task.sleep(0.002)
        try:
            await task.approval("again", show=facts)
            refused = ""
        except RejectedError as error:
            refused = f"refused by {str(error).split()[0]}"
        try:
            await task.step(fails)
            failed = ""
        except StepError as error:
            failed = error.kind
        assert 0 <= task.random() < 1
        sums = await asyncio.gather(two(task, 0), two(task, 2))
        await task.checkpoint({"sums": sums})
        await task.memory.set("seen", topic)
        seen = await task.memory.get("seen")
        assert seen == topic
        return f"{facts}; child of 7 is {child}; {refused}; {failed}; {len(sums) * 2} in all; {sum(sums)}"

    return agent


async def persons(process: Process, task: str) -> None:
    """A person who approves the one thing and rejects the other, as soon as it is asked."""
    while not process.tape.dead:
        state: TaskState = await process.state(task)
        for number in sorted(state.open):
            if state.waits[number].kind == "approval":
                answer = "approve" if state.waits[number].name == "publish" else "reject"
                await process.leave(task, await process.statement(task, number, answer))  # type: ignore[arg-type]
                await until(functools.partial(_is_settled, process, task, number))
        await asyncio.sleep(0.001)


async def _is_settled(process: Process, task: str, number: int) -> bool:
    return (await process.state(task)).waits[number].settled is not None


async def one_life(world: World, moments: Moments, prepare: Callable[[Process], None]) -> TaskState | None:
    """One process's life: what the task has come to, or None if the process died."""
    process = await world.process()
    moments.process = process
    prepare(process)

    async def live() -> TaskState:
        await process.host.join([party(moments)])
        if not (await process.log.state("task/t")).revision:
            await process.ask("t", "work", topic="ravens")
        return await process.finished("t", 20)

    living = [asyncio.ensure_future(live()), asyncio.ensure_future(persons(process, "t"))]
    dying = asyncio.ensure_future(until(lambda: process.tape.dead, 20))
    await asyncio.wait([*living, dying], return_when=asyncio.FIRST_COMPLETED)
    died = process.tape.dead
    for task in [*living, dying]:
        task.cancel()
    await asyncio.wait([*living, dying])
    if died:
        await world.kill(process)
        return None
    closing = asyncio.ensure_future(process.close())
    await until(lambda: closing.done() or process.tape.dead)
    if process.tape.dead:
        closing.cancel()
        await world.kill(process)
    return living[0].result()


async def crashed_at(prepare: Callable[[Process, Moments], None]) -> tuple[TaskState, Moments, Process]:
    """A run whose first process dies as ``prepare`` arranges, and its second goes on."""
    moments = Moments()
    async with a_world() as world:
        state = await one_life(world, moments, lambda process: prepare(process, moments))
        first = world.processes[0]
        if state is None:
            moments.crash = lambda n: None
            state = await one_life(world, moments, lambda process: None)
        assert state is not None
        return state, moments, first


def check(state: TaskState, moments: Moments) -> None:
    assert state.status == "completed", state.failure
    assert msgspec.msgpack.decode(state.result or b"") == RESULT
    assert all(wait.settled is not None for wait in state.waits)
    assert len(state.waits) == 14
    assert all(moments.opened_first), "an effect was done before its opening was durable"
    twice = {name: times for name, times in moments.done.items() if times != 1}
    in_flight = {"one1", "one3"}, {"one2", "one3"}, {"one1", "one4"}, {"one2", "one4"}
    assert set(moments.done) == {"fetch", "double", "fails", "one1", "one2", "one3", "one4"}
    assert not twice or len(twice) == 1 or set(twice) in in_flight, f"done again: {twice}"
    assert all(times == 2 for times in twice.values())


async def lived() -> tuple[int, int]:
    """How many appends and effects a life without a crash has."""
    state, moments, process = await crashed_at(lambda process, moments: None)
    check(state, moments)
    assert set(moments.done.values()) == {1}
    return process.tape.appends, moments.done.total()


async def test_a_crash_at_any_append_before_it_is_placed() -> None:
    appends, _ = await lived()
    for n in range(1, appends + 1):
        state, moments, _ = await crashed_at(lambda process, _, n=n: _die_at(process, n, "before"))  # type: ignore[misc]
        check(state, moments)


async def test_a_crash_at_any_append_after_it_is_placed() -> None:
    appends, _ = await lived()
    for n in range(1, appends + 1):
        state, moments, _ = await crashed_at(lambda process, _, n=n: _die_at(process, n, "after"))  # type: ignore[misc]
        check(state, moments)


async def test_a_crash_at_any_effect() -> None:
    _, effects = await lived()
    for n in range(1, effects + 1):

        def prepare(process: Process, moments: Moments, n: int = n) -> None:
            moments.crash = lambda done: process.die() if done == n else None

        state, moments, _ = await crashed_at(prepare)
        check(state, moments)
        assert moments.done.total() > effects


def _die_at(process: Process, n: int, when: str) -> None:
    first = process.tape.appends

    def hook(appends: int) -> None:
        if appends - first == n:
            process.die()

    if when == "before":
        process.tape.before_append = hook
    else:
        process.tape.after_append = hook


# Planted bugs


async def test_an_effect_before_its_opening_is_durable_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Waits.opened

    async def hasty(self: Waits, number: int) -> WaitState:
        opening = next(one for one in self._opening if one.wait == number)
        if opening.kind != "step":
            return await opened(self, number)
        return WaitState(opening.kind, opening.name, opening.input, b"", 0, 0, [])

    monkeypatch.setattr(Waits, "opened", hasty)
    state, moments, _ = await crashed_at(lambda process, moments: None)
    with pytest.raises(AssertionError, match="before its opening"):
        check(state, moments)


async def test_an_outcome_that_is_not_recorded_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    settle = Waits.settle

    def forgetful(self: Waits, settled: Any, inbox: int = 0) -> None:
        if settled.wait != 0:
            settle(self, settled, inbox)

    monkeypatch.setattr(Waits, "settle", forgetful)
    state, moments, _ = await crashed_at(lambda process, moments: None)
    with pytest.raises(AssertionError):
        check(state, moments)


async def test_outcomes_given_in_another_order_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the recorded order, two things done at once would be taken for each other after a crash."""
    from agent_party.actors.replay import Replay

    agent, gate = Agent("worker"), asyncio.Event()

    async def slow() -> str:
        await gate.wait()
        return "slow"

    async def fast() -> str:
        return "fast"

    @agent.on("both")
    async def both(task: Task) -> list[str]:
        async def after(first: Any, then: str) -> str:
            found = await task.step(first)
            await task.approval(f"after {then}")
            return str(found)

        return list(await asyncio.gather(after(slow, "slow"), after(fast, "fast")))

    async def run() -> TaskState:
        gate.clear()
        async with a_world() as world:
            first = await world.process(agent)
            await first.ask("t", "both")
            await first.opened("t", "after fast")
            gate.set()
            await first.opened("t", "after slow")
            await world.kill(first)
            second = await world.process(agent)

            async def replayed() -> bool:
                cell = second.host.cells.get("t")
                stopped = (await second.state("t")).status == "stopped"
                return stopped or (cell is not None and not cell.replaying)

            await until(replayed)
            state = await second.state("t")
            if state.status != "stopped":
                await second.decide("t", "after slow")
                await second.decide("t", "after fast")
                state = await second.finished("t")
            return state

    state = await run()
    assert msgspec.msgpack.decode(state.result or b"") == ["slow", "fast"]

    async def at_once(self: Replay, number: int) -> bool:
        self._wanted.add(number)
        self._move()
        return True

    monkeypatch.setattr(Replay, "turn", at_once)
    state = await run()
    assert state.status == "stopped"
    assert state.failure is not None
    assert state.failure.kind == "ReplayError"
