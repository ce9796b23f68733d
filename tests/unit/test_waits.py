"""The one wait primitive: what is committed when, and what a replay accepts."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from agent_party.actors import replay, waits
from agent_party.actors.errors import MovedError, ReplayError, SettledError
from agent_party.actors.events import Advanced, Completed, Progressed, Requested, Settled, WaitKind
from agent_party.actors.packing import pack
from agent_party.actors.task_state import TaskState, WaitState, evolve
from agent_party.actors.waits import Waits
from agent_party.eventstore.errors import PayloadError, StoreBusyError, UnknownOutcomeError
from agent_party.eventstore.reading import Commit
from tests.unit.commits_kit import committed
from tests.unit.world import until


class Stream:
    """A task's stream in memory. ``fail``: what the next commits raise; ``gate``: what they wait for."""

    def __init__(self) -> None:
        self.state, self.commits = TaskState(), list[tuple[Any, ...]]()
        self.fail: list[Exception] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self._add(Requested("work", b"\x80"))

    def _add(self, *events: Any) -> Commit:
        self.commits.append(events)
        commit = committed(len(self.commits), events)
        evolve(self.state, commit)
        return commit

    async def record(self, events: Sequence[Any]) -> Commit:
        await self.gate.wait()
        if self.fail:
            raise self.fail.pop(0)
        return self._add(*events)

    def run(self) -> Waits:
        RUNS.append(Waits(self.state, self.record))
        return RUNS[-1]


RUNS: list[Waits] = []


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    """Nothing of a run is left when its loop ends."""
    yield
    for run in RUNS:
        run.stop()
    RUNS.clear()


async def enter(waits: Waits, kind: WaitKind, name: str, given: bytes = b"\xc0") -> tuple[int, WaitState]:
    """Open a wait, durably, or have its record."""
    number, recorded = waits.open(kind, name, given)
    return number, recorded or await waits.opened(number)


async def step(waits: Waits, name: str, value: Any = None) -> Settled:
    """A step without an effect."""
    number, recorded = await enter(waits, "step", name)
    if recorded.settled is None:
        waits.settle(Settled(number, pack(value, name)))
    await waits.take(number)
    return recorded.settled or Settled(number, pack(value, name))


def trouble(waits: Waits) -> bool:
    """Whether the last commit failed for a reason that is not the handler's."""
    return waits.trouble is not None


def runs(waits: Waits) -> bool:
    """Whether a replay still goes on."""
    return waits.replay.running


async def test_a_step_is_one_commit() -> None:
    stream = Stream()
    run = stream.run()
    for n in range(10):
        await step(run, f"s{n}", n)
    await run.flush(Completed(b"\xc0"))
    assert len(stream.commits) == 1 + 10 + 1
    settled, opened = stream.commits[5][0].settled, stream.commits[5][0].opened
    assert [one.wait for one in settled] == [3]
    assert [one.wait for one in opened] == [4]
    assert isinstance(stream.commits[-1][0], Advanced)
    assert isinstance(stream.commits[-1][1], Completed)


async def test_an_outcome_without_company_goes_alone_soon() -> None:
    stream = Stream()
    run = stream.run()
    await step(run, "s")
    assert stream.state.waits[0].settled is None
    await until(lambda: stream.state.waits[0].settled)
    assert len(stream.commits) == 3


def hold_up() -> None:
    time.sleep(2 * waits.ALONE_AFTER)


async def test_a_loop_that_was_held_up_has_held_up_the_company_too() -> None:
    """The time that an outcome waits is over, and its handler had no turn in it."""
    stream = Stream()
    run = stream.run()
    for n in range(5):
        await step(run, f"s{n}")
        hold_up()
        for _ in range(5):
            await asyncio.sleep(0)
    await run.flush(Completed(b"\xc0"))
    assert len(stream.commits) == 1 + 5 + 1


