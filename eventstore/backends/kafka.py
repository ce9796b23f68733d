"""The tape for many nodes: one Kafka topic, a lane for each partition. Unconditional: only reading shows what stands.

An append returns when all replicas in sync have the records in memory (acks=all); with three replicas and
``min.insync.replicas=2`` that survives the loss of any broker. A place is an offset plus one; places grow, and are not
dense. Reading is uncommitted, and nothing of Kafka's own (keys, headers, timestamps, transactions) is looked at.

Whoever may write to the topic may put anything there: the rule decides what counts, this tape only brings it.
"""

import contextlib
import logging
import os
from collections.abc import Sequence

from ..commit import SigningKey
from ..errors import LogMovedError, LogRolledBack, WrongLogError
from ..moves import mark, marked
from ..tape import Attempt, Entry, Indefinite, Seen
from ..verify import Identity, Malformed
from . import kafka_topic
from .kafka_address import PARTITIONS, KafkaAddress
from .kafka_client import Client, Topic
from .kafka_founding import Founding, founded, founding, is_founding
from .kafka_producer import Producer
from .kafka_reader import Reader

_logger = logging.getLogger(__name__)
_LOOK = 10_000
"""How many records before the founding message are passed over in looking for it."""


class KafkaTape:
    """See the module's text. ``lanes`` is known once `identity`, `found` or anything else has been answered."""

    conditional = False

    def __init__(self, address: KafkaAddress) -> None:
        self.address = address
        self.lanes = address.partitions or PARTITIONS
        self.client = Client(address)
        self.producer, self.reader = Producer(self.client), Reader(self.client)
        self.reader.fetching.own = self.producer.latest
        self._topic: Topic | None = None
        self._founding: Founding | None = None
        self._checked = self.to_the_mark = False
        self._marked: dict[int, str] = {}

    async def identity(self) -> Identity | None:
        if not await self._is_there():
            return None
        found = await self._founded()
        if found is None:
            return None
        assert self._topic
        if self._topic.partitions < found[0].partitions:
            raise LogRolledBack(
                f"{self.address.shown} has {self._topic.partitions} partitions, and the log was founded over "
                f"{found[0].partitions}: it is not the topic it was; see docs/kafka.md"
            )
        self._founding, self.lanes = found[0], found[0].partitions
        return found[0].log

    async def found(self, log: Identity) -> None:
        if await self.identity() is not None:
            raise WrongLogError(f"{self.address.shown} holds a log already")
        await self._make()
        assert self._topic
        if await self._holds_anything():
            raise WrongLogError(
                f"{self.address.shown} holds records of something else: name a topic that is empty, or does not exist"
            )
        mine = founding(log, self._topic.partitions, os.urandom(16))
        self.reader.stands(0, await self.producer.send(0, [mine]))
        found = await self._founded()
        if found is None or found[1] != mine:
            raise WrongLogError(f"another process has just founded a log on {self.address.shown}")
        self._founding, self.lanes = found[0], self._topic.partitions

    async def append(self, lane: int, records: Sequence[bytes], after: Entry) -> Attempt:
        await self.check(lane, Seen.of(after))
        await self.send(lane, records, after.place)
        return Attempt(True, [])

    async def check(self, lane: int, seen: Seen) -> None:
        """`LogRolledBack` if what a writer has read last is gone or changed."""
        await self._make()
        if seen.place and self.reader.last(lane, seen.place).digest != seen.digest:
            (now,) = await self.reader.fetch(lane, [seen.place])
            if Seen.of(now).digest != seen.digest:
                raise LogRolledBack(
                    f"partition {lane} of {self.address.shown}: what was read at place {seen.place} has changed; see "
                    "docs/kafka.md"
                )

    async def send(self, lane: int, records: Sequence[bytes], after: int) -> int:
        """Place records at a lane's end, as `append` does, and ask for what will stand behind ``after`` meanwhile.

        The place of the last of them, 0 if it is not told.
        """
        await self._make()
        end = await self.producer.send(lane, records, lambda: self.reader.look_ahead(lane, after))
        self.reader.stands(lane, end)
        return end

    def append_at_once(self, lane: int, records: Sequence[bytes], after: Entry) -> Attempt | None:
        return None

    async def read(self, lane: int, after: int, limit: int) -> list[Entry]:
        if not await self._is_there():
            return []
        entries = await self.reader.read(lane, after, limit)
        for number, entry in enumerate(entries):
            if self._founding and (went := marked(entry.raw, self._founding.log)) is not None:
                self._marked[lane] = went
                if number or self.to_the_mark:
                    return entries[:number]
                raise LogMovedError(f"the log of {self.address.shown}", went)
        return entries

    async def read_behind(self, lane: int, seen: Seen, limit: int) -> tuple[list[Entry], Seen]:
        """As `read`, for one who has read elsewhere up to there; and what to say next time."""
        self.reader.resume(lane, seen)
        entries = await self.read(lane, seen.place, limit)
        last = Seen.of(entries[-1]) if entries else seen
        known = self.reader.last(lane, last.place)
        return entries, known if known.digest else last

    async def mark_moved(self, log: Identity, target: str, root: SigningKey) -> None:
        await self._make()
        ends = dict.fromkeys(range(self.lanes), 0)
        for lane in ends:
            while lane not in self._marked:  # whose record stands behind the mark reads the mark first
                with contextlib.suppress(Indefinite):
                    if not (entries := await self.read(lane, ends[lane], 2_000)):
                        self.reader.stands(lane, await self.producer.send(lane, [mark(log, target, root)]))
                    ends[lane] = entries[-1].place if entries else ends[lane]
        for went in self._marked.values():
            if went != target:
                raise LogMovedError(f"the log of {self.address.shown}", went)

    async def moved_to(self) -> str:
        return next(iter(self._marked.values()), "")

    async def fetch(self, lane: int, places: Sequence[int]) -> list[Entry]:
        if not places:
            return []
        if not await self._is_there():
            raise LogRolledBack(f"{self.address.shown} is gone, and records were read there before")
        return await self.reader.fetch(lane, places)

    async def wait(self, lane: int, after: int, timeout: float) -> None:
        await self.reader.wait(lane, after, timeout)

    async def close(self) -> None:
        await self.reader.close()
        await self.client.close()

    async def _is_there(self) -> bool:
        if self._topic is None and (topic := await self.client.topic()):
            await self._know(topic)
        return self._topic is not None

    async def _know(self, topic: Topic) -> None:
        self._topic, self.lanes = topic, topic.partitions
        await self.client.learn_topic()

    async def _make(self) -> None:
        """See that the topic is there and fit to be written; make it if there is none."""
        if self._checked:
            return
        if made := not await self._is_there():
            await kafka_topic.create(self.client)
            await self._know(await self.client.until_there())
        assert self._topic
        checked = await kafka_topic.check(self.client, *self._topic)
        kafka_topic.refuse(checked, self.address)
        if made:
            for warning in checked.warnings:
                _logger.warning("%s: %s", self.address.shown, warning)
        self._checked = True

    async def _founded(self) -> tuple[Founding, bytes] | None:
        """The first founding message in the first lane, if there is one."""
        offset, seen, fetching = 0, 0, self.reader.fetching
        while True:
            page = await fetching.page(0, offset, foundings=True)
            for entry in page.entries:
                if is_founding(entry.raw):
                    try:
                        return founded(entry.raw), entry.raw
                    except Malformed:
                        continue
            seen += len(page.entries)
            if (page.epoch is None and offset >= fetching.ends.get(0, 0)) or seen > _LOOK:
                return None
            offset = page.next

    async def _holds_anything(self) -> bool:
        assert self._topic
        for lane in range(self._topic.partitions):
            if await Reader(self.client).read(lane, 0, 1):
                return True
        return False
