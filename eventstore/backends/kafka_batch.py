"""Kafka's record batches (format 2), from values to bytes and from bytes to entries.

What becomes of a batch depends on its bytes alone, so that all readers see the same entries: a marker of a
transaction is none; a batch of plain records is one entry for each; any other batch (compressed, of an old format,
torn) is one entry of foreign bytes, at its last place. Keys, headers, timestamps and transactions say nothing.
"""

import contextlib
import struct
from bisect import bisect_right
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from ..errors import StoreCorruptError
from ..tape import Entry
from .kafka_founding import SIZE, is_founding

MAX_BATCH = 32 * 1024
"""Bytes of a batch with several records: a broker hands out none less, and whoever wants one record gets them all. One
with a single record may be as large as the format's largest record."""
MAX_BYTES = 1_048_588
"""What a topic must admit: the largest record, its frame, and room to spare. Kafka's own default."""
_HEAD = struct.Struct(">qiibIhiqqqhii")
_FRAME, _MAGIC = 12, 16
"""Where what is counted in a batch's length begins; what its sender has made, behind the leader's epoch."""
_CODEC, _CONTROL = 0x07, 0x20
_entry = partial(tuple.__new__, Entry)


class Page(NamedTuple):
    """Entries of a lane in order, each with the epoch of the leader under whom it was written, and where to read on.

    ``epoch``: the first batch's, or None if there was no batch.
    """

    entries: list[Entry]
    epochs: list[int]
    next: int
    epoch: int | None


class Sent:
    """A batch of this process's own, by which it is known again when it is read: all that no broker sets, and the
    values it was built from."""

    def __init__(self, batch: bytes, records: Sequence[bytes]) -> None:
        self.made, self.records = memoryview(batch)[_MAGIC:], records
        self.founds = SIZE in map(len, records)

    def is_at(self, raw: bytes, first: int, last: int) -> bool:
        """Whether these very bytes stand there; one that may hold a message that founds a log is not looked at."""
        size = last - first - _MAGIC
        return size == len(self.made) and not self.founds and raw.startswith(self.made, first + _MAGIC)


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


def parsed(
    raw: bytes,
    offset: int,
    where: str,
    *,
    foundings: bool = False,
    own: Sequence[Sent] = (),
    only: Sequence[int] | None = None,
) -> Page:
    """The entries from an offset on, in what a broker answered: whole batches, the last of which may be cut off.

    ``foundings``: give the messages that found a log too, which are no entries. ``own``: batches that may be
    among them. One that has the same bytes has the same entries, for they depend on nothing else: so it is compared,
    byte for byte, and neither summed nor taken apart a second time. ``only``: the places, in order, of the entries
    that are wanted. Batches are then taken apart as far as that, and not summed: whoever asks for a place knows what
    was there.
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
        if only is not None:
            wanted = only[bisect_right(only, base) : bisect_right(only, last)]
            found = _some(memoryview(raw)[at:end], last, magic, attributes, wanted) if wanted else []
            entries += found
            epochs += [epoch] * len(found)
        elif base >= offset and (sent := next((one for one in own if one.is_at(raw, at, end)), None)):
            found = list(map(_entry, zip(range(base + 1, last + 1), sent.records, strict=True)))
            entries += found
            epochs += [epoch] * len(found)
        elif last > offset and not (magic == 2 and attributes & _CONTROL):
            found = _entries(raw[at:end], last, magic, attributes, where)
            if found[0].place <= offset:
                found = [entry for entry in found if entry.place > offset]
            if not foundings:
                found = [entry for entry in found if len(entry.raw) != SIZE or not is_founding(entry.raw)]
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


def _some(batch: memoryview, last: int, magic: int, attributes: int, places: Sequence[int]) -> list[Entry]:
    """Those of a batch's entries that stand at these places."""
    if magic == 2 and attributes & _CONTROL:
        return []
    if magic == 2 and not attributes & _CODEC:
        from aiokafka.errors import KafkaError
        from aiokafka.record.default_records import DefaultRecordBatch

        found, wanted, records = list[Entry](), set(places), iter(DefaultRecordBatch(batch))
        with contextlib.suppress(KafkaError, ValueError, UnicodeDecodeError):
            while len(found) < len(places) and (record := next(records, None)):
                if (place := record.offset + 1) in wanted:
                    found.append(Entry(place, record.value or b""))
            return found
    return [Entry(last, bytes(batch[_HEAD.size :]))] if last in places else []


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
