"""The worker and the projection of agents and tasks: each commit once, whoever crashes when."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest

from agent_party.eventstore.errors import StoreBusyError
from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.log import Log, Writer
from agent_party.eventstore.reading import Commit
from agent_party.projections.agents_and_tasks import AgentsAndTasks
from agent_party.projections.backends.views_sqlite import SqliteViews
from agent_party.projections.projection import Add, Projection, Sizes, Write
from agent_party.projections.worker import DEAD_LETTERS, Worker
from tests.eventstore_kit import Note, Site


class Sum:
    """Adds up what the notes say: a sum, not a merge, so that doing a commit twice shows."""

    name = "sum"
    version = 1

    def __init__(self, poison: str = "") -> None:
        self.poison = poison

    def writes(self, commit: Commit) -> Iterable[Write]:
        """One addition for each note."""
        for event in commit.events:
            if event.text == self.poison:
                raise KeyError(event.text)
            yield Add("sum", commit.stream, "total", int(event.text))


class Crashing(SqliteViews):
    """Fails at a random moment: before a batch is written, or after it was."""

    def __init__(self, path: Path, seed: int) -> None:
        super().__init__(path)
        self.random, self.crashes = random.Random(seed), 0

    async def apply(self, projection: Projection, before: Sizes, after: Sizes, writes: Iterable[Write]) -> bool:
        """As the real one, if it comes to that."""
        fate = self.random.choice(("before", "after", "fine"))
        done = await super().apply(projection, before, after, writes) if fate != "before" else False
        if fate != "fine":
            self.crashes += 1
            raise StoreBusyError(f"crashed {fate} the batch")
        return done


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    site = Site(tmp_path, "sqlite")
    opened = await site.open()
    yield opened
    await opened.close()


async def write(log: Log, streams: int, each: int) -> list[Writer]:
    """Notes 1 … each on every stream."""
    issuer = Issuer(log)
    writers = [await issuer.writer(f"note/n{n}") for n in range(streams)]

    async def fill(writer: Writer) -> None:
        for revision in range(each):
            await log.append(writer, [Note(str(revision + 1))], expected=revision)

    await asyncio.gather(*map(fill, writers))
    return writers


async def totals(views: SqliteViews) -> dict[str, int]:
    return {key: fields["total"] for key, fields in await views.scan("sum")}


async def test_every_commit_counts_once_with_workers_that_race(log: Log, tmp_path: Path) -> None:
    await write(log, 5, 20)
    stores = [SqliteViews(tmp_path / "views.db") for _ in range(4)]
    await asyncio.gather(*(Worker(log, Sum(), views).catch_up() for views in stores))
    assert await totals(stores[0]) == {f"note/n{n}": 210 for n in range(5)}
    for views in stores:
        await views.close()


@pytest.mark.parametrize("seed", range(15))
async def test_every_commit_counts_once_with_workers_that_crash(
    log: Log, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_party.projections.worker.BATCH", 3)
    await write(log, 3, 8)
    views = Crashing(tmp_path / "views.db", seed)
    while True:
        try:
            await Worker(log, Sum(), views).catch_up()
            break
        except StoreBusyError:
            continue
    assert views.crashes
    assert await totals(views) == {f"note/n{n}": 36 for n in range(3)}
    live = await views.digest(Sum())
    await views.close()
    fresh = SqliteViews(tmp_path / "fresh.db")
    assert await Worker(log, Sum(), fresh).rebuild() == live
    await fresh.close()


async def test_a_checkpoint_apart_from_its_writes_would_be_caught(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted bug: a store that applies whatever it is given, wherever its checkpoint stands."""
    await write(log, 2, 5)
    views = SqliteViews(tmp_path / "views.db")
    worker = Worker(log, Sum(), views)
    await worker.catch_up()
    forgetful = dict(await views.checkpoint(Sum()))

    async def always(projection: Projection) -> Sizes:
        return {}

    monkeypatch.setattr(views, "checkpoint", always)
    monkeypatch.setattr(views, "_checkpoint", lambda projection: {0: -1})
    assert not await views.apply(Sum(), forgetful, forgetful, [Add("sum", "note/n0", "total", 1)])
    monkeypatch.setattr(views, "_checkpoint", lambda projection: forgetful)
    assert await views.apply(Sum(), forgetful, forgetful, [Add("sum", "note/n0", "total", 1)])
    assert (await totals(views))["note/n0"] == 16, "the sum shows a commit that counted twice"
    await views.close()


async def test_a_poisoned_commit_becomes_a_dead_letter_and_the_rest_goes_on(log: Log, tmp_path: Path) -> None:
    (writer,) = await write(log, 1, 3)
    await log.append(writer, [Note("poison")], expected=3)
    await log.append(writer, [Note("10")], expected=4)
    views = SqliteViews(tmp_path / "views.db")
    await Worker(log, Sum("poison"), views).catch_up()
    assert await totals(views) == {"note/n0": 16}
    ((key, letter),) = await views.scan(DEAD_LETTERS)
    assert key.startswith("sum/")
    assert (letter["stream"], letter["revision"], letter["reason"]) == ("note/n0", 4, "KeyError")
    await views.close()


async def test_a_log_that_is_shorter_than_the_checkpoint_is_projected_anew(log: Log, tmp_path: Path) -> None:
    await write(log, 1, 3)
    views = SqliteViews(tmp_path / "views.db")
    await Worker(log, Sum(), views).catch_up()
    sizes = await views.checkpoint(Sum())
    ahead = {part: size + 5 for part, size in sizes.items()}
    assert await views.apply(Sum(), sizes, ahead, [Add("sum", "note/n0", "total", 1000)])
    await Worker(log, Sum(), views).catch_up()
    assert await totals(views) == {"note/n0": 6}
    assert await views.checkpoint(Sum()) == sizes
    await views.close()


async def test_a_new_version_is_projected_from_the_start(log: Log, tmp_path: Path) -> None:
    await write(log, 1, 3)
    views = SqliteViews(tmp_path / "views.db")
    await Worker(log, Sum(), views).catch_up()
    doubled = Sum()
    doubled.version = 2
    doubled.writes = lambda commit: [Add("sum", commit.stream, "total", 2 * int(e.text)) for e in commit.events]  # type: ignore[method-assign]
    await Worker(log, doubled, views).catch_up()
    assert await totals(views) == {"note/n0": 12}
    await views.close()


async def test_the_worker_runs_on_as_the_log_grows(log: Log, tmp_path: Path) -> None:
    (writer,) = await write(log, 1, 2)
    views = SqliteViews(tmp_path / "views.db")
    running = asyncio.create_task(Worker(log, Sum(), views).run())
    await log.append(writer, [Note("7")], expected=2)
    async with asyncio.timeout(10):
        while await totals(views) != {"note/n0": 10}:
            await log.changed(0.1)
    running.cancel()
    await asyncio.wait([running])
    await views.close()


async def test_unknown_events_do_not_stop_agents_and_tasks(log: Log, tmp_path: Path) -> None:
    await write(log, 1, 2)
    views: Any = SqliteViews(tmp_path / "views.db")
    sizes = await Worker(log, AgentsAndTasks(), views).catch_up()
    assert sum(sizes.values()) == sum(log.index.sizes().values())
    assert await views.scan(DEAD_LETTERS) == []
    await views.close()
