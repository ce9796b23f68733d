"""What a handler can await, and what becomes of its task."""

import asyncio
import functools
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from agent_party import Agent, StepError, Task, TaskCancelledError, TaskFailedError, current_step, step
from agent_party.actors import cell, effects, packing, replay
from agent_party.actors.errors import ReplayError, UnknownCapabilityError
from agent_party.actors.task import child_id
from agent_party.actors.task_state import TaskState
from agent_party.eventstore.ambient import System
from agent_party.eventstore.artifacts import Artifact, fetch
from agent_party.eventstore.errors import IdReusedError, PayloadError
from tests.unit.world import Process, World, a_world, until

Handler = Callable[[Task], Any]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world() as world:
        yield world


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effects, "BACKOFF", (0.001,))
    monkeypatch.setattr(cell, "STOPPING", 0.05)
    monkeypatch.setattr(replay, "PATIENCE", 2.0)


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


# Steps


async def test_steps_run_here_or_in_a_thread(world: World) -> None:
    async def here(n: int) -> int:
        return n + 1

    def there(n: int, *, by: int) -> tuple[int, bool]:
        return n + by, threading.current_thread() is not threading.main_thread()

    async def handler(task: Task) -> Any:
        n = await task.step(here, 1)
        m, elsewhere = await task.step(there, n, by=5)
        assert elsewhere
        return [n, m, await task.step(len, "four"), await task.step(functools.partial(here, 8))]

    _, state = await run(world, handler)
    assert result(state) == [2, 7, 4, 9]
    assert [wait.name.split(".")[-1] for wait in state.waits] == ["here", "there", "len", "here"]


async def test_a_step_is_tried_again_with_the_same_key(world: World) -> None:
    seen = []

    @step(retries=3)
    async def flaky() -> int:
        seen.append(current_step())
        if len(seen) < 3:
            raise OSError("not yet")
        return len(seen)

    async def handler(task: Task) -> int:
        found = await task.step(flaky)
        with pytest.raises(LookupError):
            current_step()
        return found

    _, state = await run(world, handler)
    assert result(state) == 3
    assert [one.attempt for one in seen] == [1, 2, 3]
    assert len({one.idempotency_key for one in seen}) == 1
    assert state.waits[0].settled is not None
    assert state.waits[0].settled.attempts == 3


async def test_a_step_that_fails_for_good(world: World) -> None:
    tried = []

    @step(retries=1)
    def fails() -> None:
        tried.append(1)
        raise OSError("no disk \ud800")

    async def handler(task: Task) -> str:
        try:
            await task.step(fails)
        except StepError as error:
            return f"{error.kind}: {error.message}"
        return ""

    _, state = await run(world, handler)
    assert result(state) == "OSError: no disk ?"
    assert len(tried) == 2


async def test_a_step_that_fails_and_is_not_caught_fails_the_task(world: World) -> None:
    def fails() -> None:
        raise ValueError("bad")

    async def handler(task: Task) -> None:
        await task.step(fails)

    _, state = await run(world, handler)
    assert failure(state)[0] == "StepError"
    assert "ValueError: bad" in failure(state)[1]


@pytest.mark.parametrize("threaded", [True, False])
async def test_a_step_that_takes_too_long_or_never_returns(world: World, threaded: bool) -> None:
    ends = threading.Event()

    @step(timeout=0.02)
    async def never() -> None:
        await asyncio.Event().wait()

    @step(timeout=0.02)
    def never_in_a_thread() -> None:
        ends.wait(30)

    async def handler(task: Task) -> str:
        try:
            await task.step(never_in_a_thread if threaded else never)
        except StepError as error:
            return error.kind
        return ""

    _, state = await run(world, handler)
    assert result(state) == "TimeoutError"
    ends.set()


async def test_what_a_step_raises_is_never_more_than_its_failure(world: World) -> None:
    async def cancels() -> None:
        raise asyncio.CancelledError

    def exits() -> None:
        raise SystemExit(3)

    async def exits_here() -> None:
        raise SystemExit(3)

    def stops() -> None:
        raise StopIteration

    async def handler(task: Task) -> list[str]:
        kinds = []
        for one in (cancels, exits, exits_here, stops):
            try:
                await task.step(one)
            except StepError as error:
                kinds.append(error.kind)
        return kinds

    _, state = await run(world, handler)
    assert result(state) == ["StepExitError"] * 4


