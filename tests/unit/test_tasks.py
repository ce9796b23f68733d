"""What a handler can await, and what becomes of its task."""

import asyncio
import functools
import threading
import time
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from agent_party import StepError, Task, current_step, step
from agent_party.actors import packing
from agent_party.actors.errors import UnknownCapabilityError
from agent_party.eventstore.artifacts import Artifact, fetch
from agent_party.eventstore.errors import PayloadError
from tests.unit.handlers_kit import does, failure, no_pauses, result, run, world
from tests.unit.world import World, until

__all__ = ["no_pauses", "world"]


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

    def untyped():  # type: ignore[no-untyped-def]
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
    before = time.time()

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
    assert before <= runs[0][0] / 1_000_000 <= time.time()
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
