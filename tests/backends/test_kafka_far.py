"""Single places that lie far from each other: asked for several at once, and one by one where that brings nothing."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from agent_party.eventstore.backends import kafka_errors as codes
from agent_party.eventstore.backends.kafka import KafkaTape
from agent_party.eventstore.backends.kafka_wire import Answer, Answers
from agent_party.eventstore.errors import LogRolledBack
from agent_party.eventstore.tape import START, Entry
from tests.eventstore_kit import all_entries
from tests.kafka_kit import Place

EACH, BATCHES = 100, 24


@pytest.fixture
async def tape(topic: Place) -> KafkaTape:
    """Of batches that are further apart than what is fetched together."""
    tape = topic()
    for batch in range(BATCHES):
        await tape.append(0, [b"%d %d" % (batch, number) for number in range(EACH)], START)
    return tape


async def far(tape: KafkaTape) -> list[Entry]:
    return (await all_entries(tape))[EACH // 2 :: EACH]


class Pieces:
    """What leaves in one piece, and what becomes of the answers: ``harm(number, answers)`` once for each piece."""

    def __init__(self, tape: KafkaTape, harm: Any = None) -> None:
        self.sizes, self._send, self._harm = list[int](), tape.client.send_all, harm
        tape.client.send_all = self.send  # type: ignore[method-assign]

    async def send(self, node: int, requests: Sequence[Any], channel: Any) -> list[Any]:
        self.sizes.append(len(requests))
        answers = await self._send(node, requests, channel)
        return self._harm(len(self.sizes), answers) if self._harm else answers


async def test_far_places_are_asked_for_together(tape: KafkaTape) -> None:
    wanted, pieces = await far(tape), Pieces(tape)
    assert await tape.fetch(0, [entry.place for entry in wanted]) == wanted
    assert sum(pieces.sizes) == BATCHES - 1, "all but the first, which shows how far an answer reaches"
    assert len(pieces.sizes) < BATCHES / 4
    backwards = wanted[::-1]
    assert await tape.fetch(0, [entry.place for entry in backwards]) == backwards


def refused(number: int, answers: list[Any]) -> list[Any]:
    return [Answers({0: Answer(codes.NOT_LEADER, -1, -1, b"")}), *answers[1:]]


def nothing_there(number: int, answers: list[Any]) -> list[Any]:
    """As of a leader that does not show yet what it has."""
    return [Answers({0: answers[0][0]._replace(raw=b"")}), Answers(), *answers[2:]]


def something_else(number: int, answers: list[Any]) -> list[Any]:
    return answers[::-1]


def unanswered(number: int, answers: list[Any]) -> list[Any]:
    if number % 2:
        raise TimeoutError
    return answers


@pytest.mark.parametrize("harm", [refused, nothing_there, something_else, unanswered])
async def test_what_does_not_come_so_is_asked_for_alone(tape: KafkaTape, harm: Any) -> None:
    wanted, pieces = await far(tape), Pieces(tape, harm)
    async with asyncio.timeout(300):
        assert await tape.fetch(0, [entry.place for entry in wanted]) == wanted
    assert pieces.sizes


async def test_a_broken_connection_in_the_midst(tape: KafkaTape) -> None:
    wanted = await far(tape)

    def broken(number: int, answers: list[Any]) -> list[Any]:
        if number == 1:
            for connection in tape.client._client._conns.values():
                connection.close()
        return answers

    pieces = Pieces(tape, broken)
    async with asyncio.timeout(300):
        assert await tape.fetch(0, [entry.place for entry in wanted]) == wanted
    assert len(pieces.sizes) > 1


async def test_one_that_is_gone_among_them(tape: KafkaTape) -> None:
    places = [entry.place for entry in await far(tape)]
    async with asyncio.timeout(300):
        with pytest.raises(LogRolledBack, match="gone"):
            await tape.fetch(0, [*places, places[-1] + 10 * EACH])


async def test_a_lane_whose_beginning_was_deleted(tape: KafkaTape) -> None:
    def deleted(number: int, answers: list[Any]) -> list[Any]:
        return [Answers({0: answer[0]._replace(start=7)}) for answer in answers]

    wanted = await far(tape)
    Pieces(tape, deleted)
    with pytest.raises(LogRolledBack, match="begins at offset 7"):
        await tape.fetch(0, [entry.place for entry in wanted])