@dataclass
class Point:
    x: int
    tags: set[str]


async def test_results_come_in_their_declared_types(world: World) -> None:
    def where() -> Point:
        return Point(1, {"a"})

    def untyped():  # type: ignore[no-untyped-def]  # noqa: ANN202
        return Point(2, {"b"})

    def wrong() -> int:
        return "text"  # type: ignore[return-value]

    async def handler(task: Task) -> Any:
        point = await task.step(where)
        assert isinstance(point, Point)
        return [point, await task.step(untyped), await task.step(wrong)]

    _, state = await run(world, handler)
    assert result(state) == [{"x": 1, "tags": ["a"]}, {"x": 2, "tags": ["b"]}, "text"]


async def test_an_input_of_sets_is_the_same_in_every_process(world: World) -> None:
    assert packing.pack_input(({"b", "a", "c"}, {"k": 1, "j": 2}), "x") == packing.pack_input(
        ({"c", "b", "a"}, {"j": 2, "k": 1}), "x"
    )
    assert packing.pack_input({1: "mixed", "a": 2}, "x") == packing.pack({1: "mixed", "a": 2}, "x")


# What cannot be stored


class Odd:
    pass


LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.mark.parametrize("value", [Odd(), 1 << 70, "\ud800", LOOP, bytes(packing.MAX_VALUE + 1)], ids=range(5))
async def test_what_cannot_be_stored(world: World, value: Any) -> None:
    def give() -> Any:
        return value

    async def as_input(task: Task) -> str:
        try:
            await task.step(lambda value: None, value)
        except PayloadError as error:
            return str(error)
        return ""

    async def as_step_result(task: Task) -> str:
        try:
            await task.step(give)
        except StepError as error:
            return error.kind
        return ""

    async def as_result(task: Task) -> Any:
        return value

    process = await world.process(does(as_input, as_step_result, as_result))
    for name in ("as_input", "as_step_result", "as_result"):
        await process.ask(name.replace("_", "-"), name)
    assert "the input of" in result(await process.finished("as-input"))
    assert result(await process.finished("as-step-result")) == "PayloadError"
    kind, message = failure(await process.finished("as-result"))
    assert (kind, "the result of as_result" in message) == ("PayloadError", True)


async def test_a_failure_that_cannot_say_what_it_is(world: World) -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    async def handler(task: Task) -> None:
        raise MuteError

    assert failure((await run(world, handler))[1]) == ("MuteError", "")


# Handlers


async def test_a_handler_that_raises(world: World) -> None:
    async def handler(task: Task) -> None:
        raise KeyError("gone")

    process, state = await run(world, handler)
    assert failure(state) == ("KeyError", "'gone'")
    await until(lambda: not process.host.cells)


@pytest.mark.parametrize("error", [SystemExit(2), asyncio.CancelledError()])
async def test_a_handler_that_tries_to_end_more_than_itself(world: World, error: BaseException) -> None:
    async def handler(task: Task) -> None:
        raise error

    assert failure((await run(world, handler))[1])[0] in ("SystemExit", "StepExitError")


async def test_errors_of_the_framework_raised_by_a_handler_fail_its_task(world: World) -> None:
    """They say nothing about this process, so the task is not tried for ever."""

    async def handler(task: Task) -> None:
        await task.ask(lambda task: None)  # type: ignore[arg-type, return-value]

    assert failure((await run(world, handler))[1])[0] == UnknownCapabilityError.__name__


async def test_an_input_that_does_not_fit(world: World) -> None:
    async def handler(task: Task, n: int, when: str = "now") -> None: ...

    process = await world.process(does(handler))
    await process.ask("a", "handler", n="text")
    await process.ask("b", "handler", n=1, other=2)
    await process.ask("c", "handler")
    assert "Expected `int`" in failure(await process.finished("a"))[1]
    assert "other" in failure(await process.finished("b"))[1]
    assert "missing" in failure(await process.finished("c"))[1]


async def test_a_task_has_until_its_deadline(world: World) -> None:
    async def handler(task: Task) -> None:
        await task.approval("never")

    process, state = await run(world, handler, within=0.05)
    assert failure(state) == ("TimeoutError", "it did not finish within 0.05 seconds")
    await until(lambda: not process.host.cells)


