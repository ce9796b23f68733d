"""Virtual time: it jumps, in order, and never early; what hangs says so; the same seed is the same run."""

import asyncio
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from agent_party import Agent, StepError, Task, step, testing
from agent_party.actors.events import Answered, Opened, Settled
from agent_party.actors.supervisor import Supervisor
from agent_party.eventstore.codec import NIL
from agent_party.eventstore.export import read_export
from agent_party.eventstore.log import Log
from agent_party.testing import HangError, NotVirtualError, VirtualLoop, clock

LAYERS = ("actors", "agent_party", "cluster", "eventstore", "projections")
ROOT = Path(__file__).resolve().parents[2]
DAY = 86_400.0


def loop() -> VirtualLoop:
    running = asyncio.get_running_loop()
    assert isinstance(running, VirtualLoop)
    return running


@testing.virtual(seed=1)
async def test_timers_fire_in_their_order_each_at_its_time() -> None:
    fired: list[tuple[float, float]] = []

    async def sleeper(seconds: float) -> None:
        due = loop().time() + seconds
        await asyncio.sleep(seconds)
        fired.append((due, loop().time()))

    lengths = [3 * DAY, 0.1, 0.30000000000000004, 1e-9, 400.0, 0.1, 0.0]
    await asyncio.gather(*map(sleeper, lengths))
    assert fired == sorted(fired)
    assert all(due <= at < due + 1e-6 for due, at in fired)


@testing.virtual(seed=1, virtual_limit=1e10)
async def test_no_timer_is_early_by_a_rounding_however_late_it_is() -> None:
    ambient, running = clock.VirtualAmbient(loop()), loop()
    for seconds in (0.1, 1e-7, 3.3333333, 1e9, 0.7, 1e-6, 12345.678901):
        due, then = ambient.now() + int(seconds * 1e6), running.time() + seconds
        await asyncio.sleep(seconds)
        assert ambient.now() >= due
        assert running.time() >= then


@testing.virtual(seed=1)
async def test_time_stands_while_anything_is_ready_or_blocks() -> None:
    before = loop().time()
    for _ in range(100):
        await asyncio.sleep(0)
    names = await asyncio.gather(*(asyncio.to_thread(threading.current_thread) for _ in range(3)))
    assert len(set(names)) == 3
    assert loop().time() == before
    with pytest.raises(ValueError, match="from a thread"):
        await asyncio.to_thread(_raise)


def _raise() -> None:
    raise ValueError("from a thread")


def test_waiting_for_what_nobody_does_hangs_and_says_where() -> None:
    async def forgotten() -> None:
        await asyncio.get_running_loop().create_future()

    async def main() -> None:
        await forgotten()

    with pytest.raises(HangError, match=r"no timer is set(.|\n)*main:\d+ → .*forgotten:\d+"):
        testing.run(main, seed=7)


def test_a_limit_of_virtual_time() -> None:
    async def main() -> None:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(3600)

    with pytest.raises(HangError, match="864000 virtual seconds"):
        testing.run(main, seed=7, virtual_limit=10 * DAY)


def test_a_limit_of_real_time() -> None:
    async def spins() -> None:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(0)

    async def blocks() -> None:
        await asyncio.to_thread(threading.Event().wait, 5)

    for main in (spins, blocks):
        with pytest.raises(HangError, match=r"0\.05 real seconds"):
            testing.run(main, seed=7, real_limit=0.05)


def test_an_error_carries_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no") as raised:
        testing.run(main)
    assert any("PARTY_TEST_SEED=" in note for note in raised.value.__notes__)
    monkeypatch.setenv("PARTY_TEST_SEED", "4711")
    with pytest.raises(ValueError, match="no") as raised:
        testing.run(main)
    assert any("4711" in note for note in raised.value.__notes__)


async def test_a_party_outside_of_virtual_time_is_refused() -> None:
    with pytest.raises(NotVirtualError, match=r"@testing\.virtual"):
        async with testing.party([]):
            pass


@testing.virtual(seed=1)
async def test_real_input_and_output_are_refused() -> None:
    with pytest.raises(testing.RealInputOutputError):
        await asyncio.open_connection("127.0.0.1", 9)
    with pytest.raises(testing.RealInputOutputError):
        await asyncio.create_subprocess_exec("true")


# Parties


def agents() -> list[Agent]:
    writer = Agent("writer")

    @step(retries=3)
    def collect(topic: str) -> str:
        if not time.perf_counter_ns():
            raise ValueError("never")
        return topic.upper()

    async def weigh(number: int) -> int:
        await asyncio.sleep(60 * number)
        return number

    @writer.on("text.write")
    async def write(task: Task, topic: str) -> str:
        facts = await task.step(collect, topic)
        numbers = await asyncio.gather(*(task.step(weigh, n) for n in (3, 1, 2)))
        await task.sleep(30 * DAY)
        await task.approval("publish", show=facts)
        await task.memory.set("seen", topic)
        return f"{facts} {sum(numbers)} {task.random() < 1} {task.uuid()[14]}"

    return [writer]


async def scene(seed: int) -> tuple[str, float, bytes]:
    """A task that waits for 30 days and for a person: its result, the time it took, the whole log."""
    async with testing.party(agents(), seed=seed) as party:
        began = loop().time()
        task = await party.using(request_id="r1").ask("text.write", topic="ravens")
        async for state in task.watch():
            if any(state.waits[wait].kind == "approval" for wait in state.open):
                break
        await task.approve("publish", person="ada")
        result = await task.result()
        return result, loop().time() - began, await party.world.export()


