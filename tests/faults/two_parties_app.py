"""Run as a process of its own: a party with one agent, which works until it is killed.

python -m tests.faults.two_parties_app TRACE [REQUEST]
"""

import asyncio
import os
import sys
from pathlib import Path

from agent_party import Agent, Party, Task

plodder = Agent("plodder")


def mark(trace: str, number: int) -> int:
    """Leave a line: which step, in which process."""
    with Path(trace).open("a") as file:
        file.write(f"{number} {os.getpid()}\n")
    return number


@plodder.on("plod")
async def plod(task: Task, trace: str, steps: int, ask_at: int) -> int:
    """Takes its steps; at one of them it asks a person."""
    done = 0
    for number in range(steps):
        if number == ask_at:
            await task.approval("go on", show={"steps": steps})
        done += await task.step(mark, trace, number) >= 0
    return done


async def main(trace: str, request: str) -> None:
    """Say when it is open, then stay."""
    async with Party.open(agents=[plodder], runtime="local") as party:
        if request:
            await party.using(request_id=request).ask(plod, trace=trace, steps=20, ask_at=10)
        print("open", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""))