async def test_a_deadline_counts_while_the_task_waits_for_its_turn(world: World) -> None:
    async def handler(task: Task, wait: bool) -> None:
        if wait:
            await asyncio.Event().wait()

    process = await world.process(does(handler, concurrency=1))
    await process.ask("a", "handler", wait=True)
    await process.ask("b", "handler", wait=False, within=0.02)
    assert failure(await process.finished("b"))[0] == "TimeoutError"
    await process.host.cancel_here("a", "ada", "")


async def test_a_timeout_of_the_handlers_own_is_not_the_deadline(world: World) -> None:
    async def handler(task: Task) -> None:
        raise TimeoutError("mine")

    assert failure((await run(world, handler, within=60))[1]) == ("TimeoutError", "mine")


async def test_what_is_now_is_recorded(world: World) -> None:
    runs: list[tuple[int, float, str]] = []

    async def handler(task: Task) -> None:
        runs.append((task.now(), task.random(), task.uuid()))
        await task.approval("go on")

    process = await world.process(does(handler))
    await process.ask("t", "handler")
    await process.opened("t", "go on")
    await world.kill(process)
    process = await world.process(does(handler))
    await process.decide("t", "go on")
    state = await process.finished("t")
    assert len(runs) == 2
    assert runs[0] == runs[1]
    assert abs(runs[0][0] - time.time() * 1_000_000) < 60_000_000
    assert 0 <= runs[0][1] < 1
    assert state.runs == 2


async def test_progress_and_checkpoint(world: World) -> None:
    async def handler(task: Task) -> None:
        for n in range(3):
            task.progress(n, 3, "counting")
            await task.step(len, "x")
            await task.checkpoint({"n": n})

    _, state = await run(world, handler)
    assert state.progress is not None
    assert (state.progress.done, state.progress.total, state.progress.note) == (2, 3, "counting")
    assert msgspec.msgpack.decode(state.checkpoint or b"") == {"n": 2}


async def test_memory_outlives_the_task(world: World) -> None:
    async def remembers(task: Task) -> Any:
        before = await task.memory.get("key", default="none")
        await task.memory.set("key", {"n": 1})
        return before

    process, state = await run(world, remembers)
    assert result(state) == "none"
    await process.ask("again", "remembers")
    assert result(await process.finished("again")) == {"n": 1}
    await world.kill(process)
    process = await world.process(does(remembers))
    await process.ask("later", "remembers")
    assert result(await process.finished("later")) == {"n": 1}


async def test_an_artifact(world: World) -> None:
    async def handler(task: Task) -> Artifact:
        kept = await task.artifact("report.txt", "text" * 50_000)
        assert await task.open(kept) == b"text" * 50_000
        return kept

    process, state = await run(world, handler)
    artifact = msgspec.msgpack.decode(state.result or b"", type=Artifact)
    assert (artifact.name, artifact.size) == ("report.txt", 200_000)
    assert await fetch(process.log, artifact) == b"text" * 50_000
    assert state.waits[0].settled is not None
    assert state.waits[0].settled.attachments == [artifact.blob]


# Sleeping, and clocks


class Clock(System):
    """A clock that can be set."""

    def __init__(self) -> None:
        self.ahead = 0

    def now(self) -> int:
        return super().now() + self.ahead * 1_000_000


async def test_a_sleep_counts_on_while_nothing_runs(world: World) -> None:
    async def handler(task: Task) -> None:
        await task.sleep(3600)

    process = await world.process(does(handler))
    await process.ask("t", "handler")
    await process.opened("t", "sleep")
    assert (await process.state("t")).status == "waiting"
    await world.kill(process)
    clock = Clock()
    clock.ahead = 3601
    process = await world.process(does(handler), ambient=clock)
    assert (await process.finished("t")).status == "completed"


async def test_a_clock_that_jumps_back_makes_nothing_longer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handler(task: Task) -> None:
        await task.sleep(0.05)
        await task.approval("never")

    process = await world.process(does(handler))
    await process.ask("t", "handler", within=0.3)
    await process.opened("t", "sleep")
    await world.kill(process)
    clock = Clock()
    clock.ahead = -10_000
    process = await world.process(does(handler), ambient=clock)
    assert failure(await process.finished("t", 5))[0] == "TimeoutError"


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
async def test_no_such_sleep(world: World, seconds: float) -> None:
    async def handler(task: Task) -> None:
        await task.sleep(seconds)

    assert failure((await run(world, handler))[1])[0] == "ValueError"


