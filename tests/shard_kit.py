"""What tests of shard logs share: one over memory, ways to it that lose what goes by, and real ones on a Ray."""

import asyncio
from collections.abc import Callable, Sequence

from agent_party.cluster.shard_calls import Lost
from agent_party.cluster.shard_serving import Shard
from agent_party.eventstore.backends.memory import UnconditionalMemoryTape
from agent_party.eventstore.errors import LogRolledBack
from agent_party.eventstore.tape import Entry, Seen


class MemorySource:
    """The unconditional tape in memory as a shard log sees it. ``asked`` counts what it was asked for."""

    lanes = 1

    def __init__(self, tape: UnconditionalMemoryTape | None = None) -> None:
        self.tape = tape or UnconditionalMemoryTape()
        self.identity, self.found, self.fetch = self.tape.identity, self.tape.found, self.tape.fetch
        self.wait, self.close = self.tape.wait, self.tape.close
        self.asked: list[str] = []
        self.sent: list[int] = []

    async def check(self, lane: int, seen: Seen) -> None:
        self.asked.append("check")
        if seen.place and Seen.of((await self.tape.fetch(lane, [seen.place]))[0]).digest != seen.digest:
            raise LogRolledBack(f"place {seen.place} has changed")

    async def send(self, lane: int, records: Sequence[bytes], after: int) -> int:
        self.sent.append(len(records))
        await self.tape.append(lane, records, Entry(0, b""))
        return len(self.tape.records)

    async def read_behind(self, lane: int, seen: Seen, limit: int) -> tuple[list[Entry], Seen]:
        self.asked.append("read")
        await asyncio.sleep(0)
        if seen.place:
            await self.check(lane, seen if seen.digest else Seen.of((await self.fetch(lane, [seen.place]))[0]))
        entries = await self.tape.read(lane, seen.place, limit)
        return entries, Seen(entries[-1].place, Seen.of(entries[-1]).digest, 7) if entries else seen


class Way:
    """A line to a shard log in this process. ``fate(number)`` says what becomes of a message: ``pass``, ``lose`` it
    on the way there, lose the answer on its way ``back``, ``hang``; or nobody can be ``reached``."""

    def __init__(self, shard: Shard, fate: Callable[[int], str] = lambda number: "pass") -> None:
        self.shard, self.fate = shard, fate
        self.messages = 0

    async def ask(self, message: bytes) -> bytes:
        self.messages += 1
        match self.fate(self.messages):
            case "lose":
                raise Lost("lost on its way", sent=True)
            case "reached":
                raise Lost("nobody is there", sent=False)
            case "back":
                await self.shard.answer(message)
                raise Lost("its answer was lost")
            case "hang":
                await asyncio.Event().wait()
        await asyncio.sleep(0)
        return await self.shard.answer(message)