async def test_what_is_opened_at_once_is_one_commit() -> None:
    stream = Stream()
    run = stream.run()
    await asyncio.gather(*(step(run, f"s{n}") for n in range(20)))
    assert len(stream.commits) == 2
    assert len(stream.commits[1][0].opened) == 20


async def test_a_value_is_opened_and_settled_in_one_event() -> None:
    stream = Stream()
    run = stream.run()
    assert run.value("now", lambda: b"\x01") == b"\x01"
    await step(run, "s")
    assert len(stream.commits) == 2
    assert stream.run().value("now", lambda: b"\x02") == b"\x01"


async def test_only_the_last_progress_counts() -> None:
    stream = Stream()
    run = stream.run()
    for n in range(5_000):
        run.note(Progressed(n))
    await step(run, "s")
    assert stream.commits[1][0] == Progressed(4_999)
    assert len(stream.commits[1]) == 2


async def test_a_replay_gives_what_is_recorded() -> None:
    stream = Stream()
    run = stream.run()
    await step(run, "a", 1)
    await step(run, "b", 2)
    await run.flush()
    before, again = len(stream.commits), stream.run()
    assert (await step(again, "a", 8)).value == b"\x01"
    assert runs(again)
    assert (await step(again, "b", 9)).value == b"\x02"
    assert not runs(again)
    await again.flush()
    assert len(stream.commits) == before
    assert again.replayed == 2


@pytest.mark.parametrize(
    ("kind", "name", "given", "said"),
    [
        ("step", "other", b"\xc0", "step 'other'"),
        ("sleep", "a", b"\xc0", "sleep 'a'"),
        ("step", "a", b"\x01", "step 'a' with another input"),
    ],
)
async def test_another_wait_than_the_recorded_one_shows_both(kind: Any, name: str, given: bytes, said: str) -> None:
    stream = Stream()
    await step(stream.run(), "a")
    again = stream.run()
    with pytest.raises(ReplayError, match=rf"wait 0 is recorded as step 'a', and the handler now asks for {said}: "):
        await enter(again, kind, name, given)
    with pytest.raises(ReplayError):
        await enter(again, "step", "a")  # a handler that swallows it gets no further
    with pytest.raises(ReplayError):
        again.replay.ended("returns")


async def test_a_handler_that_ends_before_what_is_recorded_differs() -> None:
    stream = Stream()
    run = stream.run()
    await step(run, "a")
    await step(run, "b")
    again = stream.run()
    await step(again, "a")
    with pytest.raises(ReplayError, match="wait 1 is recorded as step 'b', and the handler now returns before it"):
        again.replay.ended("returns")


