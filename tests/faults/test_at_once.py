"""Bugs planted in the way that does not wait: what is committed on the event loop is no less sure."""

import asyncio
from pathlib import Path

import pytest

from agent_party.eventstore import lanes
from agent_party.eventstore.errors import ConflictError
from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.log import Log, Writer
from tests.eventstore_kit import Site, notes, truth_of
from tests.faults.planted import AT_ONCE, planted

ROUNDS = 12


async def granted(site: Site) -> Writer:
    """A log with a stream, made before any bug is planted."""
    log = await site.open()
    writer = await Issuer(log).writer("note/a")
    await log.close()
    return writer


async def race(site: Site, writer: Writer) -> None:
    """Two processes write one stream in turns that neither knows of, and every answer is held against the chain."""
    logs = [await site.open(), await site.open("other.db")]
    acknowledged: list[bytes] = []
    refused: list[bytes] = []
    for number in range(ROUNDS):
        revision = (await logs[number % 2].state("note/a")).revision
        await asyncio.gather(*(_append(log, writer, revision, acknowledged, refused) for log in logs))
    chain = (await truth_of(logs[0])).data("note/a")
    ids = [record.header.commit_id for record in chain]
    assert sorted(acknowledged) == sorted(record.commit for record in chain), "acknowledged, and not in the chain"
    assert len(set(ids)) == len(ids), "one command stands twice"
    assert not set(refused) & set(ids), "told that it failed, and it is in the chain"
    assert len(chain) >= ROUNDS / 2
    fresh = await site.open("fresh.db")
    for log in logs:
        await log.refresh()
        assert await log.state("note/a") == await fresh.state("note/a")
        assert log.checkpoint() == fresh.checkpoint()


async def _append(log: Log, writer: Writer, expected: int, told: list[bytes], refused: list[bytes]) -> None:
    identifier = log.ambient.random(16)
    try:
        appended = await log.append(writer, notes("x"), expected=expected, commit_id=identifier, deadline=120)
        assert appended.position < log.index.position(appended.slice)
        assert log.index.find(b"note/a", appended.commit) == appended.position
        told.append(appended.commit)
    except ConflictError:
        refused.append(identifier)


async def test_two_processes_that_race(tmp_path: Path) -> None:
    site = Site(tmp_path)
    await race(site, await granted(site))
    await site.close()


@pytest.mark.parametrize("bug", sorted(AT_ONCE))
async def test_a_planted_bug_is_noticed(bug: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(tmp_path)
    writer = await granted(site)
    monkeypatch.setattr(lanes, "Appender", planted(bug))
    with pytest.raises(AssertionError):
        await race(site, writer)
    await site.close()
