"""One contestant in a process of its own: takes turns as its standard input says, a line of JSON each.

``python -m benchmarks.peers.child NAME FOLDER``. Whatever else a peer prints goes to standard error.
"""

import asyncio
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .field import by_name
from .work import Contest, Opening, check


async def main(name: str, folder: Path, say: Callable[[dict[str, Any]], None]) -> None:
    """Open, answer the lines until there are no more, close."""
    entry = by_name(name)
    opening: Opening = importlib.import_module(f"benchmarks.peers.{entry.module}").opening
    async with opening(folder, entry.setting) as contest:
        say({"ready": True})
        done: dict[str, int] = {}
        while line := await asyncio.to_thread(sys.stdin.readline):
            order = json.loads(line)
            if order["do"] == "verify":
                say({"verified": await check(contest, done), "tasks": len(done)})
            else:
                say(await turn(contest, done, order["tasks"], order["steps"], order["seconds"]))


async def turn(contest: Contest, done: dict[str, int], at_once: int, steps: int, seconds: float) -> dict[str, Any]:
    """Run so many tasks at once, again and again until the time is over; at least once."""
    ran, began = 0, time.perf_counter()
    while not ran or time.perf_counter() - began < seconds:
        tasks = [f"t{len(done) + number}" for number in range(at_once)]
        results = await contest.run(tasks, steps)
        assert all(result.startswith(f"{task}:{steps}:") for task, result in zip(tasks, results, strict=True))
        done.update(dict.fromkeys(tasks, steps))
        ran += at_once * steps
    return {"steps": ran, "seconds": time.perf_counter() - began}


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), lambda answer: print(json.dumps(answer), file=answers)))
