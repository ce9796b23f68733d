"""The contract of views, over every implementation."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_party.eventstore.reading import Commit
from agent_party.projections.backends.views_memory import MemoryViews
from agent_party.projections.backends.views_sqlite import SqliteViews
from agent_party.projections.projection import DEAD_LETTERS, Add, Delete, Put, Read, Views, Write
from agent_party.projections.sink import Checkpoint, Id, Letter
from tests.redis_kit import redis_views
from tests.sink_kit import moved


class Named:
    """A projection of this name and version."""

    def __init__(self, name: str = "p", version: int = 1) -> None:
        self.name, self.version = name, version

    async def writes(self, commit: Commit, read: Read) -> Iterable[Write]:
        return ()


P, Q = Named("p"), Named("q")


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def views(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Views]:
    if request.param == "redis":
        async with redis_views(request.getfixturevalue("services")) as redis:
            yield redis
        return
    made: Views = MemoryViews() if request.param == "memory" else SqliteViews(tmp_path / "views.db", b"log")
    yield made
    await made.close()


async def apply(views: Views, *writes: Write, of: Named = P) -> None:
    await moved(views, of, writes)


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
    await apply(views, Put("v", "", {"k": ""}))
    assert [key for key, _ in await views.scan("v", limit=2)] == ["", "a"]


async def test_only_what_follows_the_checkpoint_is_applied(views: Views) -> None:
    nothing = await views.checkpoint(P)
    assert (nothing.sizes, nothing.version, nothing.paused) == ({}, 0, "")
    first = await views.apply(P, nothing, {0: 3, 5: 1}, [Add("v", "k", "n", 1)])
    assert first == await views.checkpoint(P)
    assert first is not None
    assert (first.sizes, first.version) == ({0: 3, 5: 1}, 1)
    for before in (nothing, first._replace(turn=first.turn + 1), first._replace(turn=first.turn - 1)):
        assert await views.apply(P, before, {0: 9}, [Add("v", "k", "n", 100)]) is None
    assert await views.checkpoint(P) == first
    assert await views.get("v", "k") == {"n": 1}
    second = await views.apply(P, first, {0: 4, 5: 1}, [Add("v", "k", "n", 1)])
    assert second == await views.checkpoint(P)
    assert await views.get("v", "k") == {"n": 2}


async def test_of_many_who_follow_the_same_checkpoint_one_succeeds(views: Views) -> None:
    await apply(views, Add("v", "k", "n", 1))
    before = await views.checkpoint(P)
    for after in (before.sizes, {0: 2}):  # a replay leaves the sizes as they are
        tried = [views.apply(P, before, after, [Add("v", "k", "n", 1)]) for _ in range(8)]
        done = [one for one in await asyncio.gather(*tried) if one]
        assert len(done) == 1
        before = done[0]
    assert await views.get("v", "k") == {"n": 3}


async def test_what_cannot_be_written_leaves_everything_as_it_was(views: Views) -> None:
    await apply(views, Put("v", "k", {"a": 1}))
    before = await views.digest(P)

    def poisoned() -> Iterator[Write]:
        yield Put("v", "k", {"a": 2})
        yield Add("v", "k", "a", "text")  # type: ignore[arg-type]

    with pytest.raises(TypeError):
        await views.apply(P, await views.checkpoint(P), {0: 2}, poisoned())
    assert await views.digest(P) == before
    await apply(views, Put("v", "k", {"a": 3}))
    assert await views.get("v", "k") == {"a": 3}


async def test_projections_do_not_meet(views: Views) -> None:
    await apply(views, Put("v", "k", {"a": 1}))
    await apply(views, Put("w", "k", {"a": 2}), of=Q)
    assert await views.projections() == ["p", "q"]
    assert await views.read(P, "v", "k") == {"a": 1}
    assert await views.read(Q, "v", "k") is None
    await views.drop(P)
    assert (await views.checkpoint(P)).sizes == {}
    assert await views.get("v", "k") is None
    assert await views.get("w", "k") == {"a": 2}
    assert await views.projections() == ["q"]


async def test_a_view_of_two_projections_is_scanned_as_one(views: Views) -> None:
    await apply(views, Put("v", "b", {"a": 1}), Put("v", "d", {"a": 1}))
    await apply(views, Put("v", "a", {"a": 2}), Put("v", "c", {"a": 2}), of=Q)
    assert [key for key, _ in await views.scan("v", limit=3)] == ["a", "b", "c"]


async def test_a_turn_never_comes_back(views: Views) -> None:
    before, turns = await views.checkpoint(P), set[int]()
    for _ in range(2):
        await apply(views, Add("v", "k", "n", 1))
        turns.add((await views.checkpoint(P)).turn)
        await views.drop(P)
        turns.add((await views.checkpoint(P)).turn)
    assert len(turns) == 4
    assert await views.apply(P, before, {0: 1}, []) is None


async def test_what_stood_at_no_sizes_goes(views: Views) -> None:
    await apply(views, Put("v", "old", {"a": 1}))
    await views.drop(P)
    newer = Named("p", 2)
    assert await views.get("v", "old") is None
    await apply(views, Put("v", "new", {"a": 1}), of=newer)
    assert [key for key, _ in await views.scan("v")] == ["new"]
    assert (await views.checkpoint(P)).version == 2


async def test_paused_is_kept_and_moves_the_turn(views: Views) -> None:
    await apply(views, Add("v", "k", "n", 1))
    before = await views.checkpoint(P)
    await views.pause(P, "repair")
    paused = await views.checkpoint(P)
    assert (paused.paused, paused.sizes) == ("repair", before.sizes)
    assert await views.apply(P, before, {0: 2}, [Add("v", "k", "n", 1)]) is None, "what was under way does not land"
    await views.drop(P)
    assert (await views.checkpoint(P)).paused == "repair"
    await views.pause(P, "")
    assert (await views.checkpoint(P)).paused == ""
    await views.pause(Q, "never ran")
    assert (await views.checkpoint(Q)).paused == "never ran"
    assert await views.projections() == []


async def test_dead_letters_are_kept_until_they_are_none(views: Views) -> None:
    one, two = (Letter(f"task/{name}", 3, 0, 7, "ab" * 32, "ValueError") for name in "ab")
    before = await views.checkpoint(P)
    first = await views.apply(P, before, {0: 8}, [], {"task/b": two, "task/a": one})
    assert first
    assert await views.letters(P) == {"task/a": one, "task/b": two}
    assert [key for key, _ in await views.scan(DEAD_LETTERS)] == ["p/task/a", "p/task/b"]
    moved = one._replace(revision=4, position=9, reason="KeyError")
    second = await views.apply(P, first, {0: 8}, [], {"task/a": moved, "task/b": None})
    assert second
    assert await views.letters(P) == {"task/a": moved}
    assert await views.letters(Q) == {}


async def test_items_are_all_there_is_in_order(views: Views) -> None:
    await apply(views, *(Put(view, key, {"k": key}) for view in ("v", "w", "v2") for key in ("b", "ü", "a/1", "a")))
    await apply(views, Put("v", "other", {}), of=Q)
    found = await views.items(P)
    assert [name for name, _ in found] == [(view, key) for view in ("v", "v2", "w") for key in ("a", "a/1", "b", "ü")]
    assert all(fields == {"k": key} for (_, key), fields in found)
    paged, after = list[Any](), Id()
    while page := await views.items(P, after, 5):
        paged += page
        after = page[-1][0]
    assert paged == found


async def test_the_scratch_side_is_seen_by_nobody_until_it_is_swapped(views: Views) -> None:
    await apply(views, Put("v", "k", {"a": "old"}), Put("v", "gone", {}))
    scratch = views.beside()
    await apply(scratch, Put("v", "k", {"a": "new"}), Put("w", "added", {}))
    assert await views.get("v", "k") == await scratch.get("v", "k") == {"a": "old"}
    assert await views.get("w", "added") is None
    assert [key for key, _ in await views.scan("v")] == ["gone", "k"]
    assert await scratch.read(P, "v", "k") == {"a": "new"}
    live, new = await views.checkpoint(P), await scratch.checkpoint(P)
    digest = await scratch.digest(P)
    assert digest != await views.digest(P)
    assert not await views.swap(P, live._replace(turn=live.turn + 1), new)
    assert not await views.swap(P, live, new._replace(turn=new.turn + 1))
    assert await views.get("v", "k") == {"a": "old"}
    assert await views.swap(P, live, new)
    assert await views.digest(P) == digest
    assert await views.get("v", "k") == {"a": "new"}
    assert [key for key, _ in await views.scan("v")] == ["k"]
    assert await views.get("w", "added") == {}
    assert ((await scratch.checkpoint(P)).sizes, await scratch.projections()) == ({}, [])
    assert await views.apply(P, live, {0: 2}, []) is None, "what was read before the swap is not written after it"
    assert not await views.swap(P, await views.checkpoint(P), new)


async def test_a_swap_leaves_paused_what_is(views: Views) -> None:
    await apply(views, Put("v", "k", {"a": "old"}))
    await views.pause(P, "repair")
    scratch = views.beside()
    await apply(scratch, Put("v", "k", {"a": "new"}))
    assert (await scratch.checkpoint(P)).paused == ""
    assert await views.swap(P, await views.checkpoint(P), await scratch.checkpoint(P))
    assert (await views.checkpoint(P)).paused == "repair"
    assert await views.get("v", "k") == {"a": "new"}


async def test_a_watcher_is_told_of_a_change(views: Views) -> None:
    await apply(views, Put("v", "k", {"a": 1}))
    turn = (await views.checkpoint(P)).turn
    await asyncio.wait_for(views.changed(P, turn - 1, 600), 60)  # it has changed before
    await asyncio.wait_for(views.changed(P, turn, 0.05), 60)  # nothing comes
    for change in (apply(views, Put("v", "k", {"a": 2})), views.pause(P, "x"), views.drop(P)):
        turn = (await views.checkpoint(P)).turn
        waiting = asyncio.ensure_future(views.changed(P, turn, 600))
        await asyncio.sleep(0)
        await change
        await asyncio.wait_for(waiting, 60)


async def test_a_watcher_is_told_of_a_swap(views: Views) -> None:
    await apply(views.beside(), Put("v", "k", {"a": 2}))
    live = await views.checkpoint(P)
    waiting = asyncio.ensure_future(views.changed(P, live.turn, 600))
    await asyncio.sleep(0)
    assert await views.swap(P, live, await views.beside().checkpoint(P))
    await asyncio.wait_for(waiting, 60)


async def test_another_rebuild_takes_over_the_scratch_side(views: Views) -> None:
    scratch = views.beside()
    await apply(scratch, Put("v", "k", {"a": "one"}))
    first = await scratch.checkpoint(P)
    await scratch.drop(P)
    assert await scratch.apply(P, first, {0: 2}, []) is None
    assert not await views.swap(P, await views.checkpoint(P), first)


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


async def test_the_digest_is_the_same_from_every_store(views: Views) -> None:
    memory = MemoryViews()
    writes: list[Any] = [Put("v", key, {"n": 1, "t": "x", "l": [1]}) for key in ("b", "ü", "a/1", "a", "B")]
    for store in (memory, views):
        await apply(store, *writes, Add("v", "a", "n", 4), Delete("v", "b"))
    assert await memory.digest(P) == await views.digest(P)
    assert await memory.items(P) == await views.items(P)


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
    assert (await views.checkpoint(P)).sizes == {}
    await apply(views, Put("v", "k", {"a": 1}))
    await views.close()


async def test_two_processes_share_a_file(tmp_path: Path) -> None:
    one, two = SqliteViews(tmp_path / "views.db", b"log"), SqliteViews(tmp_path / "views.db", b"log")
    await apply(one, Put("v", "k", {"a": 1}))
    assert not await two.apply(P, Checkpoint(), {0: 1}, [Put("v", "k", {"a": 2})])
    await apply(two, Put("v", "k", {"a": 3}))
    assert await one.get("v", "k") == {"a": 3}
    await one.close()
    await two.close()
