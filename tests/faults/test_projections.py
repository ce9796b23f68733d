"""Exactly once at every crash point, and rebuilds that swap at once: a short run of the campaign for each sink, and
the bugs that it must catch."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent_party.eventstore.log import Log
from agent_party.projections.ahead import apply_to
from agent_party.projections.backends.views_memory import MemoryViews
from agent_party.projections.sink import Checkpoint, Named
from agent_party.projections.worker import Limits, Worker
from tests.campaigns import projections as campaign
from tests.faults.projecting import Died, Subject, a_log, rebuild_under_load, survive, truth
from tests.faults.projecting_views import Counting, Memory, subjects
from tests.services_kit import Services

SINKS = ["memory", "sqlite", "redis"]


@pytest.fixture(params=SINKS)
def subject(request: pytest.FixtureRequest) -> Subject:
    redis = request.getfixturevalue("services").redis if request.param == "redis" else ""
    return subjects(redis)[request.param]


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    async with a_log(tmp_path / "log", 60, 1) as made:
        yield made


async def test_every_commit_counts_once_wherever_a_worker_crashes(subject: Subject, tmp_path: Path) -> None:
    found = await campaign.injected(subject, tmp_path, range(30), seed=2)
    assert min(found[where] for where in ("before", "inside", "after", "whole")) > 10
    assert found["crashes"] > 30


@pytest.mark.parametrize("name", ["sqlite", "redis"])
def test_every_commit_counts_once_whenever_a_worker_is_killed(name: str, services: Services, tmp_path: Path) -> None:
    found = campaign.killed(subjects(services.redis)[name], tmp_path / "killed", 3, seed=3)
    assert found == {"kills": 3, "while it caught up": 2, "while it rebuilt": 1}


async def test_a_rebuild_under_load_swaps_at_once(subject: Subject, tmp_path: Path) -> None:
    found = await campaign.loaded(subject, tmp_path / "loaded", 5, seed=4)
    assert (found["rebuilt"], found["read"] >= 5, found["written"] > 0) == (5, True, True)


async def test_an_edit_by_hand_is_found_and_mended(subject: Subject, log: Log, tmp_path: Path) -> None:
    sink = subject.open(tmp_path)
    worker = Worker(log, subject.projection(), sink)
    await worker.catch_up()
    live = await sink.digest(worker.projection)
    assert (await worker.check(MemoryViews())).ok
    await subject.edit(sink)
    found = await worker.check(MemoryViews())
    assert not found.ok
    assert [one.id for one in found.differences] == [("sum", "note/s0")]
    assert await worker.rebuild() == live
    assert (await worker.check(MemoryViews())).ok
    await sink.close()
    await subject.forget(tmp_path)


# The bugs that must be caught


class Apart(MemoryViews):
    """Keeps the checkpoint apart from the writes: a crash in between applies them again."""

    async def apply(self, projection: Named, before: Checkpoint, after: Any, writes: Any, letters: Any = ()) -> Any:
        writes = list(writes)
        kept = self._of(projection)
        if kept.checkpoint.turn == before.turn and kept.checkpoint.sizes:
            for write in writes:
                apply_to(kept.documents, write)
            writes = []
        return await super().apply(projection, before, after, writes)


class InPieces(MemoryViews):
    """Swaps by emptying the live side and filling it again; somebody looks at each step of it."""

    def __init__(self) -> None:
        super().__init__()
        self.looked = asyncio.Event()

    async def scan(self, *args: Any, **options: Any) -> Any:
        self.looked.set()
        return await super().scan(*args, **options)

    async def swap(self, projection: Named, live: Checkpoint, scratch: Checkpoint) -> bool:
        new = self._of(projection, live=False)
        documents = self._of(projection, live=True).documents
        for name in [*documents.keys() - new.documents.keys(), *new.documents]:
            documents.pop(name, None)
            self.looked.clear()
            await self.looked.wait()
            if name in new.documents:
                documents[name] = dict(new.documents[name])
        return await super().swap(projection, live, scratch)


class Bugged(Memory):
    def __init__(self, kind: type[MemoryViews]) -> None:
        super().__init__()
        self._kind = kind

    def open(self, folder: Path) -> Any:
        return self._stores.setdefault(folder, self._kind())


async def test_a_checkpoint_apart_from_its_writes_is_caught(log: Log, tmp_path: Path) -> None:
    async def some() -> None:
        for number in range(30):
            await survive(Bugged(Apart), log, tmp_path / str(number), random.Random(number))

    with pytest.raises(AssertionError, match=r"counted twice|gaps"):
        await some()


async def test_a_swap_that_is_not_at_once_is_caught(log: Log, tmp_path: Path) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await rebuild_under_load(Bugged(InPieces), log, tmp_path, random.Random(1), 1)
    assert "a reader saw a mix" in repr(caught.value.exceptions) or "taken back" in repr(caught.value.exceptions)


async def test_a_rebuild_that_crashes_leaves_the_live_one_and_is_cleaned_up(
    subject: Subject, log: Log, tmp_path: Path
) -> None:
    sink = subject.open(tmp_path)
    worker = Worker(log, subject.projection(), sink, Limits(rows=5))
    await worker.catch_up()
    live = await sink.digest(worker.projection)
    scratch = sink.beside()
    half = Worker(log, subject.projection(), scratch, Limits(rows=5))
    await half.catch_up({part: size // 2 for part, size in log.index.sizes().items()})
    assert await scratch.projections() == [worker.projection.name]
    assert await sink.digest(worker.projection) == live
    assert await subject.sums(sink) == truth(log)
    assert await worker.rebuild() == live
    assert await scratch.projections() == []
    await sink.close()
    await subject.forget(tmp_path)


def test_dying_is_an_error_of_the_store() -> None:
    """So that no worker takes a crash for a poisoned commit."""
    assert issubclass(Died, Exception)
    assert Counting.name == "counting"
