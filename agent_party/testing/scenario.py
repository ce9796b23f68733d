"""A scenario: agents, and a coroutine that drives their party. It is run to its end, through crashes if need be."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from ..actors.agent import Agent
from ..eventstore.export import export
from ..party import Party
from .asserting import assert_effects_once, assert_same_outcome, assert_timers
from .clock import REAL_LIMIT, VIRTUAL_LIMIT
from .faults import Cut, Faults, double_crashes
from .history import History, history
from .lives import Effect, Life
from .running import run
from .world import World, WorldParty, folder

LIVES = 20
RESTART = 0.01
"""Seconds until the next process is there."""
Agents = Sequence[Agent] | Callable[[], Sequence[Agent]]


class Run(NamedTuple):
    """What a run has come to.

    ``value``: what the driving coroutine returned; ``cuts``: the points at which the first process could have died;
    ``died``: those at which one did; ``effects``: every run of a step's function, in order; ``history``: what the log
    tells; ``export``: the log; ``seconds``: how much virtual time has passed.
    """

    seed: int
    faults: Faults
    value: Any
    cuts: tuple[Cut, ...]
    died: tuple[Cut, ...]
    effects: tuple[Effect, ...]
    history: History
    export: bytes
    seconds: float

    def __repr__(self) -> str:
        return f"<Run: {self}>"

    def __str__(self) -> str:
        return f"seed {self.seed}, {'; '.join(map(str, self.died)) or 'no crash'}"


class Scenario:
    """``agents``: or a function that makes them, called for each process. ``drive(party)``: asks, approves, signals.

    After a crash the next process calls ``drive`` again from its beginning. So it gives each request an id
    (``party.using(request_id=...)``), and looks before it approves whether that is done already.
    """

    def __init__(
        self,
        agents: Agents,
        drive: Callable[[Party], Awaitable[Any]],
        *,
        real_limit: float = REAL_LIMIT,
        virtual_limit: float = VIRTUAL_LIMIT,
    ) -> None:
        self._agents, self._drive = agents, drive
        self._limits = {"real_limit": real_limit, "virtual_limit": virtual_limit}

    def run(self, faults: Faults | None = None, *, seed: int = 1) -> Run:
        """Run to the end, in an event loop of its own."""
        plan = faults or Faults()
        try:
            return run(lambda: self._run(plan, seed), seed=seed, **self._limits)
        except BaseException as error:
            error.add_note(f"the faults were: {plan}")
            raise

    def check(self, *, seed: int = 1, doubles: int = 0) -> Run:
        """Crash at every cut point, then twice at ``doubles`` random pairs of points: each time what must hold, holds.

        Raises `AssertionError`. Returns the run without a crash.
        """
        clean = self.run(seed=seed)
        assert_effects_once(clean)
        assert_timers(clean)
        for plan in [*(Faults().crash(cut) for cut in clean.cuts), *double_crashes(clean.cuts, doubles, seed)]:
            crashed = self.run(plan, seed=seed)
            assert_same_outcome(clean, crashed)
            assert_effects_once(crashed)
            assert_timers(crashed)
        return clean

    async def _run(self, faults: Faults, seed: int) -> Run:
        with folder() as path:
            world = World(path)
            for _ in range(LIVES):
                life = world.begin(faults, index="index.db")
                main = life.spawn(self._live(world, life))
                await asyncio.wait([main, life.died], return_when=asyncio.FIRST_COMPLETED)
                if not life.gone:
                    break
                await asyncio.sleep(RESTART)
            else:
                raise AssertionError(f"{LIVES} processes have died, and the scenario has not come to its end")
            told = await self._told(world, faults, seed, await main)
            await world.close()
            return told

    async def _live(self, world: World, life: Life) -> Any:
        agents = self._agents() if callable(self._agents) else self._agents
        async with WorldParty(world, life, agents) as party:
            return await self._drive(party)

    async def _told(self, world: World, faults: Faults, seed: int, value: Any) -> Run:
        lives, now = tuple(world.lives), asyncio.get_running_loop().time()
        async with world.look() as log:
            told, exported = await history(log, world.tape.records), await export(log)
        died = tuple(life.cut for life in lives if life.cut)
        return Run(seed, faults, value, tuple(lives[0].cuts), died, tuple(world.ledger.effects), told, exported, now)
