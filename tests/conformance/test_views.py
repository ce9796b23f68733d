"""What every store of views must do: one suite, a fixture for each backend."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent_party.projections.backends.views_memory import MemoryViews
from agent_party.projections.backends.views_sqlite import SqliteViews
from agent_party.projections.projection import Add, Delete, Put, Views, Write


class Named:
    """A projection by name and version only; the store never asks it for writes."""

    def __init__(self, name: str = "one", version: int = 1) -> None:
        self.name, self.version = name, version

    def writes(self, commit: Any) -> list[Write]:
        """Nothing."""
        return []


@pytest.fixture(params=["memory", "sqlite"])
async def views(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Views]:
    """An empty store."""
    store: Views = MemoryViews() if request.param == "memory" else SqliteViews(tmp_path / "views.db")
    yield store
    await store.close()


class TestViews:
    async def test_starts_empty(self, views: Views) -> None:
        assert await views.checkpoint(Named()) == {}
        assert await views.get("task", "a") is None
        assert await views.scan("task") == []

    async def test_put_merges_and_none_removes_a_field(self, views: Views) -> None:
        writes: list[Write] = [Put("task", "a", {"x": 1, "y": [1, "two"]}), Put("task", "a", {"x": None, "z": b"\0"})]
        assert await views.apply(Named(), {}, {0: 1}, writes)
        assert await views.get("task", "a") == {"y": [1, "two"], "z": b"\0"}

    async def test_add_counts_within_and_across_batches(self, views: Views) -> None:
        assert await views.apply(Named(), {}, {0: 2}, [Add("n", "a", "sum", 2), Add("n", "a", "sum", 3)])
        assert await views.apply(Named(), {0: 2}, {0: 3}, [Add("n", "a", "sum", -1)])
        assert await views.get("n", "a") == {"sum": 4}

    async def test_delete_then_put_starts_anew(self, views: Views) -> None:
        assert await views.apply(Named(), {}, {0: 1}, [Put("v", "k", {"old": 1}), Put("v", "gone", {"x": 1})])
        writes: list[Write] = [Delete("v", "k"), Put("v", "k", {"new": 1}), Delete("v", "gone"), Delete("v", "never")]
        assert await views.apply(Named(), {0: 1}, {0: 2}, writes)
        assert await views.scan("v") == [("k", {"new": 1})]

    async def test_a_batch_counts_only_from_the_stored_checkpoint(self, views: Views) -> None:
        assert await views.apply(Named(), {}, {0: 1, 3: 2}, [Add("n", "a", "sum", 1)])
        for before in ({}, {0: 1}, {0: 1, 3: 1}):
            assert not await views.apply(Named(), before, {0: 9}, [Add("n", "a", "sum", 100)])
        assert await views.checkpoint(Named()) == {0: 1, 3: 2}
        assert await views.get("n", "a") == {"sum": 1}

    async def test_of_many_who_race_for_one_checkpoint_one_wins(self, views: Views) -> None:
        wins = await asyncio.gather(
            *(views.apply(Named(), {}, {0: 1}, [Add("n", "a", "sum", 1)]) for _ in range(10)),
        )
        assert sum(wins) == 1
        assert await views.get("n", "a") == {"sum": 1}

    async def test_scan_is_by_prefix_and_sorted(self, views: Views) -> None:
        writes = [Put("v", key, {"k": key}) for key in ("b/2", "a/1", "b/10", "b/\u00e9", "c")]
        assert await views.apply(Named(), {}, {0: 1}, writes)
        assert [key for key, _ in await views.scan("v", "b/")] == ["b/10", "b/2", "b/\u00e9"]
        assert [key for key, _ in await views.scan("v", limit=2)] == ["a/1", "b/10"]

    async def test_another_version_starts_anew(self, views: Views) -> None:
        assert await views.apply(Named(), {}, {0: 5}, [Put("v", "old", {"x": 1})])
        newer = Named(version=2)
        assert await views.checkpoint(newer) == {}
        assert await views.apply(newer, {}, {0: 1}, [Put("v", "new", {"x": 1})])
        assert await views.scan("v") == [("new", {"x": 1})]

    async def test_the_digest_tells_states_apart_and_equal_ones_not(self, views: Views) -> None:
        empty = await views.digest(Named())
        assert await views.apply(Named(), {}, {0: 1}, [Put("v", "a", {"x": 1, "y": 2}), Put("v", "b", {})])
        first = await views.digest(Named())
        await views.drop(Named())
        assert await views.digest(Named()) == empty
        assert await views.apply(
            Named(), {}, {0: 1}, [Put("v", "b", {}), Put("v", "a", {"y": 2}), Add("v", "a", "x", 1)]
        )
        assert await views.digest(Named()) == first
        assert await views.apply(Named(), {0: 1}, {0: 2}, [])
        assert await views.digest(Named()) != first

    async def test_projections_do_not_touch_each_other(self, views: Views) -> None:
        one, two = Named("one"), Named("two")
        assert await views.apply(one, {}, {0: 1}, [Put("v1", "a", {"x": 1})])
        assert await views.apply(two, {}, {0: 7}, [Put("v2", "a", {"x": 2})])
        await views.drop(one)
        assert (await views.checkpoint(one), await views.checkpoint(two)) == ({}, {0: 7})
        assert (await views.get("v1", "a"), await views.get("v2", "a")) == (None, {"x": 2})