@testing.virtual(seed=1)
async def test_thirty_days_pass_at_once() -> None:
    result, seconds, _ = await scene(1)
    assert result == "RAVENS 6 True 4"
    assert 30 * DAY + 180 <= seconds < 30 * DAY + 181
    assert loop().jumps < 5_000  # some 50 µs each


def test_the_same_seed_gives_the_same_log_byte_for_byte() -> None:
    first, again, other = (testing.run(lambda seed=seed: scene(seed)) for seed in (1, 1, 2))  # type: ignore[misc]
    assert first[2] == again[2]
    assert len(first[2]) > 5_000
    assert first[2] != other[2]


def lines(exported: bytes) -> list[str]:
    """One line for each record of an export, so that a difference shows where it is."""
    _, records = read_export(exported)
    heads = [(record.header, record) for record in records]
    return [f"{h.stream!r}@{h.revision} {h.time} {h.commit_id.hex()} {len(r.body)} {r.commit.hex()}" for h, r in heads]


def test_the_same_seed_gives_the_same_log_in_another_process(tmp_path: Path) -> None:
    """However much ran in this one before, and wherever the code comes from."""
    program = (
        "from agent_party import testing; from tests.unit.test_testing_time import lines, scene;"
        "print(*lines(testing.run(lambda: scene(5))[2]), sep='\\n')"
    )
    here = lines(testing.run(lambda: scene(5))[2])
    for hashing, cache in (("1", ""), ("2", "new"), ("3", "new")):  # compiled there; kept; and from what was kept
        environment = {**os.environ, "PYTHONHASHSEED": hashing, "PYTHONPYCACHEPREFIX": str(tmp_path / hashing)}
        environment |= {"PYTHONDONTWRITEBYTECODE": "1"}
        if cache:
            environment |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path / cache)}
        there = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300,
            check=True,
        )  # fmt: skip
        assert there.stdout.splitlines() == here, (hashing, cache)
    assert list((tmp_path / "new").rglob("events.*.pyc"))


def test_what_is_left_out_of_a_payload_is_one_object_in_every_process() -> None:
    """A struct leaves out a default that is the very object. Of one byte there are as many as there are literals."""
    written = [path for layer in LAYERS for path in (ROOT / layer).rglob("*.py") if r'b"\xc0"' in path.read_text()]
    assert [path.relative_to(ROOT).as_posix() for path in written] == ["eventstore/codec.py"]
    assert Opened.__struct_defaults__[0] is Settled.__struct_defaults__[0] is Answered.__struct_defaults__[0] is NIL


@testing.virtual(seed=1)
async def test_a_step_in_a_thread_that_fails_fails_as_ever() -> None:
    agent = Agent("a")

    def fails() -> None:
        raise KeyError("no")

    @agent.on("x")
    async def x(task: Task) -> str:
        try:
            await task.step(fails)
        except StepError as error:
            return error.kind
        return ""

    async with testing.party([agent]) as party:
        assert await (await party.ask("x")).result() == "KeyError"


@testing.virtual(seed=1)
async def test_a_step_that_reaches_for_the_network_is_told() -> None:
    agent = Agent("a")

    async def fetch() -> None:
        await asyncio.open_connection("127.0.0.1", 9)

    @agent.on("x")
    async def x(task: Task) -> str:
        try:
            await task.step(fetch)
        except StepError as error:
            return error.kind
        return ""

    async with testing.party([agent]) as party:
        assert await (await party.ask("x")).result() == "RealInputOutputError"


def test_a_party_that_waits_for_nobody_hangs_and_says_so() -> None:
    async def main() -> None:
        async with testing.party(agents()) as party:
            await (await party.ask("text.write", topic="ravens")).result()

    with pytest.raises(HangError, match=r"task \w{16} \(text\.write\): wait \d+, approval"):
        testing.run(main, seed=1, virtual_limit=40 * DAY)


def test_what_is_taken_for_housekeeping_exists() -> None:
    found = {Supervisor._keep_reconciling.__qualname__, Supervisor._keep_sweeping.__qualname__, Log._tail.__qualname__}
    assert found == clock.HOUSEKEEPING


def test_the_order_of_tasks_in_a_set_depends_on_nothing_but_when_they_were_made() -> None:
    async def main() -> list[int]:
        order: list[int] = []

        async def note(number: int) -> None:
            order.append(number)

        junk = [bytearray(size) for size in range(len(kept) * 37 % 101)]
        kept.append(junk)
        for coming in {note(number) for number in range(1)}:
            await coming
        tasks = {asyncio.ensure_future(note(number)): number for number in range(40)}
        futures = {asyncio.get_running_loop().create_future(): number for number in range(40)}
        await asyncio.wait(set(tasks))
        return [*order, *(tasks[task] for task in set(tasks)), *(futures[future] for future in set(futures))]

    kept: list[object] = []
    assert len({tuple(testing.run(main, seed=1)) for _ in range(5)}) == 1


def test_nothing_of_the_runtime_imports_the_kit() -> None:
    program = "import sys, agent_party, agent_party.cli.main, agent_party.cluster.wiring; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not [name for name in loaded.stdout.split() if name.startswith("agent_party.testing")]
    found = [path for path in ROOT.glob("*/**/*.py") if path.parts[len(ROOT.parts)] in LAYERS]
    inside = [
        path
        for path in found
        if "testing" not in path.parts and re.search(r"import testing|\.testing", path.read_text())
    ]
    assert found
    assert inside == []
