"""Conversations that are cut short, and what they may cost."""

import asyncio
import itertools
from typing import Any, Self

import pytest

from agent_party import Task
from agent_party.actors.conversation import converse
from agent_party.actors.models import (
    Cost,
    Estimate,
    ModelRefusedError,
    ModelRequest,
    Prices,
    ScriptedModel,
    Usage,
    at_once,
    calling,
)
from tests.unit.handlers_kit import does, no_pauses, result, run, world
from tests.unit.world import Process, World, until

__all__ = ["no_pauses", "world"]


def add(a: int) -> int:
    return a


# Crashes


class Crashes:
    """A conversation of eight waits whose effects are counted."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def script(self, request: ModelRequest) -> Any:
        said = sum(message.role == "assistant" for message in request.messages)
        self.done.append(f"model {said}")
        return [at_once(calling("one", n=1), calling("two", n=2)), calling("nothing"), calling("one", n=3), "end"][said]

    async def handler(self, task: Task) -> str:
        def one(n: int) -> int:
            self.done.append(f"one {n}")
            return n

        async def two(n: int) -> int:
            self.done.append(f"two {n}")
            return n

        model = ScriptedModel(self.script)
        answer = await converse(task, model, "main", "go", tools=[one, two])
        await task.approval("publish")
        return f"{answer.text} after {len(answer.messages)}"


def dies_at(process: Process, last: int, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Have a process die right after one of its next appends, whose record has reached the tape; when it has."""
    append, appends, dead = process.tape.append, itertools.count(1), asyncio.Event()

    async def appending(*given: Any) -> Any:
        attempt = await append(*given)
        if next(appends) == last:
            process.die()
            dead.set()
            await asyncio.get_running_loop().create_future()
        return attempt

    monkeypatch.setattr(process.tape, "append", appending)
    return dead


async def test_a_crash_anywhere_calls_nothing_again_that_is_recorded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Crashes()
    process = await world.process(does(plain.handler))
    await process.ask("plain", "handler")
    await process.decide("plain", "publish")
    expected = result(await process.finished("plain"))
    assert (expected, len(plain.done)) == ("end after 9", 7)
    await world.kill(process)
    for cut in range(2, 9):
        crashing, task = Crashes(), f"cut-{cut}"
        first = await world.process(does(crashing.handler))
        dead = dies_at(first, cut, monkeypatch)
        asking = asyncio.ensure_future(first.ask(task, "handler"))
        await asyncio.wait_for(dead.wait(), 60)
        asking.cancel()
        await world.kill(first)
        second = await world.process(does(crashing.handler))
        await second.ask(task, "handler")
        await second.decide(task, "publish")
        state = await second.finished(task)
        assert result(state) == expected
        assert set(crashing.done) == set(plain.done)
        twice = [name for name in set(crashing.done) if crashing.done.count(name) > 1]
        assert len(twice) <= 2, (cut, twice)  # those in flight: two where the tools ran at once
        await world.kill(second)


async def test_a_whole_conversation_is_replayed_from_the_log(world: World) -> None:
    crashing = Crashes()
    first = await world.process(does(crashing.handler))
    await first.ask("t", "handler")
    await first.opened("t", "publish")
    done = list(crashing.done)
    await world.kill(first)
    second = await world.process(does(crashing.handler))
    await second.decide("t", "publish")
    assert result(await second.finished("t")) == "end after 9"
    assert crashing.done == done


async def test_another_prompt_is_caught_on_replay(world: World) -> None:
    """A planted bug: a handler whose request is not the same each time."""
    said = itertools.chain(["first"], itertools.repeat("second"))

    async def handler(task: Task) -> None:
        await converse(task, ScriptedModel(["x"]), "main", next(said))
        await task.approval("publish")

    first = await world.process(does(handler))
    await first.ask("t", "handler")
    await first.opened("t", "publish")
    await world.kill(first)
    second = await world.process(does(handler))
    await second.decide("t", "publish")

    async def stopped() -> bool:
        return (await second.state("t")).status == "stopped"

    await until(stopped)
    state = await second.state("t")
    assert state.failure is not None
    assert "model main" in state.failure.message
    assert "another input" in state.failure.message


# Budgets


class Ledger:
    """Stands in for a task that keeps a budget."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.reserved: list[Estimate] = []
        self.settled: list[tuple[Usage, Cost | None]] = []
        self.open = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def budget_for_call(self, estimate: Estimate) -> "Ledger":
        self.reserved.append(estimate)
        return self

    async def __aenter__(self) -> Self:
        self.open += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        self.open -= 1

    def settle(self, usage: Usage, cost: Cost | None) -> None:
        self.settled.append((usage, cost))


async def test_budgets_reserve_the_most_and_settle_what_was_used(world: World) -> None:
    ledgers: list[Ledger] = []
    model = ScriptedModel([calling("add", a=1), ModelRefusedError("no")], prices=Prices.of(10, 10))

    async def handler(task: Task) -> None:
        ledgers.append(Ledger(task))
        await converse(ledgers[0], model, "main", "go", tools=[add])  # type: ignore[arg-type]

    await run(world, handler)
    (ledger,) = ledgers
    assert (len(ledger.reserved), len(ledger.settled), ledger.open) == (2, 1, 0)
    most, (usage, cost) = ledger.reserved[0], ledger.settled[0]
    assert usage.input_tokens <= most.usage.input_tokens
    assert usage.output_tokens <= most.usage.output_tokens
    assert cost is not None
    assert most.cost is not None
    assert cost.amount < most.cost.amount
