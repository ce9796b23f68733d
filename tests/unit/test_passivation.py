"""What waits for days is not in memory, leaves no trace when it goes, and comes back for whatever arrives."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agent_party import Agent, Task
from agent_party.actors import passivation
from agent_party.actors.dj import Candidate
from agent_party.actors.packing import pack
from agent_party.actors.turns import Turns
from tests.cluster.tally import Add, Tally
from tests.unit.handlers_kit import result
from tests.unit.passivation_kit import (
    HOUR,
    agent,
    approved,
    at_rest,
    child_of,
    ended,
    grown_up,
    left_in_the_inbox,
    message,
    no_rounds,
    records,
    signalled,
    time_passes,
    waiting,
    world,
)
from tests.unit.world import DEADLINE, Clock, Process, World, until

__all__ = ["no_rounds", "world"]


@pytest.mark.parametrize(
    ("what", "arrives", "outcome"),
    [
        ("signal", signalled, "BEFORE SIGNAL"),
        ("signal", left_in_the_inbox, "BEFORE INBOX"),
        ("approval", approved, "BEFORE ADA"),
        ("child", grown_up, "BEFORE OLD"),
        ("sleep", time_passes, "BEFORE SLEPT"),
    ],
)
async def test_it_goes_without_a_trace_and_comes_back(
    world: World, what: str, arrives: Callable[[Process], Awaitable[None]], outcome: str
) -> None:
    process = await world.process(agent)
    ended.clear()
    await process.ask("t", "work", what=what)
    await waiting(process, "t")
    if what == "child":
        await waiting(process, await child_of(process, "t"))
        await at_rest(process, await child_of(process, "t"))
    before = await records(world)
    await at_rest(process, "t")
    assert ended == [what], "its handler was cancelled"
    assert await records(world) == before
    await arrives(process)
    state = await process.finished("t")
    assert result(state) == outcome
    assert state.runs == 2
    kinds = [type(event).__name__ for c in await process.commits("task/t") for event in c.events]
    assert kinds.count("Requested") == kinds.count("Completed") == 1
    assert len(process.log.index.control_rows(b"task/t")) == 1, "its grant was kept"


async def test_queries_and_updates_wake_it_and_do_not_keep_it(world: World) -> None:
    process = await world.process(agent)
    await process.ask("t", "work", what="never")
    await waiting(process, "t")
    await at_rest(process, "t")
    before = await records(world)
    assert await process.host.query("t", "total", pack({}, "")) == pack(0, "")
    assert await records(world) == before, "a query writes nothing, also where the task was passivated"
    await at_rest(process, "t")
    for n in (1, 2):
        answered = await process.host.deliver("t", message("add", {"by": n}, "update", bytes([n])))
        assert answered is not None
        assert answered.value == pack([0, 1, 3][n], "")
        await at_rest(process, "t")
    assert await process.host.query("t", "total", pack({}, "")) == pack(3, "")


async def test_what_arrives_while_it_goes_is_not_missed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the decision that a task may go and its being gone, anything may come."""
    process = await world.process(agent)
    for n, task in enumerate(["t", "u"]):  # first as a message, then left in the inbox
        await process.ask(task, "work", what="signal")
        await waiting(process, task)
        cell = process.host.cells[task]
        rest = cell.rest

        async def slow(rest: Any = rest, task: str = task, n: int = n) -> None:
            await rest()
            if n:
                process.log._listeners.clear()  # what is told by the log is not relied upon
            from agent_party.actors.events import Sent

            sent = message("go", "meanwhile")
            await (process.leave(task, Sent(sent)) if n else process.host.deliver(task, sent))

        monkeypatch.setattr(cell, "rest", slow)
        process.host.passivation.idle = 0.0
        await until(process.host.passivation.sweep)  # it may go once it stands still, a little after that is on the log
        assert result(await process.finished(task)) == "BEFORE MEANWHILE"


async def test_a_child_that_ends_while_its_parent_goes_is_not_missed(world: World) -> None:
    process = await world.process(agent)
    await process.ask("t", "work", what="child")
    await waiting(process, "t")
    kid = await child_of(process, "t")
    await waiting(process, kid)
    cell = process.host.cells["t"]
    process.host._supervisor.ended = lambda task: None  # type: ignore[method-assign]
    rest = cell.rest

    async def slow() -> None:
        await rest()
        await process.host.deliver(kid, message("grow up", "old"))
        await process.finished(kid)

    cell.rest = slow  # type: ignore[method-assign]
    process.host.passivation.idle = 0.0
    await process.host.passivation.rest(cell)
    assert result(await process.finished("t")) == "BEFORE OLD"


