"""The task of thirty waits on Ray, whose host kills itself before or after a chosen append or effect."""

import json
import os
import random
import signal
from collections import Counter
from pathlib import Path
from typing import Any

from agent_party import Agent, Party
from agent_party.eventstore.backends.sqlite import SqliteTape
from agent_party.eventstore.tape import Attempt
from tests.faults import thirty

HOUR = 0.1
"""How long an hour of the scenario lasts here, in seconds."""


class Points:
    """Counts the points of this process, and ends it at the one that the plan names. A plan is carried out once."""

    def __init__(self, folder: Path) -> None:
        self._plan, self._seen = folder / "plan.json", folder / "points"
        self._run, self._count = "", 0

    def passed(self, name: str) -> None:
        """Here the process could die."""
        try:
            plan = json.loads(self._plan.read_text())
        except FileNotFoundError:
            return
        if plan["run"] != self._run:
            self._run, self._count = plan["run"], 0
        self._count += 1
        with self._seen.open("a") as file:
            file.write(f"{os.getpid()} {name}\n")
        if self._count == plan["point"]:
            self._plan.unlink()
            os.kill(os.getpid(), signal.SIGKILL)


class CuttingAgent(Agent):
    """An agent that, where it is unpacked in a host of tasks, has that host count its points."""

    folder: str = ""

    def __reduce__(self) -> tuple[object, ...]:
        return unpacked, (self.folder, self.name)


_agents: dict[str, list[Agent]] = {}


def unpacked(folder: str, name: str) -> Agent:
    """The agent of this name, in the process of a host."""
    if folder not in _agents:
        points = Points(Path(folder))
        _agents[folder] = agents(folder, points)
        append = SqliteTape._append  # under both ways to append

        def counted(self: SqliteTape, *given: Any) -> Attempt:
            points.passed("before append")
            attempt = append(self, *given)
            points.passed("after append")
            return attempt

        SqliteTape._append = counted  # type: ignore[method-assign,assignment]
    return next(agent for agent in _agents[folder] if agent.name == name)


def agents(folder: str, points: Points | None = None) -> list[Agent]:
    """The scenario's agents; each effect leaves a line in a ledger."""

    def note(line: str) -> None:
        if points:
            points.passed(f"before {line}")
        with (Path(folder) / "ledger").open("a") as file:
            file.write(f"{line}\n")
        if points:
            points.passed(f"after {line}")

    made = thirty.agents(note, hour=HOUR)
    for agent in made:
        agent.__class__ = CuttingAgent
        agent.folder = folder  # type: ignore[attr-defined]
    return made


async def once(party: Party, folder: Path, run: str, point: int) -> tuple[Any, Counter[str], list[str]]:
    """One run: what the task came to, what the effects left, and the points of the process that ran it first."""
    (folder / "ledger").write_text("")
    (folder / "points").write_text("")
    (folder / "plan.json").write_text(json.dumps({"run": run, "point": point}))
    value = await thirty.drive(party, run)
    seen = [line.split(" ", 1) for line in (folder / "points").read_text().splitlines()]
    busiest = Counter(pid for pid, _ in seen).most_common(1)[0][0]
    return value, Counter((folder / "ledger").read_text().splitlines()), [what for pid, what in seen if pid == busiest]


async def cut(folder: Path, kills: int, seed: int) -> Counter[str]:
    """Run it whole, then ``kills`` times with a host that dies at a random point; the outcome must be the same."""
    rng, again = random.Random(seed), 0
    async with Party.open(agents=agents(str(folder)), runtime="ray", hosts=1) as party:
        clean, effects, points = await once(party, folder, "clean", 0)
        assert len(points) > 60
        for kill in range(kills):
            point = rng.randrange(1, len(points) - 5)
            while True:
                run = f"cut {kill} at {point}"
                value, executed, _ = await once(party, folder, run, point)
                assert value == clean, f"{run} of seed {seed}: {value} instead of {clean}"
                assert set(executed) == set(effects)
                extra = sum((executed - effects).values())
                assert extra <= 3, f"{executed - effects} ran again after one kill"  # three run at once, at most
                again += extra
                if not (folder / "plan.json").exists():
                    break
                assert point > 1, "nothing was killed"
                point //= 2  # there were fewer points: outcomes that come at once share an append
    return Counter(kills=kills, points=len(points), effects=effects.total(), effects_again=again)
