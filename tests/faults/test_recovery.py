"""A task whose process dies at every append and at every effect, and which goes on in the next one.

Whatever the moment: the outcome is the same, each effect is done once, but for those that were in flight at the crash,
and none is done before its opening is on the log.
"""

import asyncio
from typing import Any

import pytest

from agent_party import Agent, Party, RejectedError, StepError, Task
from agent_party.actors.replay import Replay
from agent_party.testing import (
    Faults,
    HangError,
    Run,
    Scenario,
    assert_effects_once,
    assert_same_outcome,
    assert_timers,
)
from agent_party.testing.faults import Kind, When

RESULT = "got ravens; child of 7 is 14; refused by ada; ValueError; 4 in all; 10"


def agents() -> list[Agent]:
    agent = Agent("worker")

    async def fetch(topic: str) -> str:
        return f"got {topic}"

    def double(number: int) -> int:
        return 2 * number

    async def fails() -> None:
        raise ValueError("always")

    async def one(number: int) -> int:
        await asyncio.sleep(number % 2)
        return number

    @agent.on("double")
    async def doubled(task: Task, number: int) -> int:
        return await task.step(double, number)

    async def two(task: Task, first: int) -> int:
        """Two steps after each other, beside two others."""
        return await task.step(one, first) + await task.step(one, first + 1)

    @agent.on("work")
    async def work(task: Task, topic: str) -> str:
        facts = await task.step(fetch, topic)
        task.progress(1, 3)
        child = await task.ask("double", number=7)
        await task.approval("publish", show=facts)
        await task.sleep(86_400)
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
        sums = await asyncio.gather(two(task, 1), two(task, 3))
        await task.checkpoint({"sums": sums})
        await task.memory.set("seen", topic)
        seen = await task.memory.get("seen")
        assert seen == topic
        return f"{facts}; child of 7 is {child}; {refused}; {failed}; {len(sums) * 2} in all; {sum(sums)}"

    return [agent]


async def persons(party: Party) -> Any:
    """Somebody asks, approves the one thing, and rejects the other, as soon as it is shown."""
    task = await party.using(request_id="r1").ask("work", topic="ravens")
    async for state in task.watch():
        for number in sorted(state.open):
            wait = state.waits[number]
            if wait.kind == "approval":
                decide = task.approve if wait.name == "publish" else task.reject
                await decide(wait=number, person="ada")
    return await task.result()


SCENARIO = Scenario(agents, persons)


@pytest.fixture(scope="module")
def clean() -> Run:
    run = SCENARIO.run()
    assert run.value == RESULT
    assert len(run.effects) == 7
    check(run, run)
    return run


def check(clean: Run, run: Run) -> None:
    assert_same_outcome(clean, run)
    assert_effects_once(run)
    assert_timers(run)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", ["append", "effect"])
def test_a_crash_at_any_moment(clean: Run, kind: Kind, when: When) -> None:
    cuts = [cut for cut in clean.cuts if (cut.kind, cut.when) == (kind, when)]
    assert len(cuts) >= 7
    for cut in cuts:
        crashed = SCENARIO.run(Faults().crash(cut))
        assert crashed.died == (cut,)
        check(clean, crashed)
        again = len(crashed.effects) - len(clean.effects)
        # Two things are done at once, so that two may be in flight; before an effect there may still be the other.
        assert again in ({1, 2} if (kind, when) == ("effect", "after") else {0, 1, 2})


def test_two_crashes_at_random_moments(clean: Run) -> None:
    for first, second in ((7, 3), (20, 12), (31, 31), (40, 8), (55, 14)):
        crashed = SCENARIO.run(Faults().crash(first).crash(second, life=2))
        check(clean, crashed)


def test_outcomes_given_in_another_order_are_caught(monkeypatch: pytest.MonkeyPatch, clean: Run) -> None:
    """Without the recorded order, two things done at once would be taken for each other after a crash."""
    agent = Agent("worker")

    async def slow() -> str:
        await asyncio.sleep(10)
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

    async def decide(party: Party) -> Any:
        task = await party.using(request_id="r1").ask("both")
        async for state in task.watch():
            if sum(wait.kind == "approval" for wait in state.waits) == 2:
                for number in sorted(state.open):
                    await task.approve(wait=number, person="ada")
        return await task.result()

    scenario = Scenario([agent], decide, virtual_limit=86_400)
    clean = scenario.run()
    assert clean.value == ["slow", "fast"]
    first_approval = next(cut for cut in clean.cuts if cut.name.startswith("inbox/"))
    crash = Faults().crash(first_approval)
    assert_same_outcome(clean, scenario.run(crash))

    async def at_once(self: Replay, number: int) -> bool:
        self._wanted.add(number)
        self._move()
        return True

    monkeypatch.setattr(Replay, "turn", at_once)
    with pytest.raises((HangError, AssertionError)):  # the task stops with a `ReplayError`, and waits for other code
        assert_same_outcome(clean, scenario.run(crash))
