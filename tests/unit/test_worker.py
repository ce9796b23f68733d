"""The worker that carries commits into a sink."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest

from agent_party import Agent, Task
from agent_party.eventstore.errors import BlobError, StoreBusyError
from agent_party.projections import worker as workers
from agent_party.projections.agents_and_tasks import AgentsAndTasks
from agent_party.projections.backends.views_memory import MemoryViews
from agent_party.projections.projection import Add, Write
from agent_party.projections.sink import NO_LETTERS, Checkpoint, Letters, Named, Sizes
from agent_party.projections.worker import DEAD_LETTERS, Limits, Worker
from tests.unit.projections_kit import Counting, Crashing, Poisoning, Slow, counted, lived, streams
from tests.unit.world import World, a_world, until


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world() as world:
        yield world


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "BATCH", 7)


async def test_a_batch_size_changes_nothing(world: World) -> None:
    process = await lived(world)
    await process.host.leave()
    hashes = set()
    for size in (1, 3, 1_000):
        process.worker.limits = Limits(rows=size)
        hashes.add(await process.worker.rebuild())
    assert len(hashes) == 1


async def test_each_commit_counts_once_however_many_workers_race(world: World) -> None:
    process, views = await lived(world), Slow()
    await process.host.leave()
    one, two = (Worker(process.log, Counting(), views) for _ in range(2))
    await asyncio.gather(*(worker.catch_up() for worker in (one, two, one, two)))
    assert await counted(views) == await streams(process)


async def test_each_commit_counts_once_whenever_a_worker_crashes(world: World) -> None:
    process = await lived(world)
    await process.host.leave()
    for crashes in (["before", "after"] * 4, ["", "after", "", "before"], ["after"] * 6):
        views = Crashing(crashes)
        while True:
            try:
                await Worker(process.log, Counting(), views).catch_up()
                break
            except StoreBusyError:
                continue
        assert await counted(views) == await streams(process)


async def test_a_checkpoint_that_is_not_kept_with_its_writes_is_caught(world: World) -> None:
    """The planted bug: a store that applies whatever the checkpoint is."""

    class Careless(MemoryViews):
        async def apply(
            self,
            projection: Named,
            before: Checkpoint,
            after: Sizes,
            writes: Iterable[Write],
            letters: Letters = NO_LETTERS,
        ) -> Checkpoint | None:
            await asyncio.sleep(0)
            return await super().apply(projection, await self.checkpoint(projection), after, writes, letters)

    process = await lived(world)
    await process.host.leave()
    views = Careless()
    await asyncio.gather(*(Worker(process.log, Counting(), views).catch_up() for _ in range(2)))
    assert await counted(views) != await streams(process)


@pytest.mark.parametrize("kind", [Counting, Poisoning])
async def test_a_poisoned_commit_is_a_dead_letter_and_the_rest_goes_on(world: World, kind: type[Counting]) -> None:
    process, views = await lived(world), MemoryViews()
    await process.host.leave()
    worker = Worker(process.log, kind("task/fail"), views)
    await worker.catch_up()
    expected = await streams(process)
    del expected["task/fail"]
    assert await counted(views) == expected
    ((key, fields),) = await views.scan(DEAD_LETTERS)
    assert (key, fields["projection"], fields["stream"]) == ("counting/task/fail", "counting", "task/fail")
    assert fields["reason"] in ("ValueError", "TypeError")
    before = await views.digest(worker.projection)
    assert await worker.rebuild() == before


async def test_a_blob_that_is_missing_stops_only_its_commit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Agent("worker")

    @agent.on("work")
    async def work(task: Task, what: str) -> str:
        return what * 100_000

    process = await world.process(agent)
    await process.ask("big", "work", what="x")
    await process.finished("big")
    await process.ask("small", "work", what="")
    await process.finished("small")

    async def missing(name: bytes) -> bytes:
        raise BlobError("gone")

    monkeypatch.setattr(world.blobs, "get", missing)
    views = MemoryViews()
    await Worker(process.log, AgentsAndTasks(), views).catch_up()
    small = await views.get("task", "small")
    assert small is not None
    assert small["status"] == "completed"
    assert [fields["stream"] for _, fields in await views.scan(DEAD_LETTERS)] == ["task/big"]


async def test_a_newer_version_projects_everything_anew(world: World) -> None:
    process, views = await lived(world), MemoryViews()
    await process.host.leave()
    await Worker(process.log, Counting(), views).catch_up()
    await Worker(process.log, Counting(version=2), views).catch_up()
    assert await counted(views) == {name: 2 * n for name, n in (await streams(process)).items()}


async def test_a_log_that_is_shorter_than_the_checkpoint_is_projected_anew(world: World) -> None:
    process, views = await lived(world), MemoryViews()
    await process.host.leave()
    projection = Counting()
    assert await views.apply(projection, Checkpoint(), {0: 100_000, 1: 5}, [Add("commits", "task/phantom", "n", 1)])
    await Worker(process.log, projection, views).catch_up()
    assert await counted(views) == await streams(process)


async def test_the_worker_keeps_up_by_itself(world: World) -> None:
    process = await world.process()
    running = asyncio.ensure_future(process.worker.run())
    await process.ask("t", "work", x=1)

    async def seen() -> Any:
        return await process.views.get("task", "t")

    assert (await until(seen))["status"] == "requested"
    running.cancel()
    await asyncio.wait([running])