async def test_a_replay_that_stands_still_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of two branches does not ask any more for what it did ask for."""
    stream = Stream()
    run = stream.run()

    async def branch(*names: str, of: Waits = run) -> None:
        for name in names:
            await step(of, name)

    await asyncio.gather(branch("a", "b", "c"), branch("x", "y"))
    await run.flush()
    monkeypatch.setattr(replay, "PATIENCE", 0.02)
    again = stream.run()
    with pytest.raises(ReplayError, match="the handler does not ask for it"):
        await asyncio.gather(branch("a", of=again), branch("x", "y", of=again))


async def test_branches_replay_in_the_order_they_ran() -> None:
    stream, order = Stream(), list[str]()
    run = stream.run()

    async def slow(of: Waits, first: asyncio.Event) -> None:
        number, recorded = await enter(of, "step", "slow")
        if recorded.settled is None:
            await first.wait()
            of.settle(Settled(number))
        await of.take(number)
        order.append("slow")
        await step(of, "after slow")

    async def fast(of: Waits, first: asyncio.Event) -> None:
        await step(of, "fast")
        order.append("fast")
        await step(of, "after fast")
        first.set()

    gate = asyncio.Event()
    await asyncio.gather(slow(run, gate), fast(run, gate))
    await run.flush()
    assert [wait.name for wait in stream.state.waits] == ["slow", "fast", "after fast", "after slow"]
    ran, again = order[:], stream.run()
    order.clear()
    await asyncio.gather(slow(again, gate), fast(again, gate))
    assert order == ran == ["fast", "slow"]
    assert not again.replay.running


async def test_a_commit_that_fails_puts_things_back() -> None:
    stream = Stream()
    run = stream.run()
    stream.fail = [StoreBusyError("busy")]
    run.note(Progressed(1))
    with pytest.raises(StoreBusyError):
        await step(run, "a")
    assert trouble(run)
    await run.flush()
    assert not trouble(run)
    assert len(stream.commits) == 2
    progressed, advanced = stream.commits[1]
    assert progressed == Progressed(1)
    assert [one.name for one in advanced.opened] == ["a"]


async def test_an_outcome_whose_commit_failed_is_tried_again_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits, "_AGAIN", 0.005)
    stream = Stream()
    run = stream.run()
    await step(run, "a")
    stream.fail = [StoreBusyError("busy"), StoreBusyError("busy")]
    await until(lambda: stream.state.waits[0].settled)
    assert len(stream.commits) == 3


async def test_what_cannot_be_stored_does_not_end_the_run() -> None:
    stream = Stream()
    run = stream.run()
    stream.fail = [PayloadError("too much")]
    with pytest.raises(PayloadError):
        await run.flush(Completed(b"\xc0"))
    assert run.trouble is None
    await run.flush(Completed(b"\x01"))
    assert stream.state.result == b"\x01"


async def test_a_run_whose_commit_is_unknown_is_over() -> None:
    """It may stand; only one who reads the stream again can go on."""
    stream = Stream()
    run = stream.run()
    stream.fail = [UnknownOutcomeError("task/t", b"x" * 32)]
    with pytest.raises(UnknownOutcomeError):
        await step(run, "a")
    with pytest.raises(MovedError, match="over"):
        await run.flush(Completed(b"\xc0"))
    assert len(stream.commits) == 1


async def test_a_caller_that_is_cancelled_does_not_stop_a_commit() -> None:
    stream = Stream()
    run = stream.run()
    stream.gate.clear()
    waiting = asyncio.ensure_future(enter(run, "step", "a"))
    await until(lambda: bool(run._commits))
    await asyncio.sleep(0)
    waiting.cancel()
    stream.gate.set()
    await run.idle()
    assert [wait.name for wait in stream.state.waits] == ["a"]
    await run.flush(Completed(b"\xc0"))
    assert stream.state.status == "completed"


async def test_nothing_follows_the_end() -> None:
    stream = Stream()
    run = stream.run()
    await run.flush(Completed(b"\xc0"))
    for late in (enter(run, "step", "a"), run.flush(Completed(b"\x01"))):
        with pytest.raises(SettledError):
            await late
    run.note(Progressed(1))
    run.settle(Settled(0))
    await run.flush()
    assert len(stream.commits) == 2
    run.stop()
    with pytest.raises(MovedError):
        await run.flush(Completed(b"\x01"))


async def test_who_no_longer_waits_for_an_answer_does_not_spoil_it() -> None:
    stream = Stream()
    run = stream.run()
    number, _ = await enter(run, "approval", "a")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(run.answer(number), 0.001)
    run.settle(Settled(number, b"\x01"))
    run.settle(Settled(number, b"\x02"))
    assert (await run.answer(number)).value == b"\x01"


async def test_a_large_commit_is_several_events() -> None:
    stream = Stream()
    run = stream.run()
    big = b"\xc6" + (900_000).to_bytes(4) + bytes(900_000)

    async def one(n: int) -> None:
        number, _ = await enter(run, "step", f"s{n}", big)
        run.settle(Settled(number, big))
        await run.take(number)

    await asyncio.gather(*(one(n) for n in range(5)))
    await run.flush()
    assert [len(events) for events in stream.commits] == [1, 5, 5]
    again = stream.run()
    for n in range(5):
        _, recorded = await enter(again, "step", f"s{n}", big)
        assert recorded.settled is not None
