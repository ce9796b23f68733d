"""What others may put among a log's records, and that it changes nothing: no state, no tree, no export.

Whoever may write to a topic may put anything there. So may whoever has a key that was granted once, or is granted now:
what the rule accepts is the stream's next record under a grant in force, in the slice's own lane.
"""

import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import NamedTuple

from agent_party.eventstore.audit import Audit, verify_log
from agent_party.eventstore.commit import Draft, Payload, SigningKey, build
from agent_party.eventstore.export import export
from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.log import INLINE, Log, Writer
from agent_party.eventstore.verify import StreamState, check_export, parse
from tests.eventstore_kit import Site, all_entries, judged, notes
from tests.logs.making import Making, altered, joined

Put = Callable[[list[bytes]], Awaitable[None]]
"""Puts values behind what the log's only lane holds, past the log."""
STALE = frozenset({"stale"})


class Foreign(NamedTuple):
    """A value, and what the log's readers call it."""

    name: str
    raw: bytes
    finding: str


class Stage:
    """A log with a stream that was taken over, one whose writer was fenced, one that goes on; and an inbox."""

    def __init__(self, log: Log) -> None:
        self.log = log

    async def build(self) -> None:
        """Write what there is before the others come."""
        issuer = Issuer(self.log)
        self.old = await issuer.writer("note/taken")
        await self.write(self.old, 2)
        self.late = await self.next(self.old)
        self.new = await issuer.writer("note/taken")
        await self.write(self.new, 1)
        self.fenced = await issuer.writer("note/fenced")
        await self.write(self.fenced, 2)
        await issuer.fence("note/fenced", self.fenced.grant)
        self.open = await issuer.writer("note/open")
        self.forked = await self.next(self.open)
        await self.write(self.open, 3)

    async def write(self, writer: Writer, count: int) -> None:
        """Append commits."""
        for _ in range(count):
            revision = (await self.log.state(writer.stream)).revision
            await self.log.append(writer, notes("x"), expected=revision, deadline=300)

    async def next(self, writer: Writer, state: StreamState | None = None) -> bytes:
        """The record that a writer would send next, not sent."""
        state = state or await self.log.state(writer.stream)
        draft = Draft(writer.stream.encode(), [Payload(b"note.written", 1, b"y", None)], os.urandom(16), 1, bytes(32))
        return build(self.log.identity, draft, state.head, state.revision + 1, writer.grant, writer.key, INLINE).raw

    async def foreign(self) -> list[Foreign]:
        """One of each kind, but for what another lane or a broker is needed for."""
        stranger = SigningKey.from_seed(b"s" * 32)
        mine, records = await self.next(self.open), [entry.raw for entry in await all_entries(self.log.tape)]
        state = await self.log.state("note/open")
        return [
            *_garbage(mine),
            *_of_another_log(),
            *(Foreign("a replay", raw, "stale") for raw in records),
            Foreign("an ungranted key", altered(mine, stranger, grant=os.urandom(32)), "no-grant"),
            Foreign("an ungranted key under another's grant", altered(mine, stranger), "bad-signature"),
            Foreign("a key whose grant was overtaken", await self.next(self.old), "stale"),
            Foreign("a record that was sent before its writer's grant was overtaken", self.late, "stale"),
            Foreign("a key that was fenced", await self.next(self.fenced), "stale"),
            Foreign("a fork", altered(self.forked, self.open.key, revision=state.revision + 1), "stale"),
            Foreign("another slice", altered(mine, self.open.key, slice=parse(mine).header.slice ^ 1), "wrong-slice"),
            Foreign("a slice there is not", altered(mine, self.open.key, slice=65_535), "wrong-slice"),
            Foreign("an unknown format", altered(mine, self.open.key, format=9), "malformed"),
            Foreign("another body", twisted(mine), "body-mismatch"),
        ]


def twisted(raw: bytes) -> bytes:
    """The record's own header and signature over another body."""
    record = parse(raw)
    return joined(
        raw[2 : 2 + int.from_bytes(raw[:2])], record.signature, record.body[:-1] + bytes([record.body[-1] ^ 1])
    )


def _garbage(raw: bytes) -> Iterator[Foreign]:
    order = random.Random(7)
    for size in (0, 1, 2, 67, 300, 5_000):
        yield Foreign("garbage", order.randbytes(size), "malformed")
    for cut in (1, 100, len(raw) // 2):
        yield Foreign("a record cut off", raw[:-cut], "malformed")
    yield Foreign("a record with a byte more", raw + b"\0", "malformed")
    yield Foreign("text", b'{"type": "note.written", "text": "let me in"}', "malformed")


def _of_another_log() -> Iterator[Foreign]:
    making = Making(11, slices=16)
    for part in range(4, 16):
        making.certify(part)
    holder = making.grant(b"note/open")
    making.append(holder)
    yield from (Foreign("of another log", raw, "wrong-log") for raw in making.records)


class Picture(NamedTuple):
    """All that a log says."""

    export: bytes
    checkpoint: object
    states: list[StreamState]


async def picture(log: Log) -> Picture:
    """What a log says now."""
    states = [await log.state(stream) for stream in log.streams()]
    return Picture(await export(log), log.checkpoint(), states)


def own_findings(log: Log) -> Counter[str]:
    """What a log has found before there was anything foreign: its own records, sent again when answers were late."""
    found = +log.index.findings
    assert set(found) <= STALE
    return found


async def changes_nothing(site: Site, put: Put) -> Audit:
    """Put everything there is among a log's records, and see that nobody minds; what an audit says of it."""
    log = await site.open("open.db")
    stage = Stage(log)
    await stage.build()
    before, foreign, own = await picture(log), await stage.foreign(), own_findings(log)
    await put([each.raw for each in foreign])
    await log.refresh()
    assert await picture(log) == before
    fresh = await site.open("fresh.db")
    assert await picture(fresh) == before
    for reader in (log, fresh):
        assert +reader.index.findings == own + Counter(each.finding for each in foreign)
    await _goes_on(stage, put)
    return await _agreed(site, log)


async def _goes_on(stage: Stage, put: Put) -> None:
    """The next record is the writer's, though its header came first with another body; and the next, and the next."""
    log, coming = stage.log, await stage.next(stage.open)
    await put([twisted(coming), coming, coming])
    await log.refresh()
    assert (await log.state("note/open")).head == parse(coming).commit
    await stage.write(stage.open, 2)
    await stage.write(stage.new, 2)
    assert (await log.state("note/open")).revision == 6


async def _agreed(site: Site, log: Log) -> Audit:
    """What every reader says is what the rule says, and an export of it holds."""
    truth = judged(log.identity, [entry.raw for entry in await all_entries(log.tape)], lenient=True)
    fresh = await site.open("fresher.db")
    assert await picture(fresh) == await picture(log)
    for stream, state in truth.streams.items():
        assert await log.state(stream.decode()) == state
    assert sum(log.index.sizes().values()) == len(truth.accepted)
    assert check_export(await export(log), log.identity.root)["finding"] == ""
    audit = await verify_log(log)
    assert audit.ok, audit
    assert audit.findings == _in_short(+log.index.findings)
    return audit


def _in_short(findings: Counter[str]) -> dict[str, int]:
    """As an audit counts them."""
    short: Counter[str] = Counter()
    for finding, count in findings.items():
        short["stale" if finding in STALE else "foreign"] += count
    return dict(short)
