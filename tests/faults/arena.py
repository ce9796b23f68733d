"""Two shard logs that write the same streams, a nemesis, and the reckoning."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from agent_party.cluster.services import Broker
from agent_party.eventstore.audit import verify_log
from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.log import Log
from tests.eventstore_kit import Site, Truth, all_entries, judged
from tests.faults.clients import Client
from tests.faults.histories import TAKE, Recorder, Told, violations
from tests.faults.linearizable import ACKNOWLEDGED
from tests.faults.nemesis import Nemesis
from tests.faults.proxies import Proxy
from tests.faults.shard import Config, Shared
from tests.faults.shards import Shard

SHARDS = 2
BAD = ("lost", "duplicated", "chains broken", "unresolved", "other violations")
_DUPLICATED = {"duplicate", "two at one revision"}


class Arena:
    """``journal``: a Kafka URL, or empty for a SQLite file. ``bug``: planted in every writer."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        *,
        journal: str = "",
        brokers: Sequence[Broker] = (),
        streams: int = 48,
        at_once: int = 32,
        bug: str = "",
        say: Callable[[str], object] = lambda line: None,
    ) -> None:
        self.folder, self.brokers, self.order = folder, brokers, random.Random(seed)
        names = [f"note/{kind}{number}" for kind in ("shared", "taken") for number in range(streams // 2)]
        self._shared, self._taken = names[: streams // 2], names[streams // 2 :]
        self._config = Config(
            folder=str(folder),
            index="",
            history="",
            seed=seed,
            shared=[],
            taken=self._taken,
            journal=journal,
            at_once=at_once,
            bug=bug,
        )
        self._shards: list[Shard] = []
        self.found: list[str] = []
        self._say = say

    async def fight(self, faults: int | Sequence[str], appends: int = 0) -> Counter[str]:
        """Have faults done to it, these or so many, and go on until so many operations were acknowledged."""
        recorder = await self._prepared()
        counts: Counter[str] = Counter(faults=0)
        async with contextlib.AsyncExitStack() as stack:
            proxies = [
                await stack.enter_async_context(Proxy(int(broker.address.rpartition(":")[2])))
                for broker in self.brokers
            ]
            ways = {proxy.target: proxy.port for proxy in proxies}
            for number in range(SHARDS):
                self._shards.append(Shard(self._of(number, ways)))
                stack.push_async_callback(self._shards[-1].over)
                await self._shards[-1].start()
            await self._all_get_on()
            nemesis = Nemesis(self.order, self._shards, self.brokers, proxies)
            for name in nemesis.choose(faults) if isinstance(faults, int) else faults:
                self._say(name)
                await nemesis.strike(name)
                counts.update({"faults": 1, name: 1})
                await self._all_get_on()
            while (left := appends - sum(shard.acknowledged() for shard in self._shards)) > 0:
                await asyncio.gather(*(shard.gets_on(left // SHARDS + 1, 600) for shard in self._shards))
            await asyncio.gather(*(shard.end() for shard in self._shards))
        counts.update(await self._reckoned(recorder))
        return counts

    def _of(self, number: int, proxies: dict[int, int]) -> Config:
        seed = self._config.seed * SHARDS + number
        return msgspec.structs.replace(self._config, index=f"shard{number}.db", seed=seed, proxies=proxies)

    async def _all_get_on(self) -> None:
        await asyncio.gather(*(shard.gets_on() for shard in self._shards))

    async def _prepared(self) -> Recorder:
        """Found the log and grant the shared streams; the history of what is done here."""
        (self.folder / "histories").mkdir(parents=True)
        recorder = Recorder.to(self.folder / "histories" / "arena.jsonl")
        log = await self._config.site().open("arena.db")
        shared = []
        for stream in self._shared:
            number = recorder.begin(stream, TAKE)
            writer = await Issuer(log).writer(stream)
            recorder.end(number, ACKNOWLEDGED, writer.grant.hex())
            shared.append(Shared.of(writer))
        self._config = msgspec.structs.replace(self._config, shared=shared)
        await log.close()
        return recorder

    async def _reckoned(self, recorder: Recorder) -> Counter[str]:
        """Hold what everybody was told against what stands, read anew by the rule alone."""
        site = self._config.site()
        log = await site.open("fresh.db")
        shared = {each.stream: each.writer() for each in self._config.shared}
        client = Client(log, recorder, self.order, shared=shared, taken=self._taken)
        await client.touch()
        await client.settle()
        truth = judged(log.identity, [raw for lane in range(log.tape.lanes) for raw in await _raws(log, lane)])
        told = Told.of(sorted((self.folder / "histories").glob("*.jsonl")))
        counts: Counter[str] = Counter(dict.fromkeys(BAD, 0))
        counts.update(told.outcomes())
        for kind, what in violations(truth, told, over=True):
            self.found.append(f"{kind}: {what}")
            known = "duplicated" if kind in _DUPLICATED else kind
            counts[known if known in BAD else "other violations"] += 1
        counts["chains broken"] += await self._broken(site, log, truth)
        await site.close()
        return counts

    async def _broken(self, site: Site, log: Log, truth: Truth) -> int:
        """Chains that do not verify, and indexes that say something else than a new one."""
        audit = await verify_log(log)
        broken = int(not audit.ok or audit.commits != len(truth.accepted))
        await log.refresh()
        for number in range(SHARDS):
            kept = await site.open(f"shard{number}.db")
            broken += kept.checkpoint() != log.checkpoint()
        if broken:
            self.found.append(f"chains broken: {audit}")
        return broken


async def _raws(log: Log, lane: int) -> list[bytes]:
    return [entry.raw for entry in await all_entries(log.tape, lane)]
