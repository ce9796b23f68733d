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
    """Entries of a lane in order, and where to read on. ``epochs``: of the leaders under whom the first batch and the
    last one were written, or None if there was no batch."""

    entries: list[tuple[Entry, int]]
    next: int
    epochs: tuple[int, int] | None


def built(records: Sequence[bytes], producer: int, epoch: int, sequence: int) -> list[tuple[bytes, int]]:
    """Batches with these values in order, and how many each one holds; numbered on from ``sequence``."""
    from aiokafka.record.default_records import DefaultRecordBatchBuilder

    batches: list[tuple[bytes, int]] = []
    rest = list(records)
    while rest:
        number = (sequence + sum(count for _, count in batches)) & 0x7FFFFFFF
        builder: Any = DefaultRecordBatchBuilder(2, 0, 0, producer, epoch, number, MAX_BATCH)
        count = 0
        while count < len(rest) and builder.append(count, None, None, rest[count], []) is not None:
            count += 1
        batches.append((bytes(builder.build()), count))
        rest = rest[count:]
    return batches


def parsed(raw: bytes, offset: int, where: str, *, foundings: bool = False) -> Page:
    """The entries from an offset on, in what a broker answered: whole batches, the last of which may be cut off.

    ``foundings``: give the messages that found a log too, which are no entries.
    """
    entries: list[tuple[Entry, int]] = []
    at, after = 0, offset
    epochs: tuple[int, int] | None = None
    while at + _HEAD.size <= len(raw):
        base, length, epoch, magic, _, attributes, delta, *_ = _HEAD.unpack_from(raw, at)
        end = at + _FRAME + length
        if end > len(raw):
            break
        epochs = (epochs[0] if epochs else epoch, epoch)
        last = base + delta + 1
        if last > offset and not (magic == 2 and attributes & _CONTROL):
            found = _entries(raw[at:end], last, magic, attributes, where)
            entries += [
                (entry, epoch) for entry in found if entry.place > offset and (foundings or not is_founding(entry.raw))
            ]
        after, at = max(after, last), end
    return Page(entries, after, epochs)


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
