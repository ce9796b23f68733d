"""The contract of views, over every implementation."""

from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_party.eventstore.reading import Commit
from agent_party.projections.backends.views_memory import MemoryViews
from agent_party.projections.backends.views_sqlite import SqliteViews
from agent_party.projections.projection import Add, Delete, Put, Read, Views, Write


class Named:
    """A projection of this name and version."""

    def __init__(self, name: str = "p", version: int = 1) -> None:
        self.name, self.version = name, version

    async def writes(self, commit: Commit, read: Read) -> Iterable[Write]:
        return ()


P, Q = Named("p"), Named("q")


@pytest.fixture(params=["memory", "sqlite"])
async def views(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Views]:
    made: Views = MemoryViews() if request.param == "memory" else SqliteViews(tmp_path / "views.db", b"log")
    yield made
    await made.close()


async def apply(views: Views, *writes: Write, of: Named = P) -> None:
    before = await views.checkpoint(of)
    assert await views.apply(of, before, {0: before.get(0, 0) + 1}, writes)


async def test_put_merges_and_none_removes(views: Views) -> None:
    await apply(views, Put("v", "k", {"a": 1, "b": [1, "x", None, {"c": b"y"}]}), Put("v", "k", {"a": 2}))
    assert await views.get("v", "k") == {"a": 2, "b": [1, "x", None, {"c": b"y"}]}
    await apply(views, Put("v", "k", {"b": None, "d": True}))
    assert await views.get("v", "k") == {"a": 2, "d": True}
    assert await views.get("v", "other") is None
    assert await views.get("other", "k") is None


async def test_add_counts_from_nothing(views: Views) -> None:
    await apply(views, Add("v", "k", "n", 2), Add("v", "k", "n", -5), Add("v", "j", "n", 1))
    await apply(views, Add("v", "k", "n", 10))
    assert await views.get("v", "k") == {"n": 7}


async def test_delete(views: Views) -> None:
    await apply(views, Put("v", "k", {"a": 1}), Delete("v", "k"), Delete("v", "never"))
    assert await views.get("v", "k") is None
    await apply(views, Put("v", "k", {"a": 1}))
    await apply(views, Delete("v", "k"), Put("v", "k", {"b": 2}))
    assert await views.get("v", "k") == {"b": 2}


async def test_scan_is_sorted_and_limited(views: Views) -> None:
    keys = ["b", "a/2", "a/1", "a/ü", "a", "a0"]
    await apply(views, *(Put("v", key, {"k": key}) for key in keys), Put("w", "a/3", {}))
    assert [key for key, _ in await views.scan("v")] == ["a", "a/1", "a/2", "a/ü", "a0", "b"]
    assert await views.scan("v", "a/") == [(key, {"k": key}) for key in ("a/1", "a/2", "a/ü")]
    assert [key for key, _ in await views.scan("v", limit=2)] == ["a", "a/1"]
    assert [key for key, _ in await views.scan("v", limit=2, after="a/1")] == ["a/2", "a/ü"]
    assert [key for key, _ in await views.scan("v", "a/", after="a/1")] == ["a/2", "a/ü"]
    assert [key for key, _ in await views.scan("v", "a/", after="a")] == ["a/1", "a/2", "a/ü"]
    assert await views.scan("v", "a/", after="b") == []


async def test_only_what_follows_the_checkpoint_is_applied(views: Views) -> None:
    assert await views.checkpoint(P) == {}
    assert await views.apply(P, {}, {0: 3, 5: 1}, [Add("v", "k", "n", 1)])
    assert await views.checkpoint(P) == {0: 3, 5: 1}
    for before in ({}, {0: 3}, {0: 2, 5: 1}, {0: 3, 5: 1, 6: 0}):
        assert not await views.apply(P, before, {0: 9}, [Add("v", "k", "n", 100)])
    assert await views.get("v", "k") == {"n": 1}
    assert await views.apply(P, {0: 3, 5: 1}, {0: 4, 5: 1}, [Add("v", "k", "n", 1)])
    assert await views.get("v", "k") == {"n": 2}