async def test_one_that_sleeps_again_and_again_wakes_each_time(world: World) -> None:
    """What nothing comes of is tried ever more seldom; but each time is another one."""
    restless = Agent("restless")

    @restless.on("work")
    async def work(task: Task) -> int:
        for _ in range(5):
            await task.sleep(60)
        return 5

    process = await world.process(restless)
    await process.ask("t", "work")
    for turn in range(5):

        async def sleeps(turn: int = turn) -> bool:
            state = await process.state("t")
            return any(state.waits[n].due for n in state.open) and sum(bool(w.due) for w in state.waits) == turn + 1

        await until(sleeps)
        await at_rest(process, "t")
        process.let_pass(61)
    assert result(await process.finished("t")) == 5


async def test_a_deadline_passes_out_of_memory(world: World) -> None:
    process = await world.process(agent)
    await process.ask("t", "work", what="never", within=HOUR / 2)
    await waiting(process, "t")
    await at_rest(process, "t")
    process.let_pass(HOUR)
    state = await process.finished("t")
    assert state.failure is not None
    assert state.failure.kind == "TimeoutError"


async def test_a_paused_task_goes_and_is_resumed(world: World) -> None:
    process = await world.process(agent)
    await process.ask("t", "work", what="signal")
    await waiting(process, "t")
    await process.host.cells["t"].pause("ada")
    await process.host.deliver("t", message("go", "x"))
    await at_rest(process, "t")
    await process.leave("t", await process.statement("t", -1, "resume"))
    assert result(await process.finished("t")) == "BEFORE X"


async def test_what_works_does_not_go(world: World) -> None:
    busy, done = Agent("busy"), asyncio.Event()

    @busy.on("both")
    async def both(task: Task) -> None:
        await asyncio.gather(task.step(done.wait), task.signal("go"))

    process = await world.process(busy)
    await process.ask("t", "both")
    await process.opened("t", "go")
    process.host.passivation.idle = 0.0
    assert await process.host.passivation.sweep() == 0
    done.set()
    await waiting(process, "t")
    await at_rest(process, "t")


async def test_a_task_that_was_taken_over_meanwhile_stays_where_it_is(world: World) -> None:
    one, two = await world.process(agent), await world.process(agent)
    await one.ask("t", "work", what="signal")
    await waiting(one, "t")
    await at_rest(one, "t")
    two.host.lives = lambda holder: False  # type: ignore[method-assign]
    await two.host.deliver("t", message("go", "x"))
    assert result(await two.finished("t")) == "BEFORE X"
    await one.log.refresh()
    assert await one.host.activate("t") is None


