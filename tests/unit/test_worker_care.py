"""What people do with a projection: pause, replay, check, rebuild, share out; and how it limits itself."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest

from agent_party.cluster.projections import part_worker, projection_of, share_out, status, workers
from agent_party.eventstore.reading import Commit
from agent_party.projections import rebuilding, standing
from agent_party.projections.backends.views_memory import MemoryViews
from agent_party.projections.catalogue import PROJECTIONS
from agent_party.projections.errors import NewerProjectionError, SetAsideError
from agent_party.projections.parts import Part, split
from agent_party.projections.projection import Add, Put, Read, Write
from agent_party.projections.rebuilding import HELD
from agent_party.projections.sink import NO_LETTERS
from agent_party.projections.worker import BATCH, Limits, Worker
from tests.unit.projections_kit import Counting, counted, lived, streams
from tests.unit.world import Process, World, a_world


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world() as world:
        yield world


@pytest.fixture
async def process(world: World) -> Process:
    process = await lived(world)
    await process.host.leave()
    await process.log.refresh()
    return process


class Ordered(Counting):
    """Poisoned by one commit of a stream while ``bad``; it says when a stream comes out of order."""

    name = "ordered"

    def __init__(self) -> None:
        super().__init__()
        self.bad: tuple[str, int] = ("task/done", 2)

    async def writes(self, commit: Commit, read: Read) -> Iterable[Write]:
        if (commit.stream, commit.revision) == self.bad:
            raise ValueError("poisoned")
        last = (await read("last", commit.stream)).get("revision", 0)
        assert commit.revision in (0, last + 1), f"{commit.stream} {commit.revision} after {last}"
        moved = [Put("last", commit.stream, {"revision": commit.revision})] if commit.revision else []
        return [Add("commits", commit.stream, "n", 1), *moved]


@pytest.mark.parametrize("rows", [1, 2, 64])
async def test_a_stream_stands_at_its_dead_letter_until_it_is_replayed(process: Process, rows: int) -> None:
    views, projection = MemoryViews(), Ordered()
    worker = Worker(process.log, projection, views, Limits(rows=rows))
    await worker.catch_up()
    (letter,) = await worker.letters()
    assert (letter.stream, letter.revision, letter.reason) == ("task/done", 2, "ValueError")
    assert (await views.get("last", "task/done")) == {"revision": 1}, "what follows waits"
    rest = await streams(process)
    assert {**await counted(views), "task/done": rest["task/done"]} == rest, "everything else goes on"
    assert await worker.replay() == {"task/done": letter}, "nothing has been mended"
    projection.bad = ("task/done", 3)
    moved = (await worker.replay("task/done"))["task/done"]
    assert moved is not None
    assert moved.revision == 3
    projection.bad = ("", 0)
    assert await worker.replay() == {"task/done": None}
    assert await counted(views) == rest
    replayed = await views.digest(projection)
    assert await worker.rebuild() == replayed, "what replaying comes to is what a rebuild comes to"


async def test_two_who_replay_at_once_count_once(process: Process) -> None:
    views, projection = MemoryViews(), Ordered()
    await Worker(process.log, projection, views).catch_up()
    projection.bad = ("", 0)
    workers = [Worker(process.log, projection, views, Limits(rows=2)) for _ in range(3)]
    await asyncio.gather(*(worker.replay() for worker in workers), *(worker.catch_up() for worker in workers))
    assert await counted(views) == await streams(process)


async def test_too_many_dead_letters_set_the_projection_aside(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing, "MOST_LETTERS", 3)

    class Broken(Counting):
        async def writes(self, commit: Commit, read: Read) -> Iterable[Write]:
            raise KeyError

    worker = Worker(process.log, Broken(), MemoryViews(), Limits(rows=1))
    with pytest.raises(SetAsideError, match="cannot project 3 streams"):
        await worker.catch_up()
    assert len(await worker.letters()) == 3


async def test_what_is_paused_stands_still_in_every_process(process: Process) -> None:
    views = MemoryViews()
    one, two = (Worker(process.log, Counting(), views) for _ in range(2))
    await one.catch_up()
    before = await views.digest(one.projection)
    await views.pause(one.projection, "repair")
    await process.ask("later", "nobody", x=1)
    await asyncio.gather(one.catch_up(), two.catch_up())
    assert await views.digest(one.projection) == before
    assert (await one.lag()).commits > 0
    with pytest.raises(SetAsideError, match="is paused \\(repair\\)"):
        await one.replay()
    await views.pause(one.projection, "")
    await two.catch_up()
    assert (await one.lag()).commits == 0
    assert await counted(views) == await streams(process)


async def test_the_lag_is_told_in_commits_and_seconds(process: Process) -> None:
    views = MemoryViews()
    worker = Worker(process.log, Counting(), views)
    behind = await worker.lag()
    assert behind.commits == sum(process.log.index.sizes().values())
    assert behind.seconds > 0
    await worker.catch_up()
    assert await worker.lag() == (0, 0.0)


async def test_a_batch_ends_at_each_of_its_limits(process: Process) -> None:
    class Noting(MemoryViews):
        def __init__(self) -> None:
            super().__init__()
            self.taken: list[int] = []

        async def apply(self, projection: Any, before: Any, after: Any, writes: Any, letters: Any = NO_LETTERS) -> Any:
            self.taken.append(sum(after.values()) - sum(before.sizes.values()))
            return await super().apply(projection, before, after, writes, letters)

    total = sum(process.log.index.sizes().values())
    for limits in (Limits(rows=5), Limits(rows=1_000, bytes=1), Limits(rows=1_000, seconds=0)):
        views = Noting()
        await Worker(process.log, Counting(), views, limits).catch_up()
        assert sum(views.taken) == total
        assert max(views.taken) <= (5 if limits.rows == 5 else BATCH)


async def test_an_older_programs_projection_is_made_anew_beside_it(process: Process) -> None:
    views, seen = MemoryViews(), list[dict[str, int]]()
    await Worker(process.log, Counting(), views).catch_up()
    old = await counted(views)

    class Newer(Counting):
        async def writes(self, commit: Commit, read: Read) -> Iterable[Write]:
            seen.append(await counted(views))
            return await super().writes(commit, read)

    await Worker(process.log, Newer(version=2), views, Limits(rows=4)).catch_up()
    assert all(one == old for one in seen), "readers see the old one until the new one has caught up"
    assert await counted(views) == {name: 2 * n for name, n in old.items()}
    with pytest.raises(NewerProjectionError, match="newer program"):
        await Worker(process.log, Counting(), views).catch_up()


async def test_a_rebuild_waits_for_what_the_live_one_has_read_meanwhile(process: Process) -> None:
    asked, told = list[str](), list[int]()

    class Overtaken(Counting):
        """Whenever it comes to the newest commit there is one more, and the live side has it already."""

        async def writes(self, commit: Commit, read: Read) -> Iterable[Write]:
            if len(asked) < 2 and commit.stream == (f"task/{asked[-1]}" if asked else "task/done"):
                asked.append(await process.ask(f"more{len(asked)}", "nobody", x=1))
                await Worker(process.log, Counting(), views).catch_up()
            return await super().writes(commit, read)

    class Seen(MemoryViews):
        async def swap(self, projection: Any, live: Any, scratch: Any) -> bool:
            before = sum(live.sizes.values())
            done = await super().swap(projection, live, scratch)
            told.append(sum((await self.checkpoint(projection)).sizes.values()) - before)
            return done

    views = Seen()
    await Worker(process.log, Counting(), views).catch_up()
    await Worker(process.log, Overtaken(), views).rebuild()
    assert len(asked) == 2
    assert told == [0], "readers were taken back"
    assert await counted(views) == await streams(process)


async def test_who_holds_a_projection_and_dies_holds_it_no_longer(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuilding, "_HOLDS", 0.05)
    views = MemoryViews()
    worker = Worker(process.log, Counting(), views)
    await views.pause(worker.projection, HELD)
    await worker.catch_up()
    assert await counted(views) == await streams(process)


async def test_what_a_rebuild_left_behind_goes_when_it_does_not_move(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = MemoryViews()
    worker = Worker(process.log, Counting(), views)
    await Worker(process.log, Counting(), views.beside()).catch_up()
    await worker.rebuilding.clean()
    assert await views.beside().projections() == ["counting"], "it may still be alive"
    monkeypatch.setattr(rebuilding, "ABANDONED", 0.0)
    await worker.rebuilding.clean()
    assert await views.beside().projections() == []


@pytest.mark.parametrize("name", sorted(PROJECTIONS))
async def test_every_projection_checks_rebuilds_and_does_not_depend_on_batches(process: Process, name: str) -> None:
    hashes = set()
    for rows in (1, 3, 1_000):
        worker = Worker(process.log, PROJECTIONS[name](), MemoryViews(), Limits(rows=rows))
        await worker.catch_up()
        assert (await worker.check(MemoryViews())).ok
        hashes |= {await worker.sink.digest(worker.projection), await worker.rebuild()}
        held = repr(await worker.sink.items(worker.projection, limit=100_000))
        assert "DONE" not in held
    assert len(hashes) == 1


class Stores:
    """What the functions of `cluster.projections` ask of a stack."""

    def __init__(self, process: Process) -> None:
        self.log, self.views = process.log, MemoryViews()


async def test_parts_together_hold_what_the_whole_does(process: Process) -> None:
    whole = Worker(process.log, projection_of("results"), MemoryViews())
    await whole.catch_up()
    stack: Any = Stores(process)
    for owners in (1, 2, 1):
        await share_out(stack, "results", owners)
        carriers = [part_worker(stack, "results", Part(number, owners)) for number in range(owners)]
        await asyncio.gather(*(carrier.catch_up() for carrier in carriers))
        assert await stack.views.scan("result") == await whole.sink.scan("result")  # type: ignore[attr-defined]
        found = await workers(stack, "results")
        assert len(found) == owners
        assert [(await status(one)).lag.commits for one in found] == [0] * owners
        part = part_worker(stack, "results", Part(0, 2))
        if owners > 1:  # one who has not heard of it yet
            await part_worker(stack, "results", Part()).catch_up()
            assert await stack.views.scan("result") == await whole.sink.scan("result")  # type: ignore[attr-defined]
        assert part.projection.name == "results:0/2"


def test_a_part_is_named_after_its_share() -> None:
    assert split("results:1/4") == ("results", Part(1, 4))
    assert split("agents-and-tasks") == ("agents-and-tasks", Part())
    assert [list(Part(n, 3).slices(8)) for n in range(3)] == [[0, 1], [2, 3, 4], [5, 6, 7]]
