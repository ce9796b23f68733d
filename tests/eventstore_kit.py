"""What tests of the log share: sites that are opened again and again, and the truth as the rule alone tells it."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from agent_party.eventstore.ambient import Ambient
from agent_party.eventstore.backends.blob_memory import MemoryBlobs
from agent_party.eventstore.backends.memory import MemoryTape, UnconditionalMemoryTape
from agent_party.eventstore.backends.sqlite import SqliteTape
from agent_party.eventstore.blobs import Blobs
from agent_party.eventstore.codec import Codec, event
from agent_party.eventstore.founding import open_log
from agent_party.eventstore.keyring import Keyring
from agent_party.eventstore.log import Log
from agent_party.eventstore.tape import Entry, Tape
from agent_party.eventstore.verify import (
    DATA,
    Identity,
    Malformed,
    Record,
    SliceState,
    StreamState,
    beginning,
    judge,
    parse,
)

JOURNAL = "sqlite:///site/log.db"


@event("note.written")
class Note(msgspec.Struct, frozen=True):
    """The one event of these tests."""

    text: str


def notes(*texts: str) -> list[Note]:
    """Events with these texts."""
    return [Note(text) for text in texts]


class Site:
    """One user's machine: a keyring, a tape that outlives whoever opens it, blobs, an index that may be shared."""

    def __init__(self, folder: Path, kind: str = "sqlite", topic: Callable[[], Tape] | None = None) -> None:
        self.folder, self.kind, self.topic = folder, kind, topic
        self.blobs: Blobs = MemoryBlobs()
        self.memory = {"memory": MemoryTape, "unconditional": UnconditionalMemoryTape}.get(kind, MemoryTape)()
        self.logs: list[Log] = []

    @property
    def keyring(self) -> Keyring:
        """The keyring, as a new process finds it."""
        return Keyring(self.folder / "state")

    @property
    def file(self) -> Path:
        """The SQLite tape's file."""
        return self.folder / "party" / "log.db"

    @property
    def unconditional(self) -> UnconditionalMemoryTape:
        """The unconditional tape, for its fates."""
        assert isinstance(self.memory, UnconditionalMemoryTape)
        return self.memory

    def tape(self) -> Tape:
        """The tape, as a new process finds it."""
        if self.topic:
            return self.topic()
        return SqliteTape(self.file) if self.kind == "sqlite" else self.memory

    async def open(self, index: str = "index.db", *, tape: Tape | None = None, ambient: Ambient | None = None) -> Log:
        """Open the log as one more process would. The same ``index`` name means a shared index."""
        log = await open_log(
            tape or self.tape(),
            self.keyring,
            journal=JOURNAL,
            index=self.folder / "party" / index,
            blobs=self.blobs,
            codec=Codec([Note]),
            ambient=ambient,
        )
        self.logs.append(log)
        return log

    async def close(self) -> None:
        """Close every log that was opened here."""
        for log in self.logs:
            await log.close()


class Lost:
    """A fate: every record is lost, nobody is told, and the bytes are kept for those who want them to land yet."""

    def __init__(self) -> None:
        self.raws: list[bytes] = []

    def __call__(self, raw: bytes) -> str:
        self.raws.append(raw)
        return "never?"


class Truth(NamedTuple):
    """What stands on a tape by the rule alone: accepted records in order, and the states they lead to."""

    accepted: list[Record]
    rejected: list[str]
    streams: dict[bytes, StreamState]

    def data(self, stream: str) -> list[Record]:
        """The accepted data commits of a stream, in order."""
        return [r for r in self.accepted if r.header.kind == DATA and r.header.stream == stream.encode()]

    def commits(self) -> set[bytes]:
        """The hashes of all accepted commits."""
        return {record.commit for record in self.accepted}


def judged(log: Identity, raws: list[bytes], *, lenient: bool = False) -> Truth:
    """Apply the rule to every record of a tape, signatures included. ``lenient``: there may be what is no record."""
    parts: dict[int, SliceState] = {}
    truth = Truth([], [], {})
    for raw in raws:
        try:
            record = parse(raw)
        except Malformed:
            if not lenient:
                raise
            truth.rejected.append("malformed")
            continue
        stream, part = record.header.stream, record.header.slice
        state = truth.streams.get(stream) or beginning(log, stream)
        verdict = judge(log, parts.get(part, SliceState()), state, record)
        if verdict.finding:
            truth.rejected.append(verdict.finding)
            continue
        truth.streams[stream], parts[part] = verdict.stream, verdict.slice
        truth.accepted.append(record)
    return truth


async def all_entries(tape: Tape, lane: int = 0) -> list[Entry]:
    """Every entry of a lane."""
    found: list[Entry] = []
    while more := await tape.read(lane, found[-1].place if found else 0, 1_000):
        found += more
    return found


async def truth_of(log: Log) -> Truth:
    """The truth about an open log's tape."""
    return judged(log.identity, [entry.raw for entry in await all_entries(log.tape)])


async def until(condition: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
    """Wait for a condition, with a deadline."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 (the condition is whatever a test asks, not an event)
            await asyncio.sleep(0.002)
    assert condition(), what
