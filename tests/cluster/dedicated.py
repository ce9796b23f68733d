"""Agents with actors of their own, which are killed at random while messages flow through them; and what must hold."""

import asyncio
import os
import random
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import ray

from agent_party import Agent, Party, Task, current_step
from agent_party.actors.agent_events import Remembered
from agent_party.actors.errors import CallError, RuntimeUnavailableError

AGENTS = 3
SENDERS = 6


def noted(ledger: str, number: int) -> int:
    """Leaves one line outside of the log."""
    with Path(ledger).open("a", encoding="ascii") as file:
        file.write(f"{number} {current_step().idempotency_key}\n")
    return number


async def note(task: Task, ledger: str, number: int) -> int:
    """Notes a number outside, and has the agent remember it: that takes the agent's own host."""
    await task.step(noted, ledger, number)
    await task.memory.set(f"number/{number}", number)
    return number


def agents() -> list[Agent]:
    """Each with a capability of its own."""
    made = [Agent(f"noter-{n}") for n in range(AGENTS)]
    for agent in made:
        agent.on(f"note.{agent.name}")(note)
    return made


async def _asked(party: Party, agent: str, ledger: Path, number: int) -> str:
    """Send a message through the agent's own host, again and again with the same id until it is answered."""
    place = party.runtime.placement  # type: ignore[attr-defined]
    given = {"ledger": str(ledger), "number": number}
    while True:
        try:
            meta = {"command_id": f"number-{number}"}
            return str(await place.call(place.agent(agent), "ask", f"note.{agent}", given, meta, deadline=60))
        except (RuntimeUnavailableError, CallError):
            await asyncio.sleep(0.1)


async def _flow(party: Party, ledger: Path, numbers: Any, sent: dict[int, str], over: asyncio.Event) -> None:
    while not over.is_set():
        number = next(numbers)
        sent[number] = await _asked(party, f"noter-{number % AGENTS}", ledger, number)


async def _kill(party: Party, rng: random.Random) -> int:
    """Kill the process of one of the agents, once it runs; its process id."""
    place = party.runtime.placement  # type: ignore[attr-defined]
    actor = place.dedicated(f"noter-{rng.randrange(AGENTS)}")
    while True:
        try:
            pid = int(await place.call(actor, "ready", deadline=300))
        except (ray.exceptions.RayError, RuntimeUnavailableError):  # it died before it ran
            await asyncio.sleep(0.1)
            continue
        await asyncio.sleep(rng.random() * 0.3)
        os.kill(pid, signal.SIGKILL)
        return pid


def _lines(ledger: Path) -> Counter[int]:
    return Counter(int(line.split()[0]) for line in ledger.read_text(encoding="ascii").splitlines())


async def survive_dedicated(ledger: Path, kills: int, seed: int) -> Counter[str]:
    """Kill so many while messages flow; check that each message was done once, and count what was seen."""
    rng, sent, over = random.Random(seed), dict[int, str](), asyncio.Event()
    numbers = iter(range(1_000_000))
    async with Party.open(agents=agents(), runtime="ray", hosts=1) as party:
        flow = [asyncio.ensure_future(_flow(party, ledger, numbers, sent, over)) for _ in range(SENDERS)]
        pids = {await _kill(party, rng) for _ in range(kills)}
        async with asyncio.timeout(300):
            while len(sent) <= 2 * kills:  # noqa: ASYNC110 (they flow by themselves, however fast)
                await asyncio.sleep(0.05)
        over.set()
        await asyncio.gather(*flow)
        for number, task in sent.items():
            assert await party.task(task).result(300) == number, f"the answer to message {number}"
        histories = [await party.agent(f"noter-{n}").history() for n in range(AGENTS)]
    lines = _lines(ledger)
    kept = Counter(line.detail.key for lines in histories for line in lines if isinstance(line.detail, Remembered))
    assert set(lines) == set(sent), "a message was lost, or one was made up"
    assert set(lines.values()) == {1}, "an effect was done twice, and its own host was never killed"
    assert kept == Counter(f"number/{number}" for number in sent), "something was remembered twice, or not at all"
    assert len(pids) == kills
    return Counter(
        kills=kills, messages=len(sent), lost=len(set(sent) - set(lines)), doubled=lines.total() - len(lines)
    )
