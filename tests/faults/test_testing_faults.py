"""What the kit makes go wrong does go wrong, and what must not follow from it is caught."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
import pytest

from agent_party import Agent, Decider, Party, StepError, Task, TaskFailedError, event, step, testing
from agent_party.actors.effects import Effects
from agent_party.actors.events import Settled
from agent_party.actors.task_state import WaitState
from agent_party.actors.waits import Waits
from agent_party.eventstore.errors import StoreBusyError
from agent_party.testing import (
    Cut,
    Faults,
    Run,
    Scenario,
    assert_effects_once,
    assert_same_outcome,
    assert_timers,
    double_crashes,
)

T = TypeVar("T")
DAY = 86_400.0


class Count(msgspec.Struct, frozen=True):
    by: int


@event("kit.faults.counted")
class Counted(msgspec.Struct, frozen=True):
    by: int


class Tally(Decider[int, Count, Counted]):
    kind = "tally"
    events = (Counted,)

    def initial(self) -> int:
        return 0

    def decide(self, command: Count, state: int) -> list[Counted]:
        return [Counted(command.by)]

    def evolve(self, state: int, event: Counted) -> int:
        return state + event.by


def agents() -> list[Agent]:
    agent = Agent("worker")

    @step(retries=2, timeout=30)
    def fetch(topic: str) -> str:
        return f"got {topic}"

    @step(retries=1, timeout=30)
    async def weigh(text: str) -> int:
        await asyncio.sleep(10)
        return len(text)

    @agent.on("double")
    async def double(task: Task, number: int) -> int:
        return 2 * await task.step(weigh, "x" * number)

    @agent.on("work")
    async def work(task: Task, topic: str) -> str:
        facts = await task.step(fetch, topic)
        doubled = await task.ask("double", number=7)
        await task.sleep(DAY)
        await task.approval("publish", show=facts)
        await task.memory.set("seen", topic)
        return f"{facts}, {doubled}"

    return [agent]


async def insist(call: Callable[[], Awaitable[T]]) -> T:
    """Call until the store takes it."""
    while True:
        with contextlib.suppress(StoreBusyError):
            return await call()
        await asyncio.sleep(1)


async def drive(party: Party) -> str:
    task = await insist(lambda: party.using(request_id="r1").ask("work", topic="ravens"))
    async for state in task.watch():
        for wait in sorted(state.open):
            if state.waits[wait].kind == "approval":
                await insist(lambda wait=wait: task.approve(wait=wait, person="ada"))  # type: ignore[misc]
    reply = await insist(lambda: party.entity(Tally, "one").send(Count(3), command_id="c1"))
    return f"{await task.result()}, {reply.state}"


SCENARIO = Scenario(agents, drive)
VALUE = "got ravens, 14, 3"


@pytest.fixture(scope="module")
def clean() -> Run:
    return SCENARIO.run(seed=1)


def cut(run: Run, kind: str, when: str, part: str) -> Cut:
    """The first cut point of that kind whose name has this part."""
    return next(cut for cut in run.cuts if (cut.kind, cut.when) == (kind, when) and part in cut.name)


def test_a_run_tells_what_happened(clean: Run) -> None:
    assert clean.value == VALUE
    assert clean.seconds >= DAY
    assert [cut.number for cut in clean.cuts] == list(range(1, len(clean.cuts) + 1))
    assert {(cut.kind, cut.when) for cut in clean.cuts} == {
        (kind, when) for kind in ("append", "effect") for when in ("before", "after")
    }
    assert [effect.name.rpartition(".")[2] for effect in clean.effects] == ["fetch", "weigh"]
    assert [task.status for task in clean.history.tasks.values()] == ["completed"] * 2
    assert clean.history.memories == {"worker": {"seen": "ravens"}}
    assert clean.history.entities == {"tally/one": (Counted(3),)}
    assert clean.died == ()


def test_the_same_seed_is_the_same_run_and_another_is_not(clean: Run) -> None:
    again, other = SCENARIO.run(seed=1), SCENARIO.run(seed=2)
    assert again == clean
    assert other.export != clean.export
    assert other.value == clean.value


def test_a_crash_repeats_byte_for_byte(clean: Run) -> None:
    plan = Faults().crash(clean.cuts[len(clean.cuts) // 2]).crash(9, life=2)
    assert SCENARIO.run(plan) == SCENARIO.run(plan)


def test_all_cut_points_and_some_twice() -> None:
    async def doubled(party: Party) -> int:
        task = await party.using(request_id="r1").ask("double", number=4)
        return int(await task.result())

    clean = Scenario(agents, doubled).check(seed=1, doubles=10)
    assert clean.value == 8
    assert len(clean.cuts) >= 18


@pytest.mark.parametrize(("kind", "when"), [("append", "before"), ("append", "after"), ("effect", "before")])
def test_a_process_dies_where_it_is_told_to(clean: Run, kind: str, when: str) -> None:
    place = cut(clean, kind, when, "weigh" if kind == "effect" else "task/")
    crashed = SCENARIO.run(Faults().crash(place))
    assert crashed.died == (place,)
    assert crashed.value == VALUE
    assert [effect.life for effect in crashed.effects if "weigh" in effect.name] == [2]
    assert_same_outcome(clean, crashed)


def test_an_effect_in_flight_is_done_again_and_no_other(clean: Run) -> None:
    crashed = SCENARIO.run(Faults().crash(cut(clean, "effect", "after", "weigh")))
    assert [(e.name.rpartition(".")[2], e.life) for e in crashed.effects] == [("fetch", 1), ("weigh", 1), ("weigh", 2)]
    assert_effects_once(crashed)


def test_two_processes_die(clean: Run) -> None:
    crashed = SCENARIO.run(Faults().crash(20).crash(5, life=2))
    assert [cut.life for cut in crashed.died] == [1, 2]
    assert_same_outcome(clean, crashed)
    assert double_crashes(clean.cuts, 3, seed=4) == double_crashes(clean.cuts, 3, seed=4)


def test_an_append_that_fails(clean: Run) -> None:
    for place in clean.cuts:
        if place.kind == "append" and place.when == "before" and "@0" not in place.name and "task/" in place.name:
            failed = SCENARIO.run(Faults().refuse(place))
            assert_same_outcome(clean, failed)
            assert_effects_once(failed)


def test_an_append_whose_answer_is_lost(clean: Run) -> None:
    for place in clean.cuts:
        if place.kind == "append" and place.when == "after":
            lost = SCENARIO.run(Faults().lose_answer(place))
            assert_same_outcome(clean, lost)
            assert_effects_once(lost)


def test_a_fault_of_an_append_is_not_for_an_effect(clean: Run) -> None:
    with pytest.raises(ValueError, match="is no append"):
        Faults().refuse(cut(clean, "effect", "before", "weigh"))


def test_a_step_that_raises_and_one_that_times_out(clean: Run) -> None:
    run = SCENARIO.run(Faults().fail_step("fetch", call=1).time_out_step("weigh").time_out_step("fetch", call=2))
    assert [(e.name.rpartition(".")[2], e.attempt) for e in run.effects] == [
        ("fetch", 1), ("fetch", 2), ("fetch", 3), ("weigh", 1), ("weigh", 2),
    ]  # fmt: skip
    assert run.seconds > clean.seconds + 60
    assert_same_outcome(clean, run)
    assert_effects_once(run)


def test_a_step_that_fails_for_good_fails_the_task(clean: Run) -> None:
    plan = Faults().fail_step("weigh", call=1, error=OSError("no")).fail_step("weigh", call=2, error=OSError("no"))
    with pytest.raises(TaskFailedError, match="no") as raised:
        SCENARIO.run(plan)
    assert any("weigh" in note for note in raised.value.__notes__)


def test_a_slow_store(clean: Run) -> None:
    slow = SCENARIO.run(Faults().slow_store(2.0))
    assert slow.seconds > clean.seconds + 2 * len(slow.cuts) / 4
    assert_same_outcome(clean, slow)
    assert_effects_once(slow)


def test_messages_that_come_twice(clean: Run) -> None:
    twice = SCENARIO.run(Faults().deliver_twice())
    assert_same_outcome(clean, twice)
    assert_effects_once(twice)


@testing.virtual(seed=1)
async def test_one_party_is_killed_and_another_goes_on() -> None:
    async with testing.world() as world:
        async with world.party(agents()) as first:
            task = await first.using(request_id="r1").ask("work", topic="ravens")
            await asyncio.sleep(3_600)
            first.kill()
        async with world.party(agents()) as second:
            async for state in second.task(task.id).watch():
                if any(state.waits[wait].kind == "approval" for wait in state.open):
                    break
            assert asyncio.get_running_loop().time() > DAY
            assert [effect.life for effect in world.ledger.effects] == [1, 1]


@testing.virtual(seed=1)
async def test_two_parties_beside_each_other() -> None:
    helper = Agent("helper")

    @helper.on("help")
    async def helped(task: Task) -> str:
        return "helped"

    async with testing.world() as world, world.party(agents()) as one, world.party([helper]):
        assert await (await one.ask("help")).result() == "helped"


# Planted bugs


def test_an_effect_before_its_opening_is_recorded_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Waits.opened

    async def hasty(self: Waits, number: int) -> WaitState:
        opening = next(one for one in self._opening if one.wait == number)
        if opening.kind != "step":
            return await opened(self, number)
        return WaitState(opening.kind, opening.name, opening.input, b"", 0, 0, [])

    monkeypatch.setattr(Waits, "opened", hasty)
    with pytest.raises(AssertionError, match="before its opening was recorded"):
        assert_effects_once(SCENARIO.run())


def test_an_outcome_that_is_lost_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    settle = Waits.settle

    def forgetful(self: Waits, settled: Settled, inbox: int = 0) -> None:
        if settled.wait != 0:
            settle(self, settled, inbox)

    monkeypatch.setattr(Waits, "settle", forgetful)
    with pytest.raises(AssertionError, match="its outcome was lost"):
        assert_effects_once(SCENARIO.run())


def test_an_effect_that_is_done_again_after_its_outcome_is_caught(clean: Run) -> None:
    first = clean.effects[0]
    again = first._replace(life=2, records=first.records + 1)
    with pytest.raises(AssertionError, match="although its outcome was recorded"):
        assert_effects_once(clean._replace(effects=(*clean.effects, again)))


def test_a_timer_that_fires_early_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    agent, sleep = Agent("sleeper"), asyncio.sleep

    @agent.on("nap")
    async def nap(task: Task) -> None:
        await task.sleep(5)

    async def hasty(seconds: float, *rest: Any) -> Any:
        return await sleep(seconds / 2 if seconds > 4 else seconds, *rest)

    async def ask(party: Party) -> Any:
        return await (await party.using(request_id="r").ask("nap")).result()

    scenario = Scenario([agent], ask)
    assert_timers(scenario.run())
    monkeypatch.setattr(asyncio, "sleep", hasty)
    with pytest.raises(AssertionError, match=r"was over 2\.\d+ s before it was due"):
        assert_timers(scenario.run())


def test_an_effect_that_is_done_twice_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = Effects._attempt

    async def twice(self: Effects, *args: Any) -> Any:
        await attempt(self, *args)
        return await attempt(self, *args)

    monkeypatch.setattr(Effects, "_attempt", twice)
    with pytest.raises(AssertionError, match="ran twice in one process"):
        assert_effects_once(SCENARIO.run())


def test_a_request_without_an_id_is_caught() -> None:
    async def careless(party: Party) -> None:
        task = await party.ask("double", number=2)
        await task.result()

    with pytest.raises(AssertionError, match="is each request given an id"):
        Scenario(agents, careless).check()


def test_another_outcome_is_shown(clean: Run) -> None:
    crashed = clean._replace(value="other")
    with pytest.raises(AssertionError, match="the scenario's value: 'other' instead of 'got ravens, 14, 3'"):
        assert_same_outcome(clean, crashed)


def test_a_step_error_reaches_the_handler_as_ever() -> None:
    agent = Agent("a")

    async def weigh() -> int:
        return 1

    @agent.on("x")
    async def x(task: Task) -> str:
        try:
            await task.step(weigh)
        except StepError as error:
            return f"{error.kind}: {error}"
        return ""

    async def ask(party: Party) -> str:
        return str(await (await party.using(request_id="r").ask("x")).result())

    assert "weigh was made to fail" in Scenario([agent], ask).run(Faults().fail_step("weigh")).value
