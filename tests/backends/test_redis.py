"""What views in Redis alone promise: refusals, lost connections, edits by hand."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from agent_party import Agent, Party, Task
from agent_party.eventstore.errors import StoreBusyError, StoreCorruptError, StoreError, WrongLogError
from agent_party.projections.backends import views_redis
from agent_party.projections.backends.views_memory import MemoryViews
from agent_party.projections.backends.views_redis import RedisViews
from agent_party.projections.projection import Add, Put
from agent_party.projections.worker import Limits, Worker
from tests.conformance.test_views import P, apply
from tests.redis_kit import forget, own_server, own_url, redis_views
from tests.services_kit import Services
from tests.unit.projections_kit import Counting, lived, streams
from tests.unit.world import World, a_world, until


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world() as world:
        yield world


@pytest.fixture
async def views(services: Services) -> AsyncIterator[RedisViews]:
    async with redis_views(services) as made:
        yield made


async def test_a_wrong_password_says_so_without_showing_any(services: Services) -> None:
    user, _, place = services.redis.removeprefix("redis://").rpartition("@")
    for login in ("", ":wrong-secret@", "nobody:wrong-secret@"):
        views = RedisViews(f"redis://{login}{place}", b"log")
        with pytest.raises(StoreError, match="put the name and the password into the URL") as refused:
            await views.checkpoint(P)
        assert "wrong-secret" not in str(refused.value)
        assert user.partition(":")[2] not in str(refused.value).replace("party:", "")
        await views.close()


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_redis_that_forgets_is_refused(tmp_path: Path, policy: str) -> None:
    async with own_server(tmp_path, "--maxmemory-policy", policy) as server:
        views = RedisViews(server.url, b"log")
        with pytest.raises(StoreError, match=f"{policy}.*CONFIG SET maxmemory-policy noeviction"):
            await views.checkpoint(P)
        async with Redis.from_url(server.url) as redis:
            assert await redis.dbsize() == 0
            await redis.config_set("maxmemory-policy", "noeviction")
        await apply(views, Put("v", "k", {}))
        await views.close()


async def test_another_partys_keys_are_refused(services: Services) -> None:
    url = own_url(services)
    mine, theirs = RedisViews(url, b"one"), RedisViews(url, b"two")
    await apply(mine, Put("v", "k", {"a": 1}))
    with pytest.raises(WrongLogError, match=r"another party.*prefix="):
        await apply(theirs, Put("v", "k", {"a": 2}))
    assert await mine.get("v", "k") == {"a": 1}
    async with Redis.from_url(services.redis) as redis:
        await redis.delete(f"{mine.prefix}source")
    nobodys = RedisViews(url, b"one")
    with pytest.raises(WrongLogError, match="nobody knows whose"):
        await nobodys.checkpoint(P)
    await forget(services, mine)
    for opened in (mine, theirs, nobodys):
        await opened.close()


async def test_a_redis_that_lost_everything_is_claimed_anew_by_whoever_writes_first(services: Services) -> None:
    url = own_url(services)
    before, after, theirs = RedisViews(url, b"one"), RedisViews(url, b"one"), RedisViews(url, b"two")
    await apply(before, Put("v", "k", {"a": 1}))
    await forget(services, before)
    await apply(before, Put("v", "k", {"a": 2}))
    assert await after.get("v", "k") == {"a": 2}, "a process that begins now does not take the keys for another's"
    await forget(services, before)
    await apply(theirs, Put("v", "k", {"a": 3}))
    with pytest.raises(WrongLogError, match="another party"):
        await apply(before, Put("v", "k", {"a": 4}))
    assert await theirs.get("v", "k") == {"a": 3}
    await forget(services, theirs)
    for opened in (before, after, theirs):
        await opened.close()


async def test_without_a_prefix_keys_are_named_after_the_log(services: Services) -> None:
    views = RedisViews(services.redis, bytes(range(32)))
    await apply(views, Put("v", "k", {}))
    assert views.prefix == "{party:0001020304050607}:"
    async with Redis.from_url(services.redis) as redis:
        assert await redis.exists("{party:0001020304050607}:side") == 1
    await forget(services, views)
    await views.close()


async def test_nobody_there_says_so(tmp_path: Path) -> None:
    views = RedisViews("redis://127.0.0.1:1", b"log")
    with pytest.raises(StoreError, match="cannot be reached"):
        await views.checkpoint(P)
    await views.close()


async def test_a_redis_that_does_not_answer_is_waited_for_only_so_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    monkeypatch.setattr(views_redis, "DEADLINE", 0.2)
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    views = RedisViews(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}", b"log")
    with pytest.raises(StoreBusyError, match="did not answer in time"):
        await views.checkpoint(P)
    await views.close()
    server.close()


async def test_the_worker_waits_while_redis_is_gone_and_says_so(
    tmp_path: Path, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "agent_party")
    process = await lived(world)
    async with own_server(tmp_path) as server:
        views = RedisViews(server.url, b"log")
        worker = Worker(process.log, Counting(), views)
        running = asyncio.ensure_future(worker.run())
        await until(worker.caught_up)
        server.stop()
        await process.ask("later", "nobody", x=1)
        await until(lambda: "waits: " in caplog.text)
        await server.start()  # with nothing in it: everything is projected anew

        async def seen() -> bool:
            try:
                return await views.get("commits", "task/later") is not None
            except StoreError:
                return False

        await until(seen)
        await until(lambda: "goes on" in caplog.text)
        running.cancel()
        await asyncio.wait([running])
        await process.host.leave()
        await worker.catch_up()
        assert {key: fields["n"] for key, fields in await views.scan("commits")} == await streams(process)
        await views.close()


async def test_a_batch_may_be_larger_than_a_scripts_stack(views: RedisViews) -> None:
    keys = [f"{n:06d}" for n in range(20_000)]
    await apply(views, *(Add("v", key, "n", 1) for key in keys))
    await apply(views, *(Add("v", key, "n", 1) for key in keys))
    assert [(key, fields["n"]) for key, fields in await views.scan("v", limit=30_000)] == [(key, 2) for key in keys]
    await views.drop(P)
    assert await views.scan("v") == []


async def test_an_apply_whose_answer_was_lost_counts_once(
    views: RedisViews, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = await lived(world)
    await process.host.leave()
    worker, script, lost = Worker(process.log, Counting(), views, Limits(rows=3)), views._shared.apply, [0]

    async def losing(*args: Any, **options: Any) -> Any:
        await script(*args, **options)
        lost[0] += 1
        if lost[0] % 2:
            raise TimeoutError
        return 1

    monkeypatch.setattr(views._shared, "apply", losing)
    for _ in range(50):
        try:
            await worker.catch_up()
            break
        except StoreBusyError:
            continue
    assert lost[0] > 4
    assert {key: fields["n"] for key, fields in await views.scan("commits")} == await streams(process)


async def test_two_clients_never_write_over_each_other(services: Services, views: RedisViews, world: World) -> None:
    process = await lived(world)
    await process.host.leave()
    other = RedisViews(views.url, b"log")
    workers = [Worker(process.log, Counting(), one) for one in (views, other, views, other)]
    await asyncio.gather(*(worker.catch_up() for worker in workers))
    assert {key: fields["n"] for key, fields in await views.scan("commits")} == await streams(process)
    await other.close()


async def test_what_cannot_be_applied_whole_leaves_everything_as_it_was(views: RedisViews) -> None:
    await apply(views, Add("v", "k", "n", 1))
    redis, side = views._shared.client, await views._side(P)
    documents, names = views._documents(side.generation)
    await redis.set(names, "hello")
    with pytest.raises(StoreCorruptError):
        await apply(views, Add("v", "other", "n", 1))
    assert await redis.hkeys(documents) == [b"v\0k"]
    assert await views.checkpoint(P) == side.checkpoint


@pytest.mark.parametrize("side", ["live", "scratch"])
async def test_a_swap_that_meets_a_change_does_nothing(
    services: Services, views: RedisViews, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await apply(views, Add("v", "k", "n", 1))
    await apply(views.beside(), Add("v", "k", "n", 10))
    other, script = RedisViews(views.url, b"log"), views._shared.swap

    async def met(*args: Any, **options: Any) -> Any:
        await apply(other if side == "live" else other.beside(), Add("v", "k", "n", 1))
        return await script(*args, **options)

    monkeypatch.setattr(views._shared, "swap", met)
    assert not await views.swap(P, await views.checkpoint(P), await views.beside().checkpoint(P))
    assert await views.get("v", "k") == {"n": 2 if side == "live" else 1}
    assert await views.beside().read(P, "v", "k") == {"n": 10 if side == "live" else 11}
    await other.close()


EDITS: dict[str, Callable[[str], tuple[Any, ...]]] = {
    "a document changed": lambda key: ("HSET", key, "commits\0task/done", b"\x81\xa1n\x63"),
    "a document that is none": lambda key: ("HSET", key, "commits\0task/done", "hello"),
    "a document gone": lambda key: ("HDEL", key, "commits\0task/done"),
    "a document added": lambda key: ("HSET", key, "commits\0task/phantom", b"\x81\xa1n\x01"),
    "a name gone": lambda key: ("ZREM", f"{key}:names", "commits\0task/done"),
    "a name added": lambda key: ("ZADD", f"{key}:names", 0, "commits\0task/phantom"),
    "all documents gone": lambda key: ("DEL", key),
    "something else in their place": lambda key: ("SET", key, "hello"),
}


@pytest.mark.parametrize("edit", EDITS)
async def test_an_edit_by_hand_is_found_and_mended(
    services: Services, views: RedisViews, world: World, edit: str
) -> None:
    process = await lived(world)
    await process.host.leave()
    worker = Worker(process.log, Counting(), views)
    await worker.catch_up()
    live = await views.digest(worker.projection)
    assert (await worker.check(MemoryViews())).ok
    key = views._documents((await views._side(worker.projection)).generation)[0]
    async with Redis.from_url(services.redis) as redis:
        if "something else" in edit:
            await redis.delete(key)
        await redis.execute_command(*EDITS[edit](key))  # type: ignore[no-untyped-call]
    if "something else" in edit:
        with pytest.raises(StoreCorruptError, match="party projection rebuild"):
            await worker.check(MemoryViews())
    else:
        found = await worker.check(MemoryViews())
        assert not found.ok
        assert found.differences
        if "document" in edit and "all" not in edit and "added" not in edit:
            assert found.differences[0].id == ("commits", "task/done")
    assert await worker.rebuild() == live
    assert (await worker.check(MemoryViews())).ok


async def test_a_party_over_views_in_redis(services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARTY_STATE", str(tmp_path / "state"))
    agent = Agent("greeter")

    @agent.on("greet")
    async def greet(task: Task, name: str) -> str:
        return f"hello {name}"

    url = own_url(services)
    stores: dict[str, Any] = {"journal": f"sqlite:///{tmp_path}/log.db", "views": url, "runtime": "local"}
    async with Party.open(agents=[agent], **stores) as party:
        task = await party.ask("greet", name="ada")
        assert await task.result() == "hello ada"
        rows = await party.stack.registry.tasks()
        assert [(row.id, row.status) for row in rows] == [(task.id, "completed")]
    async with Party.open(**stores) as again:
        assert await again.task(task.id).result() == "hello ada"
        views = again.stack.views
        assert isinstance(views, RedisViews)
        assert await views.get("task", task.id) is not None
        await forget(services, views)