async def test_what_cannot_be_written_leaves_everything_as_it_was(views: Views) -> None:
    await apply(views, Put("v", "k", {"a": 1}))
    before = await views.digest(P)

    def poisoned() -> Iterator[Write]:
        yield Put("v", "k", {"a": 2})
        yield Add("v", "k", "a", "text")  # type: ignore[arg-type]

    with pytest.raises(TypeError):
        await views.apply(P, {0: 1}, {0: 2}, poisoned())
    assert await views.digest(P) == before
    await apply(views, Put("v", "k", {"a": 3}))
    assert await views.get("v", "k") == {"a": 3}


async def test_projections_do_not_meet(views: Views) -> None:
    await apply(views, Put("v", "k", {"a": 1}))
    await apply(views, Put("w", "k", {"a": 2}), of=Q)
    await views.drop(P)
    assert await views.checkpoint(P) == {}
    assert await views.get("v", "k") is None
    assert await views.get("w", "k") == {"a": 2}


async def test_another_version_starts_anew(views: Views) -> None:
    await apply(views, Put("v", "old", {"a": 1}))
    newer = Named("p", 2)
    assert await views.checkpoint(newer) == {}
    await apply(views, Put("v", "new", {"a": 1}), of=newer)
    assert [key for key, _ in await views.scan("v")] == ["new"]
    assert not await views.apply(P, {0: 1}, {0: 2}, []), "the older program's checkpoint is gone"


async def test_the_digest_says_what_there_is(views: Views) -> None:
    empty = await views.digest(P)
    await apply(views, Put("v", "k", {"a": 1, "b": 2}))
    one = await views.digest(P)
    await apply(views, Put("v", "k", {"a": 2}))
    two = await views.digest(P)
    await views.drop(P)
    assert await views.digest(P) == empty
    await apply(views, Put("v", "k", {"b": 2}), Put("v", "k", {"a": 1}))
    assert await views.digest(P) == one
    assert len({empty, one, two}) == 3


async def test_the_digest_is_the_same_from_every_store(tmp_path: Path) -> None:
    memory, sqlite = MemoryViews(), SqliteViews(tmp_path / "views.db")
    writes: list[Any] = [Put("v", key, {"n": 1, "t": "x", "l": [1]}) for key in ("b", "ü", "a/1", "a", "B")]
    for views in (memory, sqlite):
        await apply(views, *writes, Add("v", "a", "n", 4), Delete("v", "b"))
    assert await memory.digest(P) == await sqlite.digest(P)
    await sqlite.close()


# SQLite alone


async def test_a_file_is_kept_for_its_own_log_only(tmp_path: Path) -> None:
    path = tmp_path / "views.db"
    for log, found in ((b"one", None), (b"one", {"a": 1}), (b"two", None)):
        views = SqliteViews(path, log)
        assert await views.get("v", "k") == found
        await apply(views, Put("v", "k", {"a": 1}))
        await views.close()


@pytest.mark.parametrize("junk", [b"no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5_000])
async def test_a_damaged_file_is_made_anew(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "views.db"
    path.write_bytes(junk)
    views = SqliteViews(path, b"log")
    assert await views.checkpoint(P) == {}
    await apply(views, Put("v", "k", {"a": 1}))
    await views.close()


async def test_two_processes_share_a_file(tmp_path: Path) -> None:
    one, two = SqliteViews(tmp_path / "views.db", b"log"), SqliteViews(tmp_path / "views.db", b"log")
    await apply(one, Put("v", "k", {"a": 1}))
    assert not await two.apply(P, {}, {0: 1}, [Put("v", "k", {"a": 2})])
    await apply(two, Put("v", "k", {"a": 3}))
    assert await one.get("v", "k") == {"a": 3}
    await one.close()
    await two.close()
