"""The reference tape, in memory, and its unconditional twin, which does to records what a broker may do to them."""

import asyncio
from collections.abc import Callable, Sequence

from ..errors import LogRolledBack, WrongLogError
from ..tape import Attempt, Entry, Indefinite
from ..verify import Identity


class MemoryTape:
    """One lane, one process. Durable as long as the object lives."""

    lanes = 1
    conditional = True

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self._log: Identity | None = None
        self._grown = asyncio.Event()

    async def identity(self) -> Identity | None:
        return self._log

    async def found(self, log: Identity) -> None:
        if self._log is not None:
            raise WrongLogError(f"this tape holds log {self._log.log_id.hex()[:16]} already")
        self._log = log

    async def append(self, lane: int, records: Sequence[bytes], after: Entry) -> Attempt:
        self._check(after)
        if len(self.records) > after.place:
            return Attempt(False, await self.read(lane, after.place, len(self.records)))
        self._place(records)
        return Attempt(True, [Entry(after.place + n, raw) for n, raw in enumerate(records, 1)])

    def append_at_once(self, lane: int, records: Sequence[bytes], after: Entry) -> Attempt | None:
        return None

    async def read(self, lane: int, after: int, limit: int) -> list[Entry]:
        return [Entry(after + n, raw) for n, raw in enumerate(self.records[after : after + limit], 1)]

    async def fetch(self, lane: int, places: Sequence[int]) -> list[Entry]:
        if places and max(places) > len(self.records):
            raise LogRolledBack(f"place {max(places)} is gone: the tape ends at {len(self.records)}")
        return [Entry(place, self.records[place - 1]) for place in places]

    async def wait(self, lane: int, after: int, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                while len(self.records) <= after:
                    self._grown.clear()
                    await self._grown.wait()
        except TimeoutError:
            return

    async def close(self) -> None:
        return

    def _check(self, after: Entry) -> None:
        if len(self.records) < after.place or (after.place and self.records[after.place - 1] != after.raw):
            raise LogRolledBack(
                f"what was read at place {after.place} is gone or changed: restore the log's newest copy"
            )

    def _place(self, records: Sequence[bytes]) -> None:
        self.records.extend(records)
        self._grown.set()


Fate = Callable[[bytes], str]
"""Decides what becomes of a record: ``now``, ``late`` (behind the next append, or at `settle`), ``twice``, ``never``,
or the same followed by ``?`` where the writer is not told (``now?``, ``late?``, ``twice?``, ``never?``)."""


class UnconditionalMemoryTape(MemoryTape):
    """For tests: no condition on appends, and a `Fate` for each record, as with a broker that times out."""

    conditional = False

    def __init__(self, fate: Fate = lambda raw: "now") -> None:
        super().__init__()
        self.fate = fate
        self.late: list[bytes] = []

    async def append(self, lane: int, records: Sequence[bytes], after: Entry) -> Attempt:
        self._check(after)
        unsure, late, self.late = False, self.late, []
        for raw in records:
            fate = self.fate(raw)
            unsure |= fate.endswith("?")
            match fate.rstrip("?"):
                case "late":
                    self.late.append(raw)
                case "twice":
                    self._place([raw, raw])
                case "now":
                    self._place([raw])
        self._place(late)
        if unsure:
            raise Indefinite("no answer came in time")
        return Attempt(True, [])

    def settle(self) -> None:
        """What was late lands now."""
        late, self.late = self.late, []
        self._place(late)
