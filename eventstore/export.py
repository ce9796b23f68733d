"""Exports: streams' accepted records in one file that a stranger can check, the same bytes from every tape.

    magic ‖ root 32 ‖ slices u32 ‖ nonce 32 ‖ (length u32 ‖ record)* ‖ 0 u32 ‖ SHA-256 of all before it

A slice's records stand in epochs: those of ``keys/N`` each begin one, and within it the other streams' records stand
by stream name, each stream's in its own order. So the order depends neither on the tape nor on which other streams
there are. Whoever asks for one stream gets the ``keys/N`` of its slice too, without which no signature can be judged.
"""

import hashlib
from collections.abc import AsyncIterator, Iterable, Sequence

from .backends.index_file import IndexDamaged, Row
from .errors import CorruptLogError, EventStoreError
from .index import Behind
from .log import Log
from .tape import START
from .verify import (
    EXPORT_MAGIC,
    STREAM,
    Identity,
    Malformed,
    Record,
    SliceState,
    StreamState,
    _Reader,
    beginning,
    identity,
    judge,
    parse,
    sha256,
    slice_of,
)

_CHUNK = 256
_NAMES = 1_000
_ATTEMPTS = 20


async def export(log: Log, streams: Sequence[str] = ()) -> bytes:
    """An export of these streams, or of the whole log, in one piece. See `export_chunks` for large ones."""
    return b"".join([chunk async for chunk in export_chunks(log, streams)])


async def export_chunks(log: Log, streams: Sequence[str] = ()) -> AsyncIterator[bytes]:
    """An export piece by piece; memory holds the index rows of one slice and `_CHUNK` records.

    Every record is judged on the way, signature included, so what comes out verifies. Raises `CorruptLogError` where
    the tape does not hold, `IndexDamaged` where the index leads astray, `EventStoreError` for a stream that is not
    there. Nothing that others append meanwhile is in it beyond what this process had read of each slice.
    """
    digest = hashlib.sha256()
    head = EXPORT_MAGIC + log.identity.root + log.identity.slices.to_bytes(4) + log.identity.nonce
    digest.update(head)
    yield head
    for part, names in sorted(_asked(log, streams).items()):
        async for chunk in _slice(log, part, names, whole=not streams):
            digest.update(chunk)
            yield chunk
    digest.update(bytes(4))
    yield bytes(4) + digest.digest()


def _asked(log: Log, streams: Sequence[str]) -> dict[int, set[bytes]]:
    """The names to export in each slice."""
    asked: dict[int, set[bytes]] = {} if streams else {part: set() for part in log.index.sizes()}
    for name in streams or _all_streams(log):
        stream = name.encode()
        if not STREAM.fullmatch(stream) or (part := slice_of(log.identity, stream)) >= log.identity.slices:
            raise EventStoreError(f"{name!r} is no stream of this log: `party log streams` lists what there is")
        asked.setdefault(part, {f"keys/{part}".encode()}).add(stream)
    return asked


def _all_streams(log: Log) -> Iterable[str]:
    after = ""
    while names := log.streams("", after, _NAMES):
        yield from names
        after = names[-1]


async def _slice(log: Log, part: int, names: set[bytes], *, whole: bool) -> AsyncIterator[bytes]:
    rows, wanted = await _planned(log, part, names, whole)
    states: dict[bytes, StreamState] = {}
    state_of_slice = SliceState()
    for first in range(0, len(rows), _CHUNK):
        chunk, frames = rows[first : first + _CHUNK], list[bytes]()
        entries = await log.tape.fetch(chunk[0].lane, [row.place for row in chunk])
        for row, entry in zip(chunk, entries, strict=True):
            record = _same(row, entry.raw)
            state = states.get(row.stream) or beginning(log.identity, row.stream)
            verdict = judge(log.identity, state_of_slice, state, record)
            if verdict.finding:
                at = {"stream": row.stream.decode(), "revision": record.header.revision, "place": row.place}
                raise CorruptLogError(verdict.finding, at)
            states[row.stream], state_of_slice = verdict.stream, verdict.slice
            frames.append(len(entry.raw).to_bytes(4) + entry.raw)
        yield b"".join(frames)
    if states != wanted:
        raise _damaged(log, "it does not know all records of a stream")


async def _planned(log: Log, part: int, names: set[bytes], whole: bool) -> tuple[list[Row], dict[bytes, StreamState]]:
    """A slice's rows in the order of the export, and the state that each stream must come to."""
    for _ in range(_ATTEMPTS):
        try:
            return _plan(log, part, names, whole)
        except Behind:  # another process has read further; reading on here catches up
            for name in names:
                await log.state(name.decode())
    raise EventStoreError("other processes write faster than this one reads: try the export again")


def _plan(log: Log, part: int, names: set[bytes], whole: bool) -> tuple[list[Row], dict[bytes, StreamState]]:
    """In one go, so that rows and states are of one moment. Places give the order, for fetching proves them."""
    wanted = {name: log.index.state(name) for name in names}
    rows: list[Row] = []
    for name in names:
        found = log.index.all_rows(name)
        try:
            rows += [row for row in found if row.place <= log.index.seen.get(row.lane, START).place]
        except TypeError as error:
            raise _damaged(log, "a place that is no number") from error
        if not found:
            raise EventStoreError(f"there is no stream {name.decode()!r}: `party log streams` lists what there is")
    rows.sort(key=lambda row: row.place)
    if len({row.lane for row in rows}) > 1 or (whole and len(rows) != log.index.position(part)):
        raise _damaged(log, f"it does not know all records of slice {part}")
    keys, epoch, placed = f"keys/{part}".encode(), 0, list[tuple[tuple[int, bytes, int], Row]]()
    for row in rows:
        epoch += row.stream == keys
        placed.append(((epoch, b"" if row.stream == keys else row.stream, row.place), row))
    return [row for _, row in sorted(placed)], wanted


def _same(row: Row, raw: bytes) -> Record:
    """The record at a row's place, if it is the one that was accepted there."""
    at = {"stream": row.stream.decode(errors="replace"), "revision": row.revision, "place": row.place}
    try:
        record = parse(raw)
    except Malformed as error:
        raise CorruptLogError("malformed", at) from error
    if record.commit != row.commit or record.header.stream != row.stream:
        raise CorruptLogError("altered", at)
    return record


def _damaged(log: Log, why: str) -> IndexDamaged:
    return IndexDamaged(
        f"the index of log {log.identity.log_id.hex()[:16]} was altered ({why}): delete it and start again"
    )


def read_export(data: bytes) -> tuple[Identity, list[Record]]:
    """The log an export says it is of, and its records, decoded but not judged; `Malformed` if it is not an export.

    `verify.check_export` judges them; this is for those who want the records of a file that was checked.
    """
    read = _Reader(data)
    if read.take(len(EXPORT_MAGIC)) != EXPORT_MAGIC:
        raise Malformed("not an export of an Agent Party log")
    log = identity(read.take(32), read.number(4), read.take(32))
    records: list[Record] = []
    while size := read.number(4):
        records.append(parse(read.take(size)))
    if read.take(32) != sha256(data[: read.at - 32]):
        raise Malformed("a checksum that does not match")
    read.end()
    return log, records
