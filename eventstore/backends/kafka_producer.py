"""Sending records with acks=all and idempotence: one producer id for this process, one batch of a lane on its way.

A batch is sent again, with the same numbers, only where a broker has answered that it may be: then the broker itself
sees that it is the same one. Where nobody answers, nobody knows, and the producer id is given up with the batch, so
that what comes later is not refused for a number that is missing (aiokafka #1017, #1039, #1101).
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..errors import StoreError
from ..tape import Indefinite
from . import kafka_errors as codes
from .kafka_batch import Sent, built
from .kafka_client import Client, NotSent, sending
from .kafka_wire import Placed, produce

_AT_ONCE = 4
"""Batches of a lane that are on their way at once. A broker knows a repeated one while it is among the last five."""
_BROKER_PATIENCE = 4_000
"""Milliseconds for which a leader waits for its followers; less than a request may take."""

Said = tuple[int, int] | BaseException
"""What came of sending a batch once: the leader's error code and the batch's first offset, or what was raised."""


class _Producer(NamedTuple):
    id: int
    epoch: int
    numbers: dict[int, int]


class Producer:
    """``made`` counts the producer ids that were needed so far. ``latest``: of each lane the batches that were sent
    last, until they are read back."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._producer: _Producer | None = None
        self._turn = asyncio.Lock()
        self._lanes: dict[int, asyncio.Lock] = {}
        self.made = 0
        self.latest: dict[int, list[Sent]] = {}

    async def send(self, lane: int, records: Sequence[bytes], leaving: Callable[[], None] | None = None) -> int:
        """Place records at a lane's end, in this order; the offset behind the last of them, 0 if it is not told.

        ``leaving`` is called when the last of them are about to. Raises `Indefinite` where some may have been placed,
        may be placed later, or twice; another `StoreError` if none was and none will be.
        """
        if lane not in self._lanes:
            self._lanes[lane] = asyncio.Lock()
        async with self._lanes[lane]:
            until, end, rest = asyncio.get_running_loop().time() + self._client.deadline, 0, list(records)
            while rest:
                producer = await self._made()
                batches = self._batches(lane, rest, producer)
                last = sum(len(batch.records) for batch in batches) == len(rest)
                try:
                    said = await self._said(lane, batches, until, leaving if last else None)
                    end, placed = await self._all_placed(lane, batches, said, producer, until)
                except asyncio.CancelledError:
                    self._give_up(producer)
                    raise
                except Indefinite:
                    raise
                except StoreError as error:
                    if len(rest) == len(records):
                        raise
                    raise Indefinite(f"the first {len(records) - len(rest)} records were placed: {error}") from error
                rest = rest[placed:]
            return end

    def _batches(self, lane: int, records: Sequence[bytes], producer: _Producer) -> list[Sent]:
        """The next batches to send, with their numbers."""
        number, begin, made = producer.numbers.get(lane, 0), 0, list[Sent]()
        while begin < len(records) and len(made) < _AT_ONCE:
            batch, count = built(records[begin:], producer.id, producer.epoch, number)
            made.append(Sent(batch, records[begin : begin + count]))
            number, begin = _behind(number, count), begin + count
        self.latest[lane] = made
        return made

    async def _said(
        self, lane: int, batches: Sequence[Sent], until: float, leaving: Callable[[], None] | None
    ) -> list[Said]:
        """What is said to batches that leave one behind the other, without waiting for an answer."""
        sending = [self._sent(lane, batch.batch, until) for batch in batches]
        tasks = [asyncio.create_task(one) for one in sending] if len(sending) > 1 else []
        if leaving:
            leaving()
        if tasks:
            return await asyncio.gather(*tasks, return_exceptions=True)
        try:
            return [await sending[0]]
        except StoreError as error:
            return [error]

    async def _all_placed(
        self, lane: int, batches: Sequence[Sent], said: Sequence[Said], producer: _Producer, until: float
    ) -> tuple[int, int]:
        """Send again, in order, what was not taken at first. The offset behind the last, 0 if it is not told; and how
        many records were placed: not all, where the brokers lost track and others must be numbered anew."""
        end, placed, gap = 0, 0, False
        for number, (batch, first) in enumerate(zip(batches, said, strict=True)):
            try:
                offset = await self._placed(lane, batch.batch, producer, until, first, gap=gap)
            except (_Lost, StoreError) as error:
                if any(map(_may_stand, said[number + 1 :])) or (placed and not isinstance(error, _Lost)):
                    raise Indefinite(f"{self._where(lane)}: others of the same append stand ({error})") from error
                if isinstance(error, _Lost):
                    return end, placed
                raise
            count, gap = len(batch.records), gap or first != (0, offset)
            producer.numbers[lane] = _behind(producer.numbers.get(lane, 0), count)
            end, placed = offset + count if offset >= 0 else 0, placed + count
        return end, placed

    async def _placed(
        self, lane: int, batch: bytes, producer: _Producer, until: float, said: Said, *, gap: bool
    ) -> int:
        """Send one batch until the brokers have it, after what was said to it already. Its first offset, or -1.

        ``gap``: one before it was not taken at first, so that the numbers of this one could not follow.
        """
        unsure: str = ""
        try:
            while True:
                if isinstance(said, BaseException):
                    raise said
                code, offset = said
                if code == 0:
                    return offset
                if code == codes.DUPLICATE_SEQUENCE:
                    return -1
                if code in codes.NEW_PRODUCER and gap:
                    gap, said = False, await self._sent(lane, batch, until)
                    continue
                if code in codes.NEW_PRODUCER and not unsure:
                    raise _Lost
                if code in codes.UNSURE or code in codes.NEW_PRODUCER:
                    unsure = str(codes.refused(code, self._where(lane)))
                await self._client.pause(until, code, self._where(lane))
                said = await self._sent(lane, batch, until)
        except _Lost:
            self._give_up(producer)
            raise
        except (StoreError, asyncio.CancelledError) as error:
            self._give_up(producer)
            if isinstance(error, Indefinite) or not unsure or not isinstance(error, StoreError):
                raise
            raise Indefinite(f"{self._where(lane)}: whether the records stand is unknown ({unsure})") from error

    async def _sent(self, lane: int, batch: bytes, until: float) -> tuple[int, int]:
        """Send one batch once: the leader's error code, and the batch's first offset."""
        node = await self._client.leader(lane, until)
        request = produce(self._client.address.topic, lane, batch, _BROKER_PATIENCE)
        try:
            answer: Placed = await self._client.send(node, request, sending(lane))
        except NotSent:
            return Placed(codes.NOT_SENT, -1)
        except (OSError, TimeoutError, self._client.error()) as error:
            raise Indefinite(f"{self._where(lane)}: no answer came in time ({error!r})") from error
        return answer

    async def _made(self) -> _Producer:
        from aiokafka.protocol.transaction import InitProducerIdRequest

        if self._producer is not None:
            return self._producer
        async with self._turn:
            if self._producer is None:
                answer = await self._client.retried(lambda: InitProducerIdRequest(None, 2_147_483_647))
                self.made += 1
                self._producer = _Producer(answer.producer_id, answer.producer_epoch, {})
            return self._producer

    def _give_up(self, producer: _Producer) -> None:
        if self._producer is producer:
            self._producer = None

    def _where(self, lane: int) -> str:
        return f"partition {lane} of {self._client.address.shown}"


class _Lost(Exception):
    """The brokers have lost track of this producer's numbers, and nothing was placed."""


def _behind(number: int, count: int) -> int:
    """The number that follows so many records."""
    return (number + count) & 0x7FFFFFFF


def _may_stand(said: Said) -> bool:
    """Whether a batch may have been placed, or may be later."""
    if isinstance(said, BaseException):
        return isinstance(said, Indefinite) or not isinstance(said, StoreError)
    return said[0] in (0, codes.DUPLICATE_SEQUENCE) or said[0] in codes.UNSURE