# Children


async def test_children(world: World) -> None:
    async def double(task: Task, n: int) -> int:
        return 2 * n

    async def fails(task: Task) -> None:
        raise ValueError("no")

    async def parent(task: Task) -> Any:
        doubled = await asyncio.gather(*(task.ask("double", n=n) for n in range(5)))
        try:
            await task.ask(fails)
        except TaskFailedError as error:
            return [*doubled, str(error)]

    process, state = await run(world, parent, double, fails)
    assert result(state) == [0, 2, 4, 6, 8, "no"]
    rows = await process.registry.tasks()
    assert sorted(row.parent for row in rows) == ["", "t", "t", "t", "t", "t", "t"]
    child = next(row.id for row in rows if row.capability == "fails")
    (requested, *_) = await process.commits(f"task/{child}")
    assert requested.cause is not None
    (opener,) = [c for c in await process.commits("task/t") if c.hash == requested.cause.commit]
    assert opener.revision == requested.cause.revision
    assert "fails" in [opened.name for opened in opener.events[requested.cause.event].opened]


async def test_a_child_that_is_cancelled(world: World) -> None:
    async def child(task: Task) -> None:
        await task.approval("never")

    async def parent(task: Task) -> str:
        try:
            await task.ask("child")
        except TaskCancelledError as error:
            return str(error)
        return ""

    process = await world.process(does(parent, child))
    await process.ask("t", "parent")
    await process.opened("t", "child")
    name = child_id("t", 0)
    await process.opened(name, "never")
    await process.host.cancel_here(name, "ada", "enough")
    assert "was cancelled by ada" in result(await process.finished("t"))


async def test_cancel_reaches_the_children_and_theirs(world: World) -> None:
    async def leaf(task: Task) -> None:
        await task.approval("never")

    async def middle(task: Task) -> None:
        await task.ask("leaf")

    async def top(task: Task) -> None:
        await asyncio.gather(task.ask("middle"), task.ask("middle"))

    process = await world.process(does(top, middle, leaf))
    await process.ask("t", "top")

    async def all_open() -> bool:
        rows = await process.registry.tasks()
        return sum("approval" in " ".join(row.open) for row in rows) == 2

    await until(all_open)
    await process.host.cancel_here("t", "ada", "enough")

    async def all_cancelled() -> bool:
        return [row.status for row in await process.registry.tasks()] == ["cancelled"] * 5

    await until(all_cancelled)
    assert not process.host.cells


@pytest.mark.parametrize("how", ["returns", "raises"])
async def test_children_do_not_outlive_their_parent(world: World, how: str) -> None:
    async def child(task: Task) -> None:
        await task.approval("never")

    async def parent(task: Task) -> None:
        background = asyncio.ensure_future(task.ask("child"))
        await task.approval("end")
        background.cancel()
        if how == "raises":
            raise ValueError

    process = await world.process(does(parent, child))
    await process.ask("t", "parent")
    await process.opened("t", "child")
    await process.decide("t", "end")
    assert (await process.finished("t")).status == ("completed" if how == "returns" else "failed")

    async def gone() -> bool:
        return {row.status for row in await process.registry.tasks() if row.parent} == {"cancelled"}

    await until(gone)


# Ending


async def test_cancelling_stops_the_handler(world: World) -> None:
    ended = []

    async def handler(task: Task) -> None:
        try:
            await task.approval("never")
        finally:
            try:
                await task.step(len, "x")
            except BaseException as error:
                ended.append(type(error).__name__)

    process = await world.process(does(handler))
    await process.ask("t", "handler")
    await process.opened("t", "never")
    await process.host.cancel_here("t", "ada", "enough")
    state = await process.finished("t")
    assert state.cancelled is not None
    assert (state.status, state.cancelled.by, state.cancelled.reason) == ("cancelled", "ada", "enough")
    assert ended == ["SettledError"]
    await process.host.cancel_here("t", "ada", "again")
    assert not process.host.cells


