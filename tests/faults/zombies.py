"""A shard log that is stopped in the middle of what it does, loses its streams meanwhile, and is woken again."""

import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec

from agent_party.eventstore.log import Log
from tests.eventstore_kit import Truth, all_entries, judged, until
from tests.faults.clients import Client
from tests.faults.histories import APPEND, Told, violations
from tests.faults.linearizable import ACKNOWLEDGED, ENDED, Violation
from tests.faults.shards import Shard


class Zombies:
    """``successor`` writes from this process, past whatever lies between the zombie and the store."""

    def __init__(self, zombie: Shard, log: Log, successor: Client, history: Path) -> None:
        self._zombie, self._log, self._successor, self._history = zombie, log, successor, history
        self.found: list[Violation] = []
        self.counts: Counter[str] = Counter()

    async def rounds(self, count: int, hold: Callable[[], None], let_go: Callable[[], None]) -> None:
        """Stop it while appends are in flight, take its streams over, write, and wake it.

        ``hold``: from now on, what the zombie sends stays on its way; ``let_go``: it arrives.
        """
        for _ in range(count):
            await self._zombie.gets_on(20)
            hold()
            await self._in_flight(4)
            self._zombie.tell(signal.SIGSTOP)
            self.counts["in flight"] += len(_open(self._zombie.histories[-1]))
            await self._successor.touch()
            let_go()
            self._zombie.tell(signal.SIGCONT)
            self.counts["rounds"] += 1
        await self._zombie.gets_on(5)
        await self._zombie.end()
        await self._successor.touch()
        await self._successor.settle()

    async def _in_flight(self, count: int) -> None:
        """Wait until so many appends were begun and not answered."""
        await until(lambda: len(_open(self._zombie.histories[-1])) >= count, "appends in flight")

    async def reckoned(self) -> Truth:
        """Hold what both were told against what stands."""
        raws = [entry.raw for lane in range(self._log.tape.lanes) for entry in await all_entries(self._log.tape, lane)]
        truth, told = judged(self._log.identity, raws), Told.of([*self._zombie.histories, self._history])
        self.found = violations(truth, told, over=True)
        outcomes = told.outcomes()
        self.counts.update({"acknowledged": outcomes[ACKNOWLEDGED], "ended": outcomes[ENDED]})
        self.counts["landed too late"] = sum(finding != "" for finding in truth.rejected)
        return truth


def _open(history: Path) -> set[int]:
    """Appends that were begun and not answered, by number."""
    begun: set[int] = set()
    for line in history.read_bytes().split(b"\n")[:-1]:
        number, _, *rest = msgspec.json.decode(line)
        if number in begun:
            begun.discard(number)
        elif len(rest) > 1 and rest[1] == APPEND:
            begun.add(number)
    return begun