async def test_room_that_others_made_and_took_is_no_lack_of_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one looks for a task that may go, a round passivates all that it knows of, and as many others begin."""
    process = await world.process(agent)
    monkeypatch.setattr(passivation, "LIVE", 2)
    rest, looked = process.host.passivation._rest, list[int]()

    async def began(*tasks: str) -> None:
        for task in tasks:
            await process.ask(task, "work", what="never")
            await until(lambda: process.host.cells[task].stands_still)  # noqa: B023 - awaited within the turn

    async def slow(tasks: Any, wanted: int) -> int:
        looked.append(wanted)
        if len(looked) > 1:
            return await rest(tasks, wanted)
        monkeypatch.setattr(passivation, "LIVE", 4)
        await rest(tasks, 2)
        await began("c", "d")
        monkeypatch.setattr(passivation, "LIVE", 2)
        return await rest(tasks, wanted)

    await began("a", "b")
    monkeypatch.setattr(process.host.passivation, "_rest", slow)
    await began("e")
    assert (len(looked), sorted(process.host.cells)) == (2, ["d", "e"])


async def test_the_one_that_was_silent_the_longest_goes_where_there_is_no_room(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passivation, "LIVE", 3)
    process = await world.process(agent)
    for n in range(3):
        await process.ask(f"t{n}", "work", what="signal")
        await waiting(process, f"t{n}")
        await until(lambda: process.host.cells[f"t{n}"].stands_still)  # noqa: B023 - awaited within the turn
    await process.host.query("t0", "total", pack({}, ""))
    await process.ask("t3", "work", what="signal")
    assert sorted(process.host.cells) == ["t0", "t2", "t3"]


async def test_a_round_does_not_look_at_those_that_wait(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    process = await world.process(agent)
    tasks = [f"t{n}" for n in range(40)]
    for task in tasks:
        await process.ask(task, "work", what="signal")
    for task in tasks:
        await waiting(process, task)
    await at_rest(process, *tasks)
    seen: list[str] = []
    views, log = process.views, process.log
    scan, state = views.scan, log.state

    async def scanned(view: str, *args: Any, **options: Any) -> Any:
        found = await scan(view, *args, **options)
        seen.extend(key for key, _ in found)
        return found

    async def asked(stream: str) -> Any:
        seen.append(stream)
        return await state(stream)

    monkeypatch.setattr(views, "scan", scanned)
    monkeypatch.setattr(log, "state", asked)
    await process.host.reconcile()
    assert seen == []


async def test_after_a_restart_only_what_could_run_does(world: World) -> None:
    one = await world.process(agent)
    for task, what in (("t", "signal"), ("s", "sleep"), ("p", "child"), ("q", "child")):
        await one.ask(task, "work", what=what)
        await waiting(one, task)
    kids = [await child_of(one, parent) for parent in ("p", "q")]
    for kid in kids:
        await waiting(one, kid)
    await at_rest(one, "t", "s", "p", "q", *kids)
    await one.host.deliver("t", message("other", 1, mark=b"o"))
    one.host._supervisor.ended = lambda task: None  # type: ignore[method-assign]
    await one.host.deliver(kids[0], message("grow up", "old"))
    await one.finished(kids[0])
    await at_rest(one, "t")
    assert "p" not in one.host.cells
    await world.kill(one)
    two = await world.process(agent, ambient=Clock(HOUR))
    assert result(await two.finished("p")) == "BEFORE OLD"
    assert result(await two.finished("s")) == "BEFORE SLEPT"
    assert not {"t", "q", kids[1]} & two.host.cells.keys()
    await two.host.deliver("t", message("go", "x"))
    assert result(await two.finished("t")) == "BEFORE X"


async def test_what_nothing_comes_of_is_tried_ever_more_seldom(world: World) -> None:
    """An inbox with something that its task does not understand must not have it replayed every two seconds."""
    process = await world.process(agent)
    one = Candidate("t", "work", "worker", b"", 1, "waiting 3 1 ")
    when = process.host._supervisor._is_time_to_try
    assert when(one)
    assert not when(one)
    assert when(one._replace(reason="waiting 4 1 "))
    assert all(when(one._replace(reason="running")) for _ in range(3))


async def test_an_entity_goes_and_comes_back_without_a_grant(world: World) -> None:
    process = await world.process()
    for n in range(3):
        reply = await process.host.send(Tally, "one", Add(1), bytes([n]) * 16, DEADLINE)
        assert reply.state == n + 1
        process.host._entities.sweep(-1.0)
        assert not process.host._entities._live
    assert len(process.log.index.control_rows(b"tally/one")) == 1


async def test_a_host_that_drains_lets_effects_end_and_takes_no_more(world: World) -> None:
    calls: list[int] = []
    busy, begun, go_on = Agent("busy"), asyncio.Event(), asyncio.Event()

    async def effect(n: int) -> int:
        calls.append(n)
        begun.set()
        await go_on.wait()
        return n

    @busy.on("count")
    async def count(task: Task) -> int:
        return sum([await task.step(effect, n) for n in range(3)])

    one = await world.process(busy)
    await one.ask("t", "count")
    await begun.wait()
    draining = asyncio.ensure_future(one.host.drain(DEADLINE))
    await asyncio.sleep(0)
    go_on.set()
    await draining
    assert calls == [0], "what was in flight has ended, and nothing else was begun"
    assert [wait.settled is not None for wait in (await one.state("t")).waits] == [True]
    await one.close()
    two = await world.process(busy)
    assert result(await two.finished("t")) == 3
    assert calls == [0, 1, 2]


async def test_one_that_wants_much_does_not_keep_the_others_waiting() -> None:
    """The places of a host's effects are given by turns, not in the order of asking."""
    turns, order = Turns(2), list[str]()

    async def effect(whose: str) -> None:
        async with turns.turn(whose):
            order.append(whose)
            await asyncio.sleep(0)

    greedy = [asyncio.ensure_future(effect("greedy")) for _ in range(100)]
    await asyncio.sleep(0)
    greedy[50].cancel()
    modest = [asyncio.ensure_future(effect(whose)) for whose in ("a", "b", "c")]
    await asyncio.gather(*greedy, *modest, return_exceptions=True)
    assert max(order.index(whose) for whose in ("a", "b", "c")) < 8
    assert len(order) == 102
    assert turns._free == 2


async def test_a_long_replay_lets_others_have_their_turn(world: World) -> None:
    many, beats, passed = Agent("many"), 0, list[int]()

    @many.on("long")
    async def long(task: Task) -> None:
        first = beats
        for n in range(300):
            await task.step(abs, n)
        passed.append(beats - first)
        await task.signal("go")

    async def beat() -> None:
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0)

    process = await world.process(many)
    await process.ask("t", "long")
    await process.opened("t", "go")
    await at_rest(process, "t")
    beating = asyncio.ensure_future(beat())
    await process.host.deliver("t", message("go", 1))
    await process.finished("t")
    beating.cancel()
    assert len(passed) == 2
    assert passed[1] >= 300 // 50
