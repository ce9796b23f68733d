"""Hosts of one party in this process, each with a log of its own over shard logs that they share, and the reckoning."""

import asyncio
import random
from collections import Counter
from types import TracebackType
from typing import Self

from agent_party.eventstore.grants import Issuer
from tests.eventstore_kit import Site, Truth, all_entries, judged
from tests.faults.clients import Client
from tests.faults.histories import TAKE, Recorder, Told, violations
from tests.faults.linearizable import ACKNOWLEDGED, Violation

_LOOK = 0.02
_PATIENCE = 300.0


class Hosts:
    """``count`` hosts that write ``streams`` streams, half of which they take from each other, until it is left."""

    def __init__(self, site: Site, order: random.Random, count: int = 3, streams: int = 16, at_once: int = 8) -> None:
        self.site, self._order, self._count, self._at_once = site, order, count, at_once
        self._shared = [f"note/shared{number}" for number in range(streams // 2)]
        self._taken = [f"note/taken{number}" for number in range(streams // 2)]
        self._lines: list[list[bytes]] = []
        self._clients: list[Client] = []
        self._working: list[asyncio.Task[None]] = []
        self._on = True
        self.found: list[Violation] = []
        self.counts: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        first = await self.site.open("host0.db")
        recorder, shared = self._recorder(), {}
        for stream in self._shared:
            number = recorder.begin(stream, TAKE)
            shared[stream] = await Issuer(first).writer(stream)
            recorder.end(number, ACKNOWLEDGED, shared[stream].grant.hex())
        for number in range(self._count):
            log = await self.site.open(f"host{number}.db") if number else first
            order = random.Random(self._order.random())
            mine = recorder if number == 0 else self._recorder()
            client = Client(log, mine, order, shared=shared, taken=self._taken, deadlines=(20.0,))
            self._clients.append(client)
            self._working.append(asyncio.create_task(client.work(lambda: self._on, self._at_once)))
        return self

    def _recorder(self) -> Recorder:
        lines: list[bytes] = []
        self._lines.append(lines)
        return Recorder(lines.append)

    def _acknowledged(self) -> list[int]:
        return [sum(b',"acknowledged",' in line for line in lines) for lines in self._lines]

    async def get_on(self, more: int) -> None:
        """Wait until so many more operations are acknowledged to each."""
        goals = [count + more for count in self._acknowledged()]
        async with asyncio.timeout(_PATIENCE):
            while any(now < goal for now, goal in zip(self._acknowledged(), goals, strict=True)):
                for task in self._working:
                    if task.done():
                        task.result()
                await asyncio.sleep(_LOOK)

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._on = False
        try:
            if kind is None:
                await self._reckoned()
        finally:
            for task in self._working:
                task.cancel()
            await asyncio.gather(*self._working, return_exceptions=True)
            await self.site.close()

    async def _reckoned(self) -> None:
        """Hold what all were told against what stands, read anew by the rule alone."""
        async with asyncio.timeout(_PATIENCE):
            await asyncio.gather(*self._working)
            for client in self._clients:
                await client.touch()
                await client.settle()
        truth, told = await self._truth(), Told(self._lines)
        self.found = violations(truth, told, over=True)
        self.counts.update(told.outcomes())
        self.counts["landed too late"] = sum(finding != "" for finding in truth.rejected)

    async def _truth(self) -> Truth:
        log = self._clients[0].log
        tape = self.site.tape()
        assert await tape.identity() == log.identity
        raws = [entry.raw for lane in range(tape.lanes) for entry in await all_entries(tape, lane)]
        return judged(log.identity, raws)
