"""Agent Party as it is: every commit signed, chained, encrypted, read back and judged before it is acknowledged."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from agent_party import Agent, Party, Task
from agent_party.actors.events import Advanced, Settled
from agent_party.actors.packing import unpack

from ..site import judged, raws
from .work import effect, text

agent = Agent("bench", version="1", concurrency=64)


async def once(given: str) -> str:
    """The step."""
    return effect(given)


@agent.on("bench.chain")
async def chain(task: Task, given: str, steps: int) -> str:
    """As many steps as asked for, each on what the one before came to."""
    for _ in range(steps):
        given = await task.step(once, given)
    return given


class Ours:
    """A party in one process on a SQLite file."""

    def __init__(self, party: Party) -> None:
        self._party = party
        self._ids: dict[str, str] = {}
        self._judged = 0

    async def run(self, tasks: Sequence[str], steps: int) -> Sequence[str]:
        return await asyncio.gather(*(self._one(task, steps) for task in tasks))

    async def _one(self, task: str, steps: int) -> str:
        handle = await self._party.using(request_id=task).ask(chain, given=text(task, 0), steps=steps)
        self._ids[task] = handle.id
        return await handle.result()

    async def recorded(self, task: str) -> Sequence[str]:
        log, outcomes = self._party.stack.log, dict[int, list[str]]()
        if not self._judged:
            self._judged = len(judged(log.identity, [stored.raw for stored in await raws(log)]))
        async for commit in log.read(f"task/{self._ids[task]}"):
            for event in commit.events:
                for settled in event.settled if isinstance(event, Advanced) else ():
                    outcomes.setdefault(settled.wait, []).append(_outcome(settled))
        return [outcome for wait in sorted(outcomes) for outcome in outcomes[wait]]


def _outcome(settled: Settled) -> str:
    assert settled.failure is None
    return str(unpack(settled.value, str))


@contextlib.asynccontextmanager
async def opening(folder: Path, setting: str) -> AsyncIterator[Ours]:
    """``setting``: there is one only."""
    os.environ["PARTY_STATE_DIR"] = str(folder / "state")
    async with Party.open(agents=[agent], journal=f"sqlite:///{folder}/party/log.db", runtime="local") as party:
        yield Ours(party)
