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

_BROKER_PATIENCE = 4_000
"""Milliseconds for which a leader waits for its followers; less than a request may take."""


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
            self.latest[lane] = sent = list[Sent]()
            while rest:
                producer = await self._made()
                number = producer.numbers.get(lane, 0)
                batch, count = built(rest, producer.id, producer.epoch, number)
                sent.append(Sent(batch, rest[:count]))
                if leaving and count == len(rest):
                    leaving()
                try:
                    end = await self._placed(lane, batch, producer, until)
                except _Lost:
                    continue
                except Indefinite:
                    raise
                except StoreError as error:
                    if len(rest) == len(records):
                        raise
                    raise Indefinite(f"the first {len(records) - len(rest)} records were placed: {error}") from error
                producer.numbers[lane] = (number + count) & 0x7FFFFFFF
                end, rest = end + count if end >= 0 else 0, rest[count:]
            return end

    async def _placed(self, lane: int, batch: bytes, producer: _Producer, until: float) -> int:
        """Send one batch until the brokers have it. Its first offset, or -1."""
        unsure: str = ""
        try:
            while True:
                code, offset = await self._sent(lane, batch, until)
                if code == 0:
                    return offset
                if code == codes.DUPLICATE_SEQUENCE:
                    return -1
                if code in codes.NEW_PRODUCER and not unsure:
                    raise _Lost
                if code in codes.UNSURE or code in codes.NEW_PRODUCER:
                    unsure = str(codes.refused(code, self._where(lane)))
                await self._client.pause(until, code, self._where(lane))
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
