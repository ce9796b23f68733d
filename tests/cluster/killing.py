"""A task on Ray whose host is killed again and again, and what must hold of it."""

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

from agent_party import Agent, Party, Task, TaskHandle, current_step
from agent_party.actors.task_state import TaskState
from agent_party.cluster.ray_runtime import RayRuntime

counter = Agent("counter")


def effect(trace: str, number: int) -> int:
    """Leaves one line outside of the log."""
    with Path(trace).open("a") as file:
        file.write(f"{current_step().wait}\n")
    time.sleep(0.01)  # so that a kill can fall into it
    return number


@counter.on("count")
async def count(task: Task, trace: str, to: int) -> int:
    """Sum up the numbers below ``to``, a step each."""
    total = 0
    for number in range(to):
        total += await task.step(effect, trace, number)
    return total


def settled(state: TaskState) -> int:
    """How many waits have an outcome."""
    return sum(wait.settled is not None for wait in state.waits)


async def host_pid(party: Party) -> int:
    """The process of the pooled host, once it runs."""
    assert isinstance(party.runtime, RayRuntime)
    return int(await party.runtime.placement.call(party.runtime.placement.pooled(0), "ready", deadline=300))


def executed(trace: Path) -> Counter[int]:
    """How often each effect ran."""
    return Counter(int(line) for line in trace.read_text().split())


async def survive(trace: Path, kills: int, seed: int) -> Counter[str]:
    """Kill the host ``kills`` times during one task; check it and count what was seen."""
    rng, steps = random.Random(seed), 12 * kills
    async with Party.open(agents=[counter], runtime="ray", hosts=1) as party:
        task: TaskHandle[int] = await party.ask(count, trace=str(trace), to=steps)
        pids = set()
        for kill in range(1, kills + 1):
            pid = await host_pid(party)
            pids.add(pid)
            goal = rng.randrange(12 * (kill - 1) + 1, 12 * kill)
            async for state in task.watch(300):
                if settled(state) >= goal or state.finished:
                    break
            os.kill(pid, signal.SIGKILL)
        assert await task.result(300) == steps * (steps - 1) // 2
        history = await task.history()
    outcomes = Counter(line.detail.wait for line in history if line.event == "wait.settled")
    openings = Counter(line.detail.wait for line in history if line.event == "wait.opened")
    ran = executed(trace)
    assert set(outcomes) == set(range(steps))
    assert set(outcomes.values()) == {1}, "an outcome was recorded twice"
    assert set(openings.values()) == {1}, "a wait was opened twice"
    assert set(ran) == set(range(steps)), "an effect never ran"
    again = sum(times - 1 for times in ran.values())
    assert again <= kills, f"{again} effects ran again in {kills} kills"
    assert len(pids) == kills
    return Counter(kills=kills, steps=steps, outcomes=len(outcomes), effects_again=again)
