"""Whole commits through the log on Kafka, signed, encrypted and judged, beside a producer that only sends bytes."""

import asyncio
import secrets
import statistics
from collections.abc import Sequence

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from nacl.bindings import crypto_sign

from agent_party.eventstore.commit import SigningKey

from .kafka import GROUP, RECORD, Bare, kafka_site, several, topics
from .measure import Clock, Figure, Report, in_turns, ratios
from .site import PAYLOAD, Site, Written, written

LANES = 12


class Work:
    """What is done in a turn: on the log, and on bare producers."""

    def __init__(self, place: Site, streams: int, each: int, bare: Bare) -> None:
        self.place, self.streams, self.each, self.bare, self.event = place, streams, each, bare, written()
        self.used: list[float] = []
        self.records = [secrets.token_bytes(RECORD) for _ in range(streams)]
        self.spread = {lane: self.records[lane::LANES] for lane in range(min(LANES, streams))}

    async def at_once(self) -> float:
        """Commits of one event on every stream, each stream's one after the other. Commits a second."""
        with Clock() as clock:
            await self.place.append_to_all(self.streams, self.each, [self.event])
        self.used.append(self.streams * self.each / clock.used)
        return self.streams * self.each / clock.wall

    async def sent(self, *, parts: bool = False) -> float:
        """As many records in as many batches. ``parts``: each signed and encrypted first, and nothing else."""
        key = SigningKey.from_seed(bytes(32))
        with Clock() as clock:
            for _ in range(self.each):
                for raw in self.records if parts else ():
                    crypto_sign(raw[:64], key.secret)
                    AESGCM(raw[:32]).encrypt(bytes(12), raw[-PAYLOAD:], None)
                await self.bare.append_to_all(self.spread)
        return self.streams * self.each / clock.wall

    async def parts(self) -> float:
        """What no signed and encrypted append can do without."""
        return await self.sent(parts=True)

    async def one(self, _: Sequence[bytes]) -> None:
        """One commit."""
        await self.place.append(0, 1, [self.event])


async def kafka_log(quick: bool) -> Report:
    """Signed and encrypted appends through the log: many at once, one at a time, and at a steady rate."""
    rounds, streams, each, ones, commits = (2, 16, 2, 4, 2) if quick else (15, GROUP, 8, 60, 4)
    rates, loops, seconds = ([50], 1, 0.5) if quick else ([200], 5, 4.0)
    async with topics() as new, kafka_site(new(LANES), streams, 1_024) as place:
        bare, transacting = Bare(new(LANES)), Bare(new(1), transactional=True)
        for peer in (bare, transacting):
            await peer.start()
        work = Work(place, streams, each, bare)
        turns = {
            "at once": work.at_once,
            "sent": work.sent,
            "parts": work.parts,
            "one": several(work.one, ones, [b""]),
            "bare one": several(bare.append, ones, work.records[:1]),
            "transaction": several(lambda of: transacting.commit(of[0]), commits, work.records[:1]),
        }
        values = await in_turns(rounds, turns)
        for peer in (bare, transacting):
            await peer.producer.stop()
        half = max(50, int(statistics.median(values["at once"]) / 2) // 100 * 100)
        loop = {
            rate: [await _open_loop(place, work.event, rate, seconds) for _ in range(loops)] for rate in [*rates, half]
        }
        for number in range(streams):
            stand = [commit.revision async for commit in place.log.read(place.writers[number].stream)]
            assert stand == list(range(1, place.revisions[number] + 1))
    return Report(
        _figures(streams, values, work.used)
        + [figure for rate in loop for figure in _latencies(rate, half, loop[rate])],
        f"{sum(place.revisions):,} commits stand, each where it was acknowledged",
    )


def _figures(streams: int, values: dict[str, list[float]], used: list[float]) -> list[Figure]:
    part, at_once, one = "kafka log", f"{streams} streams at once", "one at a time"
    return [
        Figure(part, at_once, "commits/s", values["at once"]),
        Figure(part, f"{at_once}, for each processor second", "commits/s", used),
        Figure(part, f"{at_once} / bare aiokafka", "x", ratios(values["at once"], values["sent"])),
        Figure(part, f"{at_once} / sign, encrypt, send", "x", ratios(values["at once"], values["parts"])),
        Figure(part, f"{at_once} / a transaction a commit", "x", ratios(values["at once"], values["transaction"]), 20),
        Figure(part, one, "commits/s", values["one"]),
        Figure(part, f"{one} / bare aiokafka", "x", ratios(values["one"], values["bare one"])),
        Figure(part, f"{one} / a transaction a commit", "x", ratios(values["one"], values["transaction"]), 20),
        Figure(part, "bare aiokafka, the same batches", "records/s", values["sent"]),
        Figure(part, "sign, encrypt, send", "records/s", values["parts"]),
        Figure(part, "bare aiokafka, one at a time", "records/s", values["bare one"]),
        Figure(part, "a transaction a commit", "records/s", values["transaction"]),
    ]


def _latencies(rate: int, half: int, turns: list[list[float]]) -> list[Figure]:
    name = f"open loop, {rate} commits/s" + (" (half of what it can)" if rate == half else "")
    points = [statistics.quantiles(took, n=100) for took in turns]
    return [
        Figure("kafka log", f"{name}: p{percent}", "ms", [point[percent - 1] for point in points])
        for percent in (50, 99)
    ]


async def _open_loop(place: Site, event: Written, rate: int, seconds: float) -> list[float]:
    """Milliseconds from when each commit was due, on streams in turn, whether or not the ones before are done."""
    loop, took = asyncio.get_running_loop(), list[float]()
    free: asyncio.Queue[int] = asyncio.Queue()
    for number in range(len(place.writers)):
        free.put_nowait(number)
    began = loop.time()

    async def commit(number: int, due: float) -> None:
        await place.append(number, 1, [event])
        took.append((loop.time() - due) * 1000)
        free.put_nowait(number)

    async with asyncio.TaskGroup() as group:
        for count in range(int(rate * seconds)):
            due = began + count / rate
            if (early := due - loop.time()) > 0:
                await asyncio.sleep(early)
            group.create_task(commit(await free.get(), due))
    return took
