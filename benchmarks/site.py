"""An embedded log in a temporary folder, and its check: what a benchmark wrote must be there and hold by the rule."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec

from agent_party.eventstore.backends.blob_memory import MemoryBlobs
from agent_party.eventstore.backends.sqlite import SqliteTape
from agent_party.eventstore.codec import Codec, event
from agent_party.eventstore.founding import open_log
from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.keyring import Keyring
from agent_party.eventstore.log import Log, Writer
from agent_party.eventstore.verify import DATA, Identity, Record, SliceState, StreamState, beginning, judge, parse

PAYLOAD = 500


@event("bench.written")
class Written(msgspec.Struct, frozen=True):
    """An event of some size."""

    data: bytes


@event("bench.counted")
class Counted(msgspec.Struct, frozen=True):
    """A small event."""

    by: int


def written(size: int = PAYLOAD) -> Written:
    """An event whose payload, before encryption, is this many bytes."""
    frame = len(msgspec.msgpack.encode(Written(bytes(size)))) - size
    filled = Written(b"\xa5" * (size - frame))
    assert len(msgspec.msgpack.encode(filled)) == size
    return filled


async def opened(folder: Path) -> Log:
    """The log in a folder, as one more process would open it."""
    return await open_log(
        SqliteTape(folder / "log.db"),
        Keyring(folder / "state"),
        journal="sqlite:///benchmark/log.db",
        index=folder / "index.db",
        blobs=MemoryBlobs(),
        codec=Codec([Written, Counted]),
    )


class Site:
    """An open log, writers for some streams, and how many commits and events each of them has by now."""

    def __init__(self, folder: Path, log: Log, writers: list[Writer]) -> None:
        self.folder, self.log, self.writers = folder, log, writers
        self.revisions = [0] * len(writers)
        self.events = [0] * len(writers)

    async def append(self, number: int, commits: int, events: Sequence[Written]) -> None:
        """Commits on one stream, one after the other."""
        for _ in range(commits):
            appended = await self.log.append(self.writers[number], events, expected=self.revisions[number])
            self.revisions[number] = appended.revision
            self.events[number] += len(events)

    async def append_to_all(self, streams: int, commits: int, events: Sequence[Written]) -> None:
        """So many commits on each of so many streams, all at once."""
        async with asyncio.TaskGroup() as group:
            for number in range(streams):
                group.create_task(self.append(number, commits, events))

    async def verify(self, content: Written) -> str:
        """Judge every record of the tape with its signature, then read every event back through a log opened anew."""
        await self.log.close()
        log = await opened(self.folder)
        try:
            accepted = judged(log.identity, [record.raw for record in await raws(log)])
            data = [record for record in accepted if record.header.kind == DATA]
            assert len(data) == sum(self.revisions), "acknowledged commits are missing, or there are more"
            for writer, revision, events in zip(self.writers, self.revisions, self.events, strict=True):
                commits = [commit async for commit in log.read(writer.stream)]
                assert [commit.revision for commit in commits] == list(range(1, revision + 1))
                assert [found for commit in commits for found in commit.events] == [content] * events
        finally:
            await log.close()
        return f"{len(accepted):,} records accepted by the rule, {sum(self.events):,} events read back equal"


@contextlib.asynccontextmanager
async def granted(folder: Path, log: Log, streams: int) -> AsyncIterator[Site]:
    """So many streams of a log granted to this process; the log is closed afterwards."""
    try:
        issuer = Issuer(log)
        writers = await asyncio.gather(*(issuer.writer(f"bench/n{number}") for number in range(streams)))
        yield Site(folder, log, writers)
    finally:
        await log.close()


@contextlib.asynccontextmanager
async def site(streams: int) -> AsyncIterator[Site]:
    """A new log with granted streams, deleted afterwards."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        async with granted(folder, await opened(folder), streams) as made:
            yield made


class Stored(msgspec.Struct, frozen=True):
    """A record's bytes and its place on the tape."""

    place: int
    raw: bytes


async def raws(log: Log, after: int = 0) -> list[Stored]:
    """What stands on the tape behind a place."""
    found: list[Stored] = []
    while entries := await log.tape.read(0, found[-1].place if found else after, 2_000):
        found += [Stored(entry.place, entry.raw) for entry in entries]
    return found


class Reader:
    """Whoever reads a tape by the rule: every record parsed and judged in tape order, signatures included."""

    def __init__(self, log: Identity) -> None:
        self.log = log
        self.parts: dict[int, SliceState] = {}
        self.states: dict[bytes, StreamState] = {}

    def read(self, records: Sequence[bytes]) -> list[Record]:
        """The records that stand on the tape next; raises if one is not accepted."""
        log, parts, states = self.log, self.parts, self.states
        accepted = []
        for raw in records:
            record = parse(raw)
            stream, part = record.header.stream, record.header.slice
            state = states.get(stream) or beginning(log, stream)
            verdict = judge(log, parts.get(part) or SliceState(), state, record)
            assert not verdict.finding, f"{stream.decode()} revision {record.header.revision}: {verdict.finding}"
            states[stream], parts[part] = verdict.stream, verdict.slice
            accepted.append(record)
        return accepted


def judged(log: Identity, records: Sequence[bytes]) -> list[Record]:
    """All records of a tape, if the rule accepts every one of them."""
    return Reader(log).read(records)
