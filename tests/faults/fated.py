"""Any tape, with a fate for each record: late, twice, never, and a writer that is not told."""

from collections.abc import Sequence

from agent_party.eventstore.backends.memory import Fate
from agent_party.eventstore.tape import Attempt, Entry, Indefinite, Tape
from agent_party.eventstore.verify import Identity


class FatedTape:
    """Passes everything on to ``tape`` but what a `Fate` keeps back. An unconditional tape like any other."""

    conditional = False

    def __init__(self, tape: Tape) -> None:
        assert not tape.conditional
        self.tape = tape
        self.fate: Fate = lambda raw: "now"
        self.late: dict[int, list[bytes]] = {}

    @property
    def lanes(self) -> int:
        """As many as the tape has."""
        return self.tape.lanes

    @lanes.setter
    def lanes(self, lanes: int) -> None:
        self.tape.lanes = lanes

    async def identity(self) -> Identity | None:
        return await self.tape.identity()

    async def found(self, log: Identity) -> None:
        await self.tape.found(log)

    async def append(self, lane: int, records: Sequence[bytes], after: Entry) -> Attempt:
        unsure, now, late = False, list[bytes](), list[bytes]()
        for raw in records:
            fate = self.fate(raw)
            unsure |= fate.endswith("?")
            kind = fate.rstrip("?")
            now += {"now": [raw], "twice": [raw, raw]}.get(kind, [])
            late += [raw] if kind == "late" else []
        now, self.late[lane] = [*now, *self.late.get(lane, [])], late
        attempt = await self.tape.append(lane, now, after) if now else Attempt(True, [])
        if unsure:
            raise Indefinite("no answer came in time")
        return attempt

    def append_at_once(self, lane: int, records: Sequence[bytes], after: Entry) -> Attempt | None:
        return None

    async def read(self, lane: int, after: int, limit: int) -> list[Entry]:
        return await self.tape.read(lane, after, limit)

    async def fetch(self, lane: int, places: Sequence[int]) -> list[Entry]:
        return await self.tape.fetch(lane, places)

    async def wait(self, lane: int, after: int, timeout: float) -> None:
        await self.tape.wait(lane, after, timeout)

    async def close(self) -> None:
        await self.tape.close()
