"""The sinks of views as subjects of `projecting`."""

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from agent_party.eventstore.reading import Commit
from agent_party.projections.backends.views_memory import MemoryViews
from agent_party.projections.backends.views_redis import RedisViews
from agent_party.projections.backends.views_sqlite import SqliteViews
from agent_party.projections.projection import Add, Put, Read, Views, Write
from agent_party.projections.sink import Projection
from tests.faults.projecting import STREAMS, Subject, dying_at


class Counting:
    """One more for the stream and one more in all, with each commit: adding, not setting."""

    name = "counting"
    version = 1

    async def writes(self, commit: Commit, read: Read) -> Iterable[Write]:
        last = (await read("last", commit.stream)).get("revision", 0)
        writes: list[Write] = [Add("sum", commit.stream, "n", 1), Add("sum", "", "n", 1)]
        if commit.revision:
            writes += [Put("last", commit.stream, {"revision": commit.revision}), Add("gaps", "", "n", 0)]
        if commit.revision and commit.revision != last + 1:
            writes.append(Add("gaps", "", "n", 1))
        return writes


class OfViews:
    """What the subjects that are views share."""

    def projection(self) -> Projection[Any, Any]:
        return Counting()

    async def sums(self, sink: Any) -> dict[str, int]:
        views: Views = sink
        gaps = await views.get("gaps", "")
        assert gaps in (None, {"n": 0}), f"a stream was projected with gaps: {gaps}"
        return {key: fields["n"] for key, fields in await views.scan("sum")}


class Memory(OfViews):
    """The reference: what it was lives as long as this object."""

    name = "memory"

    def __init__(self) -> None:
        self._stores: dict[Path, MemoryViews] = {}

    def open(self, folder: Path) -> Any:
        return self._stores.setdefault(folder, MemoryViews())

    def dying_inside(self, sink: Any) -> contextlib.AbstractContextManager[None]:
        return dying_at(sink, "_changed")

    def dying_inside_swap(self, sink: Any) -> contextlib.AbstractContextManager[None]:
        return dying_at(sink, "_of")

    async def edit(self, sink: Any) -> None:
        sink._of(Counting()).documents["sum", STREAMS[0]]["n"] += 1

    async def forget(self, folder: Path) -> None:
        self._stores.pop(folder, None)


class Sqlite(OfViews):
    """One file."""

    name = "sqlite"

    def open(self, folder: Path) -> Any:
        return SqliteViews(folder / "views.db", b"log")

    def dying_inside(self, sink: Any) -> contextlib.AbstractContextManager[None]:
        return dying_at(sink, "_write", after=True)

    def dying_inside_swap(self, sink: Any) -> contextlib.AbstractContextManager[None]:
        return dying_at(sink, "_empty", after=True)

    async def edit(self, sink: Any) -> None:
        fields = b"\x81\xa1n\x63"
        sink._db.execute("UPDATE document SET fields = ? WHERE view = 'sum' AND key = ?", (fields, STREAMS[0]))

    async def forget(self, folder: Path) -> None:
        return


class Redis(OfViews):
    """The server that the tests share. A script is applied as a whole, so there is no moment within it."""

    name = "redis"

    def __init__(self, url: str) -> None:
        self.url = url

    def open(self, folder: Path) -> Any:
        return RedisViews(f"{self.url}?prefix=test-{folder.name}-{abs(hash(str(folder)))}", b"log")

    def dying_inside(self, sink: Any) -> contextlib.AbstractContextManager[None]:
        return dying_at(sink._shared, "apply", after=False)

    def dying_inside_swap(self, sink: Any) -> contextlib.AbstractContextManager[None]:
        return dying_at(sink._shared, "swap", after=False)

    async def edit(self, sink: Any) -> None:
        redis, side = sink._shared.client, await sink._side(Counting())
        await redis.hset(sink._documents(side.generation)[0], f"sum\0{STREAMS[0]}", b"\x81\xa1n\x63")

    async def forget(self, folder: Path) -> None:
        views = self.open(folder)
        redis = views._shared.client
        async for key in redis.scan_iter(match=f"{views.prefix}*", count=1_000):
            await redis.unlink(key)
        await views.close()


def subjects(redis: str = "") -> dict[str, Subject]:
    """Every sink that can be put to the test here, by name."""
    made: list[Subject] = [Memory(), Sqlite()]
    if redis:
        made.append(Redis(redis))
    return {one.name: one for one in made}
