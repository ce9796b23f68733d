"""A program whose party loses its cluster: started by a test, as a program of its own, for Ray may end it."""

import asyncio
import sys

from agent_party import Agent, Party, Task
from agent_party.cluster.ray_runtime import RayRuntime
from tests.cluster.killing import counter, host_pid

STEPS = 60
REQUEST = "before the head was lost"
patient = Agent("patient", dedicated=False)


@patient.on("patient.wait")
async def wait(task: Task) -> str:
    """Waits for a signal."""
    return str(await task.signal("go"))


async def main(trace: str) -> None:
    """Ask for work that takes a while and for work that waits; say where they are, and wait for the end."""
    async with Party.open(agents=[counter, patient], runtime="ray", hosts=1) as party:
        assert isinstance(party.runtime, RayRuntime)
        counting = await party.using(request_id=REQUEST).ask("count", trace=trace, to=STEPS)
        waiting = await party.ask(wait)
        print(counting.id, waiting.id, await host_pid(party), flush=True)
        print(await counting.result(600), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
