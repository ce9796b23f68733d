"""From record bytes to typed events: keys, blobs and upcasters applied, every byte checked on the way."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from . import sealing
from .backends.index_file import Row
from .blobs import Blobs
from .codec import Codec
from .datakeys import DataKeys
from .errors import CorruptLogError, DataKeyMissingError, PayloadError, SchemaError
from .tape import Tape
from .verify import AES_GCM, CONTROL, Cause, Event, Identity, Malformed, Record, parse, parse_body

TURN = 16
"""How many records are opened before others have a turn: half a millisecond's worth."""
T = TypeVar("T")


class Commit(NamedTuple):
    """One accepted commit, as its readers see it. ``time``: microseconds since 1970, claimed by its writer.

    ``control`` is the type and payload of a control commit, which has no revision and no events.
    """

    stream: str
    revision: int
    hash: bytes
    id: bytes
    digest: bytes
    time: int
    cause: Cause | None
    correlation: bytes
    authority: bytes
    events: tuple[Any, ...]
    control: tuple[str, bytes] | None
    slice: int
    position: int


class Opaque(NamedTuple):
    """An event whose class this program does not have, or whose data key is gone; shown, not understood."""

    type: str
    schema: int
    reason: str


def checked(raw: bytes, stream: bytes, commit: bytes) -> tuple[Record, list[Event]]:
    """Parse a record that was accepted before, and make sure that it still is that record."""
    try:
        record = parse(raw)
        events, root = parse_body(record)
    except Malformed as error:
        raise CorruptLogError("malformed", {"stream": stream.decode(), "commit": commit.hex()[:16]}) from error
    if record.commit != commit or record.header.stream != stream or root != record.header.body_root:
        at = {"stream": stream.decode(), "revision": record.header.revision, "commit": commit.hex()[:16]}
        raise CorruptLogError("body-mismatch" if record.commit == commit else "altered", at)
    return record, events


async def in_turns(items: Iterable[T]) -> AsyncIterator[T]:
    """The items, with a turn for others after each `TURN` of them, but not after the last."""
    for number, item in enumerate(items):
        if number and not number % TURN:
            await asyncio.sleep(0)
        yield item


async def fetched(tape: Tape, rows: Sequence[Row]) -> list[tuple[Row, bytes]]:
    """The record bytes of index rows, in the same order."""
    raws: dict[tuple[int, int], bytes] = {}
    for lane in {row.lane for row in rows}:
        places = [row.place for row in rows if row.lane == lane]
        raws |= {(lane, entry.place): entry.raw for entry in await tape.fetch(lane, places)}
    return [(row, raws[row.lane, row.place]) for row in rows]


class Opener:
    """Opens events for a holder of the data keys."""

    def __init__(self, log: Identity, keys: DataKeys, blobs: Blobs, codec: Codec) -> None:
        self._log, self._keys, self._blobs, self._codec = log, keys, blobs, codec

    async def commit(self, record: Record, events: list[Event], position: int, *, lenient: bool = False) -> Commit:
        """A record whose `checked` parts these are. ``lenient``: what cannot be understood comes as `Opaque`."""
        header = record.header
        control, opened = None, []
        if header.kind == CONTROL:
            control = (events[0].type.decode(), events[0].payload)
        else:
            for index, event in enumerate(events):
                try:
                    plaintext = await self.plaintext(record, index, event)
                    opened.append(self._codec.decode(event.type, event.schema, plaintext))
                except (SchemaError, DataKeyMissingError) as error:
                    if not lenient:
                        raise
                    opened.append(Opaque(event.type.decode(), event.schema, str(error)))
        return Commit(
            stream=header.stream.decode(),
            revision=header.revision,
            hash=record.commit,
            id=header.commit_id,
            digest=header.digest,
            time=header.time,
            cause=header.cause,
            correlation=header.correlation,
            authority=header.authority,
            events=tuple(opened),
            control=control,
            slice=header.slice,
            position=position,
        )

    async def plaintext(self, record: Record, index: int, event: Event) -> bytes:
        """The payload of one event, decrypted."""
        content = await self._blobs.get(event.payload) if event.in_blobs else event.payload
        if event.suite != AES_GCM:
            return content
        header = record.header
        key = sealing.event_key(sealing.hkdf_extract(header.salt, self._keys.of_id(event.key_id).secret), index)
        if sealing.commitment(key) != event.commitment:
            raise PayloadError(
                f"{header.stream.decode()} revision {header.revision}: not the key this event commits to"
            )
        place = sealing.Place(header.log_id, header.stream, header.revision, index, event.type, event.schema)
        return sealing.decrypt(key, content, sealing.associated(place, event.key_id))


def request_digest(secret: bytes, request: bytes) -> bytes:
    """A keyed digest, 16 bytes, by which the same id with another request is recognised without showing either."""
    return hashlib.blake2b(request, key=secret, digest_size=16).digest()
