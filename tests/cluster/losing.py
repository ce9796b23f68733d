"""A program whose party loses its cluster: started by a test, as a program of its own, for Ray may end it."""

import asyncio
import sys
import time
from pathlib import Path

from agent_party import Agent, Party, Task
from agent_party.cluster.ray_runtime import RayRuntime
from tests.cluster.killing import effect, host_pid

STEPS = 30
HELD = 12
"""The step that does not end as long as it is held: the head is lost while it is in flight."""
REQUEST = "before the head was lost"
counter = Agent("counter")
patient = Agent("patient", dedicated=False)


def hold(trace: Path) -> Path:
    """The file that holds the step; without it the step ends."""
    return trace.with_name("hold")


def held_effect(trace: str, number: int) -> int:
    """Leaves one line outside of the log, and ends when nobody holds it."""
    effect(trace, number)
    while number == HELD and hold(Path(trace)).exists():
        time.sleep(0.05)
    return number


@counter.on("count")
async def count(task: Task, trace: str) -> int:
    """Sum up the numbers below `STEPS`, a step each."""
    total = 0
    for number in range(STEPS):
        total += await task.step(held_effect, trace, number)
    return total


@patient.on("patient.wait")
async def wait(task: Task) -> str:
    """Waits for a signal."""
    return str(await task.signal("go"))


async def main(trace: str) -> None:
    """Ask for work that takes a while and for work that waits; say where they are, and wait for the end."""
    async with Party.open(agents=[counter, patient], runtime="ray", hosts=1) as party:
        assert isinstance(party.runtime, RayRuntime)
        counting = await party.using(request_id=REQUEST).ask(count, trace=trace)
        waiting = await party.ask(wait)
        print(counting.id, waiting.id, await host_pid(party), flush=True)
        print(await counting.result(600), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
