"""Kafka's record batches (format 2), from values to bytes and from bytes to entries.

What becomes of a batch depends on its bytes alone, so that all readers see the same entries: a marker of a
transaction is none; a batch of plain records is one entry for each; any other batch (compressed, of an old format,
torn) is one entry of foreign bytes, at its last place. Keys, headers, timestamps and transactions say nothing.
"""

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..errors import StoreCorruptError
from ..tape import Entry
from .kafka_founding import is_founding

MAX_BATCH = 1_000_000
"""Bytes of a batch with several records; one with a single record may be as large as the format's largest record."""
MAX_BYTES = 1_048_588
"""What a topic must admit: the largest record, its frame, and room to spare. Kafka's own default."""
_HEAD = struct.Struct(">qiibIhiqqqhii")
_FRAME = 12
_CODEC, _CONTROL = 0x07, 0x20


class Page(NamedTuple):
    """Entries of a lane in order, each with the epoch of the leader under whom it was written, and where to read on.

    ``epoch``: the first batch's, or None if there was no batch.
    """

    entries: list[Entry]
    epochs: list[int]
    next: int
    epoch: int | None


def built(records: Sequence[bytes], producer: int, epoch: int, sequence: int) -> tuple[bytes, int]:
    """A batch of the first of these values, and how many it holds."""
    from aiokafka.record.default_records import DefaultRecordBatchBuilder

    builder: Any = DefaultRecordBatchBuilder(2, 0, 0, producer, epoch, sequence, MAX_BATCH)
    count, append = 0, builder.append
    for count, record in enumerate(records):
        if append(count, None, None, record, []) is None:
            break
    else:
        count = len(records)
    return builder.build(), count


def parsed(raw: bytes, offset: int, where: str, *, foundings: bool = False) -> Page:
    """The entries from an offset on, in what a broker answered: whole batches, the last of which may be cut off.

    ``foundings``: give the messages that found a log too, which are no entries.
    """
    entries, epochs = list[Entry](), list[int]()
    at, after, began = 0, offset, None
    while at + _HEAD.size <= len(raw):
        base, length, epoch, magic, _, attributes, delta, *_ = _HEAD.unpack_from(raw, at)
        end = at + _FRAME + length
        if end > len(raw):
            break
        began = epoch if began is None else began
        last = base + delta + 1
        if last > offset and not (magic == 2 and attributes & _CONTROL):
            found = _entries(raw[at:end], last, magic, attributes, where)
            if found[0].place <= offset or not foundings:
                kept = (entry for entry in found if entry.place > offset)
                found = [entry for entry in kept if foundings or not is_founding(entry.raw)]
            entries += found
            epochs += [epoch] * len(found)
        after, at = max(after, last), end
    return Page(entries, epochs, after, began)


def stamped(raw: bytes, offset: int) -> tuple[int, list[tuple[float, bytes]]]:
    """Where to read on, and the values of plain batches from an offset on with the seconds at which they were written,
    by the broker's clock where the topic says so. For what is no log."""
    from aiokafka.record.default_records import DefaultRecordBatch

    at, found = 0, list[tuple[float, bytes]]()
    while at + _HEAD.size <= len(raw):
        base, length, _, magic, _, attributes, delta, *_ = _HEAD.unpack_from(raw, at)
        end = at + _FRAME + length
        if end > len(raw):
            break
        if magic == 2 and not attributes & (_CODEC | _CONTROL):
            records: Any = DefaultRecordBatch(raw[at:end])
            found += [(r.timestamp / 1000, r.value or b"") for r in records if r.offset >= offset]
        offset, at = max(offset, base + delta + 1), end
    return offset, found


def _entries(batch: bytes, last: int, magic: int, attributes: int, where: str) -> list[Entry]:
    from aiokafka.errors import KafkaError
    from aiokafka.record.default_records import DefaultRecordBatch

    if magic != 2 or attributes & _CODEC:
        return [Entry(last, batch[_HEAD.size :])]
    records: Any = DefaultRecordBatch(batch)
    if not records.validate_crc():
        raise StoreCorruptError(f"{where}: the batch before place {last} does not have its checksum")
    try:
        return [Entry(record.offset + 1, record.value or b"") for record in records]
    except (KafkaError, ValueError, UnicodeDecodeError):
        return [Entry(last, batch[_HEAD.size :])]