async def test_a_handler_that_does_not_let_itself_be_cancelled(world: World) -> None:
    release = asyncio.Event()

    async def handler(task: Task) -> None:
        for _ in range(3):
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    process = await world.process(does(handler))
    await process.ask("t", "handler")
    await until(lambda: process.host.cells["t"]._run is not None)
    await process.host.cancel_here("t", "ada", "")
    assert (await process.finished("t")).status == "cancelled"
    commits = len(await process.commits("task/t"))
    release.set()
    await asyncio.sleep(0.01)
    assert len(await process.commits("task/t")) == commits


async def test_the_end_is_the_end_whoever_is_first(world: World) -> None:
    async def handler(task: Task) -> str:
        return "done"

    process = await world.process(does(handler))
    for n in range(30):
        await process.ask(f"t{n}", "handler")
        await asyncio.gather(*(process.host.cancel_here(f"t{n}", "ada", "") for _ in range(2)))
        await process.finished(f"t{n}")
        kinds = [type(event).__name__ for c in await process.commits(f"task/t{n}") for event in c.events]
        assert len([kind for kind in kinds if kind in ("Completed", "Cancelled", "Failed")]) == 1, kinds
        assert kinds[-1] in ("Completed", "Cancelled")


async def test_the_same_task_is_asked_for_once(world: World) -> None:
    calls = []

    async def handler(task: Task, n: int) -> int:
        calls.append(n)
        return n

    process = await world.process(does(handler))
    await asyncio.gather(*(process.ask("t", "handler", n=1) for _ in range(5)))
    await process.finished("t")
    await process.ask("t", "handler", n=1)
    with pytest.raises(IdReusedError):
        await process.ask("t", "handler", n=2)
    assert calls == [1]


# Code that has changed


async def test_a_handler_that_has_changed_stops_and_says_both(world: World) -> None:
    async def old(task: Task) -> None:
        await task.step(len, "one")
        await task.approval("go on")

    async def new(task: Task) -> str:
        try:
            await task.step(str.upper, "one")
        except ReplayError:
            pass  # who swallows it gets no further
        await task.approval("go on")
        return "new"

    agent = Agent("worker")
    agent.on("work")(old)
    process = await world.process(agent)
    await process.ask("t", "work")
    await process.opened("t", "go on")
    await world.kill(process)

    agent = Agent("worker", version="2")
    agent.on("work")(new)
    process = await world.process(agent)

    async def stopped() -> bool:
        return (await process.state("t")).status == "stopped"

    await until(stopped)
    state = await process.state("t")
    assert state.failure is not None
    assert "recorded as step 'len'" in state.failure.message
    assert "now asks for step 'str.upper'" in state.failure.message
    before = len(process.world.tape.records)
    for _ in range(5):
        await process.host.reconcile()
    assert len(process.world.tape.records) == before, "what cannot go on leaves no trace"
    await world.kill(process)

    agent = Agent("worker", version="3")
    agent.on("work")(old)
    process = await world.process(agent)
    await process.decide("t", "go on")
    assert result(await process.finished("t")) is None


# Limits


async def test_a_task_in_a_durable_wait_holds_no_slot(world: World) -> None:
    async def waits(task: Task) -> None:
        await asyncio.gather(task.approval("one"), task.approval("two"))

    running, most = [0], [0]

    async def works(task: Task) -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        await task.step(len, "x")
        running[0] -= 1

    process = await world.process(does(waits, works, concurrency=2))
    for n in range(3):
        await process.ask(f"w{n}", "waits")
        await process.opened(f"w{n}", "two")
    for n in range(10):
        await process.ask(f"t{n}", "works")
    for n in range(10):
        await process.finished(f"t{n}")
    assert most[0] <= 2
    for n in range(3):
        await process.decide(f"w{n}", "one")
        await process.decide(f"w{n}", "two")
        await process.finished(f"w{n}")
    assert process.host._limits["worker"]._value == 2


async def test_cancelling_does_not_wait_for_a_slot(world: World) -> None:
    async def waits(task: Task) -> None:
        await task.approval("one")

    async def works(task: Task) -> None:
        await asyncio.Event().wait()

    process = await world.process(does(waits, works, concurrency=1))
    await process.ask("a", "waits")
    await process.opened("a", "one")
    await process.ask("b", "works")
    async with asyncio.timeout(2):
        await process.host.cancel_here("a", "ada", "")
    await process.host.cancel_here("b", "ada", "")
    assert process.host._limits["worker"]._value == 1
