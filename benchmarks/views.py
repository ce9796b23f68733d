"""Writes of a projection into Redis, beside a bare pipeline of the same writes in batches of the same size.

The bare one is what one would write by hand without any promise: a HSET and a ZADD for each document, a HINCRBY for
each sum, a SET for the checkpoint, in one MULTI. Ours besides merges fields, reads what it has to, and applies all of
it only at the turn it was made after.
"""

import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from agent_party.eventstore.reading import Commit
from agent_party.projections.backends.views_memory import MemoryViews
from agent_party.projections.projection import Add, Delete, Put, Read, Write

from .measure import Clock, Figure, Report, in_turns, ratios

DOCUMENTS = 5_000
_FIELDS = {"capability": "text.write", "agent": "writer", "status": "running", "created": 1_795_734_121_082_367}
Batch = list[Write]


class Measured:
    """What is applied."""

    name, version = "measured", 1

    async def writes(self, commit: Commit, read: Read) -> Iterable[Write]:
        return ()


def batches(count: int, size: int, first: int) -> list[Batch]:
    """Writes as of tasks: most put a document, one in four adds to a sum, a few delete."""
    made: list[Batch] = []
    for number in range(first, first + count):
        writes: Batch = []
        for at in range(number * size, (number + 1) * size):
            key = f"{at * 7919 % DOCUMENTS:08d}"
            if at % 4 == 3:
                writes.append(Add("count", f"status/{at % 50}", "n", 1))
            elif at % 41 == 0:
                writes.append(Delete("task", key))
            else:
                writes.append(Put("task", key, {**_FIELDS, "updated": at, "steps": at % 9}))
        made.append(writes)
    return made


async def views_in_redis(quick: bool) -> Report:
    """Batches of 500 writes, one after the other."""
    from redis.asyncio import Redis

    from agent_party.cluster.services import running
    from agent_party.projections.backends.views_redis import RedisViews

    rounds, count, size = (2, 2, 100) if quick else (21, 20, 500)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        given = os.environ.get("PARTY_BENCH_REDIS", "")
        started = None if given else running.start(Path(folder) / "services", ["redis"])
        url = given or (started.settings["views"] if started else "")
        views, reference = RedisViews(f"{url}?prefix=bench-{os.getpid()}", b"bench"), MemoryViews()
        bare = Redis.from_url(url)
        made = [batches(count, size, number * count) for number in range(rounds)]
        ours_next, bare_next = iter(made), iter(made)
        try:
            turns = {
                "ours": lambda: ours(views, next(ours_next)),
                "bare": lambda: by_hand(bare, next(bare_next)),
            }
            values = await in_turns(rounds, turns)
            for batch in (one for several in made for one in several):
                await apply(reference, batch)
            same = await reference.digest(Measured()) == await views.digest(Measured())
            assert same, "what Redis holds is not what the writes come to"
        finally:
            await views.drop(Measured())
            await bare.delete("bench-documents", "bench-names", "bench-sums", "bench-checkpoint")
            await bare.aclose()
            await views.close()
            if started:
                started.stop()
    part = "views in redis"
    return Report(
        [
            Figure(part, "writes / a bare pipeline", "x", ratios(values["ours"], values["bare"]), least=0.7),
            Figure(part, "writes of a projection", "writes/s", values["ours"]),
            Figure(part, "a bare pipeline", "writes/s", values["bare"]),
        ],
        f"{rounds * count * size:,} writes in batches of {size}: equal by hash to the same in memory",
    )


async def apply(views: Any, batch: Batch) -> None:
    """One batch, and the checkpoint one further."""
    before = await views.checkpoint(Measured())
    assert await views.apply(Measured(), before, {0: before.sizes.get(0, 0) + 1}, batch)


async def ours(views: Any, some: Sequence[Batch]) -> float:
    """Writes a second through the sink."""
    with Clock() as clock:
        for batch in some:
            await apply(views, batch)
    return sum(map(len, some)) / clock.wall


async def by_hand(redis: Any, some: Sequence[Batch]) -> float:
    """Writes a second through a bare pipeline."""
    with Clock() as clock:
        for number, batch in enumerate(some):
            async with redis.pipeline(transaction=True) as pipeline:
                for write in batch:
                    _by_hand(pipeline, write)
                pipeline.set("bench-checkpoint", number)
                await pipeline.execute()
    return sum(map(len, some)) / clock.wall


def _by_hand(pipeline: Any, write: Write) -> None:
    name = f"{write.view}\0{write.key}"
    match write:
        case Put(_, _, fields):
            pipeline.hset("bench-documents", name, msgspec.msgpack.encode(fields))
            pipeline.zadd("bench-names", {name: 0})
        case Add(_, _, field, amount):
            pipeline.hincrby("bench-sums", f"{name}\0{field}", amount)
        case Delete():
            pipeline.hdel("bench-documents", name)
            pipeline.zrem("bench-names", name)
