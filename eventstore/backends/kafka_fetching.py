"""Fetching pages of a lane from its leader, and what an answer says about the lane itself.

A lane whose beginning was deleted, or whose end lies before what was read, is `LogRolledBack`. A leader that was
deposed and does not know it yet may say so too; it is known by its epoch, which is older than what was read.
"""

import asyncio
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from ..errors import LogRolledBack
from . import kafka_errors as codes
from .kafka_batch import Page, Sent, parsed, stamped
from .kafka_client import Client, NotSent
from .kafka_wire import Answer, fetch

PAGE = 1 << 20
"""Bytes of a lane that are fetched at once; a larger batch comes whole."""
_NEIGHBOURS = 64
"""Places between two that are fetched together rather than one by one."""
_ALL = 16 << 20
_UNCOMMITTED, _EARLIEST, _LATEST = 0, -2, -1


class Fetching:
    """Asks leaders for pages. ``ends``: the furthest end of each lane that a leader has told.

    ``own``: of each lane the batches that this process has sent last, until they are read back.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self.ends: dict[int, int] = {}
        self.own: dict[int, list[Sent]] = {}

    def where(self, lane: int) -> str:
        """The lane, for messages."""
        return f"partition {lane} of {self._client.address.shown}"

    async def page(
        self,
        lane: int,
        offset: int,
        *,
        most: int = PAGE,
        hold: float = 0,
        epoch: int = -1,
        foundings: bool = False,
        only: Sequence[int] | None = None,
        channel: Hashable = None,
    ) -> Page:
        """What stands at an offset and behind it, ``most`` bytes or one batch; held back for ``hold`` seconds at the
        lane's end. ``epoch``: the newest one that was read of this lane; ``only``: the places that are wanted;
        ``channel``: whose earlier requests are answered first."""
        asked = channel if channel is not None else ("fetch", hold > 0)
        until = asyncio.get_running_loop().time() + self._client.deadline
        while True:
            code, answer = await self._once(lane, offset, most, hold, asked, until)
            if answer:
                self.learn(lane, answer)
                return self.parsed(lane, answer, offset, foundings=foundings, only=only)
            if code == codes.OFFSET_OUT_OF_RANGE:
                await self.look_at_range(lane, offset, epoch, until)
                code = codes.NOT_LEADER
            await self._client.pause(until, code, self.where(lane))

    def parsed(
        self, lane: int, answer: Answer, offset: int, *, foundings: bool = False, only: Sequence[int] | None = None
    ) -> Page:
        """The page from an offset on that a leader has answered."""
        own = self.own.get(lane, []) if only is None else []
        page = parsed(answer.raw, offset, self.where(lane), foundings=foundings, own=own, only=only)
        if own and page.entries and page.entries[-1].raw is own[-1].records[-1]:
            del self.own[lane]
        return page

    async def stamped(self, lane: int, offset: int) -> tuple[int, list[tuple[float, bytes]]]:
        """Where to read on, and values with their times, in a topic that is no log: its beginning may be gone."""
        until = asyncio.get_running_loop().time() + self._client.deadline
        while True:
            code, answer = await self._once(lane, offset, PAGE, 0, ("fetch", False), until)
            if answer:
                return stamped(answer.raw, offset)
            if code == codes.OFFSET_OUT_OF_RANGE:
                offset, code = await self._bound(lane, _EARLIEST, until), codes.NOT_LEADER
            await self._client.pause(until, code, self.where(lane))

    async def places(self, lane: int, places: Sequence[int], *, epoch: int = -1) -> Page:
        """The entry at the first of these places, and those at the others, in order, that came with it;
        `LogRolledBack` if it is not there any more."""
        place = places[0]
        until = asyncio.get_running_loop().time() + self._client.deadline
        while True:
            page = await self.page(lane, place - 1, most=_most_for(places), epoch=epoch, only=places)
            if page.entries and page.entries[0].place == place:
                return page
            if page.epoch is not None:
                raise LogRolledBack(f"{self.where(lane)}: the record at place {place} is gone, others are there")
            await self.look_at_range(lane, place, epoch, until)  # a new leader shows what it has only by and by
            await self._client.pause(until, codes.NOT_LEADER, self.where(lane))

    async def several(self, lane: int, many: Sequence[Sequence[int]]) -> list[Page | None]:
        """As `places`, for several at once. None for those that are to be asked for alone, whatever the reason is."""
        until = asyncio.get_running_loop().time() + self._client.deadline
        node, topic = await self._client.leader(lane, until), self._client.address.topic
        asked = [fetch(topic, {lane: places[0] - 1}, _most_for(places), 0, all_lanes=_ALL) for places in many]
        try:
            answers = await self._client.send_all(node, asked, ("fetch", False))
        except (NotSent, OSError, TimeoutError, self._client.error()):
            return [None] * len(many)
        return [self._found(lane, places, found.get(lane)) for places, found in zip(many, answers, strict=True)]

    def _found(self, lane: int, places: Sequence[int], answer: Answer | None) -> Page | None:
        """What an answer brings, if the first of these places is in it."""
        if not answer or answer.code:
            return None
        self.learn(lane, answer)
        page = self.parsed(lane, answer, places[0] - 1, only=places)
        return page if page.entries and page.entries[0].place == places[0] else None

    async def _once(
        self, lane: int, offset: int, most: int, hold: float, channel: Hashable, until: float
    ) -> tuple[int, Answer | None]:
        node = await self._client.leader(lane, until)
        try:
            found = await self.ask(node, {lane: offset}, most, hold, channel)
        except NotSent:
            return codes.NOT_SENT, None
        except (OSError, TimeoutError, self._client.error()):
            return codes.TIMED_OUT, None
        answer = found.get(lane)
        if answer is None:
            return codes.UNKNOWN_TOPIC, None
        return (0, answer) if answer.code == 0 else (answer.code, None)

    async def ask(
        self, node: int, offsets: Mapping[int, int], most: int, hold: float, channel: Hashable
    ) -> dict[int, Answer]:
        """One request for several lanes of one leader, answered when there is something, or after ``hold`` seconds."""
        request = fetch(self._client.address.topic, offsets, most, int(hold * 1000), all_lanes=_ALL)
        answers: dict[int, Answer] = await self._client.send(node, request, channel)
        return answers

    def learn(self, lane: int, answer: Answer) -> None:
        """Look at what an answer says of the lane; `LogRolledBack` if its beginning was deleted."""
        if answer.start > 0:
            self._deleted(lane, answer.start)
        self.ends[lane] = max(self.ends.get(lane, 0), answer.high)

    async def look_for_end(self, lane: int, until: float) -> None:
        """Learn where the lane ends, when a page says that there is nothing more.

        A leader that has just taken over hands out only what it knows that all have, and that may be less than what
        others were told stands. Asked for the end, it waits until it knows (KIP-207).
        """
        end = await self._bound(lane, _LATEST, until)
        self.ends[lane] = max(self.ends.get(lane, 0), end)

    async def look_at_range(self, lane: int, offset: int, epoch: int, until: float) -> None:
        """What an offset that is out of range means; returns if its leader may be one that was deposed."""
        start = await self._bound(lane, _EARLIEST, until)
        if start > 0:
            self._deleted(lane, start)
        end = await self._bound(lane, _LATEST, until)
        if end < offset and not await self._is_deposed(lane, epoch, until):
            raise LogRolledBack(
                f"{self.where(lane)} ends at {end}, and {offset} records were read there before: acknowledged records "
                "are gone from the brokers. Stop every writer, see docs/kafka.md"
            )

    async def _bound(self, lane: int, which: int, until: float) -> int:
        """Where a lane begins or ends, as its leader says."""
        from aiokafka.protocol.offset import OffsetRequest

        asked = [(self._client.address.topic, [(lane, which)])]
        while True:
            code, answer = await self._asked(lane, OffsetRequest(-1, _UNCOMMITTED, asked), until)
            if answer:
                ((_, ((_, code, _, offset, *_),)),) = answer.topics
                if code == 0:
                    return int(offset)
            await self._client.pause(until, code, self.where(lane))

    async def _is_deposed(self, lane: int, epoch: int, until: float) -> bool:
        """Whether the leader that answers has an older epoch than what was read of its lane (KIP-320)."""
        if epoch < 0:
            return False
        fenced = fetch(self._client.address.topic, {lane: 0}, 1, 0, all_lanes=1, epoch=epoch)
        code, answer = await self._asked(lane, fenced, until)
        if answer and lane in answer:
            code = answer[lane].code
        return code in (codes.NOT_SENT, codes.TIMED_OUT, codes.NOT_LEADER, codes.UNKNOWN_LEADER_EPOCH)

    async def _asked(self, lane: int, request: Any, until: float) -> tuple[int, Any]:
        """A leader's answer, or the code for having none."""
        node = await self._client.leader(lane, until)
        try:
            return 0, await self._client.send(node, request, ("fetch", False))
        except NotSent:
            return codes.NOT_SENT, None
        except (OSError, TimeoutError, self._client.error()):
            return codes.TIMED_OUT, None

    def _deleted(self, lane: int, start: int) -> None:
        raise LogRolledBack(
            f"{self.where(lane)} begins at offset {start}: what stood before was deleted by retention or by hand, and "
            "with it a part of the log. Stop every writer, see docs/kafka.md"
        )


def _most_for(places: Sequence[int]) -> int:
    """How many bytes to ask for at the first of some places: one batch, unless the others are near."""
    return PAGE // 4 if len(places) > 1 and places[1] - places[0] <= _NEIGHBOURS else 1
