"""What tests of the index share."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from agent_party.eventstore.errors import ConflictError
from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.log import Log, Writer
from tests.eventstore_kit import Site, notes, truth_of


def index_of(site: Site) -> Path:
    return site.folder / "party" / "index.db"


async def filled(site: Site, name: str = "index.db") -> tuple[Log, Writer]:
    log = await site.open(name)
    writer = await Issuer(log).writer("note/a")
    for revision in range(5):
        await log.append(writer, notes(f"text {revision + 1}"), expected=revision)
    log.index.flush()
    return log, writer


async def texts(log: Log, stream: str = "note/a") -> list[str]:
    return [event.text async for commit in log.read(stream) for event in commit.events]


def alter(path: Path, statement: str) -> None:
    with sqlite3.connect(path, timeout=120) as db:
        db.execute(statement)
    db.close()


def forget(log: Log) -> None:
    """From now on what is in the index file counts, not what is in memory."""
    log.index.flush()
    log.index._states.clear()


async def works(log: Log, writer: Writer, revision: int = 5) -> None:
    """Everything there is to do with a log, on a log with these commits."""
    assert await texts(log) == [f"text {n + 1}" for n in range(revision)]
    await log.append(writer, notes(f"text {revision + 1}"), expected=revision)
    with pytest.raises(ConflictError):
        await log.append(writer, notes("no"), expected=revision)
    assert log.streams("note/") == ["note/a"]
    async with asyncio.timeout(300):
        while not (rows := log.after({}, 1_000)):
            await log.changed(5)
    assert len(rows) == sum(log.index.sizes().values())
    assert len(await log.commits(rows)) == len(rows)
    assert (await truth_of(log)).rejected == []
