"""Two shard logs over Kafka, whose records come late, twice or never: linearizable; and with planted bugs not."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from agent_party.eventstore import appending, lanes
from agent_party.eventstore.backends.kafka import KafkaTape
from agent_party.eventstore.backends.kafka_wire import Answer
from agent_party.eventstore.backends.memory import Fate
from agent_party.eventstore.errors import StoreBusyError
from agent_party.eventstore.tape import START
from tests.eventstore_kit import Site
from tests.faults.fated import FatedTape
from tests.faults.linearizable import ACKNOWLEDGED, CONFLICT, ENDED, UNKNOWN
from tests.faults.planted import planted
from tests.faults.two_logs import Outcome, two_logs

TURNS = 300
BUGS = ["ack on tape ack", "conflict on time-out", "counting an unread own position", "not-found taken as failed"]


@pytest.fixture
async def site(tmp_path: Path, topic: Callable[[], KafkaTape]) -> AsyncIterator[Site]:
    site = Site(tmp_path, "kafka", topic)
    yield site
    await site.close()


async def run(site: Site, monkeypatch: pytest.MonkeyPatch, seed: int = 3) -> Outcome:
    """In real time, so with little patience; one deadline in three is met by any store."""
    monkeypatch.setattr(appending, "PATIENCE", 0.1)
    tapes = [FatedTape(site.tape()) for _ in range(2)]
    logs = [await site.open(f"{number}.db", tape=tape) for number, tape in enumerate(tapes)]

    def fated(fate: Fate) -> None:
        for tape in tapes:
            tape.fate = fate

    async with asyncio.timeout(900):
        return await two_logs(logs, fated, seed, TURNS, 0.3, (0.05, 0.15, 2.0))


async def test_what_clients_were_told_is_linearizable(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = await run(site, monkeypatch)
    assert outcome.found == []
    outcomes = outcome.told.outcomes()
    assert min(outcomes[each] for each in (ACKNOWLEDGED, CONFLICT, ENDED, UNKNOWN)) > 0, outcomes


@pytest.mark.parametrize("bug", BUGS)
async def test_a_planted_bug_is_noticed(bug: str, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "Appender", planted(bug))
    try:
        outcome = await run(site, monkeypatch)
    except AssertionError:
        return
    assert outcome.found


def show_nothing(tape: KafkaTape, monkeypatch: pytest.MonkeyPatch, times: int) -> list[int]:
    """Have leaders show nothing, so many times, of what they have; how often they were asked."""
    fetching, asked = tape.reader.fetching, list[int]()
    ask = fetching.ask

    async def less(*question: Any) -> dict[int, Answer]:
        answers = await ask(*question)
        asked.append(len(answers))
        hidden = len(asked) <= times
        return {lane: answer._replace(high=0, raw=b"") for lane, answer in answers.items()} if hidden else answers

    monkeypatch.setattr(fetching, "ask", less)
    return asked


async def test_a_leader_that_shows_less_than_stands_is_asked_for_the_end(
    topic: Callable[[], KafkaTape], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that has just taken over, which hands out what it knows that all have (KIP-207)."""
    tape, reader = topic(), topic()
    await tape.append(0, [b"one", b"two", b"three"], START)
    asked = show_nothing(reader, monkeypatch, 3)
    assert [entry.raw for entry in await reader.read(0, 0, 10)] == [b"one", b"two", b"three"]
    assert len(asked) > 3


async def test_a_leader_that_never_shows_what_stands_is_busy(
    topic: Callable[[], KafkaTape], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that was deposed and does not know it: nothing was lost, and nobody waits for ever."""
    tape = topic()
    show_nothing(tape, monkeypatch, 1_000_000)
    await tape.append(0, [b"one"], START)
    tape.client.deadline = 1.0
    async with asyncio.timeout(60):
        with pytest.raises(StoreBusyError):
            await tape.read(0, 0, 10)
        with pytest.raises(StoreBusyError):
            await tape.fetch(0, [1])
