"""What a batch means, from its bytes alone."""

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from agent_party.eventstore.backends.kafka_batch import MAX_BATCH, Sent, built, parsed, stamped
from agent_party.eventstore.backends.kafka_founding import Founding, founded, founding, is_founding
from agent_party.eventstore.errors import StoreCorruptError
from agent_party.eventstore.verify import MAX_RECORD, Malformed, identity, parse

LOG = identity(bytes(32), 1_024, bytes(32))
FOUNDING = founding(LOG, 12, bytes(16))


def at(batch: bytes, offset: int, epoch: int = 0) -> bytes:
    """A batch as a leader stores it: with its first offset and the leader's epoch, which no checksum covers."""
    return offset.to_bytes(8) + batch[8:12] + epoch.to_bytes(4) + batch[16:]


def batch(*values: bytes | None, codec: int = 0, offset: int = 0, epoch: int = 0) -> bytes:
    builder = DefaultRecordBatchBuilder(2, codec, 0, 7, 0, 0, 1 << 20)
    for number, value in enumerate(values):
        builder.append(number, None, None if value is not None else b"key", value, [])
    return at(bytes(builder.build()), offset, epoch)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=40), st.integers(0, 1 << 40))
def test_what_was_packed_is_unpacked(values: list[bytes], offset: int) -> None:
    raw, count = built(values, 7, 0, 0)
    page = parsed(at(bytes(raw), offset, 3), offset, "here")
    assert count == len(values)
    assert [entry.raw for entry in page.entries] == values
    assert [entry.place for entry in page.entries] == list(range(offset + 1, offset + 1 + len(values)))
    assert (page.next, page.epoch, set(page.epochs)) == (offset + len(values), 3, {3})


@given(
    st.lists(st.sampled_from([b"x", b"y", FOUNDING, b""]), min_size=1, max_size=5),
    st.integers(0, 3),
    st.integers(0, 4),
    st.booleans(),
)
def test_batches_of_ones_own_are_what_they_are_for_everybody(
    values: list[bytes], before: int, after: int, others: bool
) -> None:
    """Wherever they stand: also where another batch stands that is as long, and in their place."""
    raw = bytes(built(values, 7, 0, 0)[0])
    stood = bytes(built(values[::-1], 7, 0, 0)[0]) if others else raw
    first = b"".join(batch(b"%d" % number, offset=number) for number in range(before))
    whole = first + at(stood, before, 3)
    next_one = bytes(built(values, 7, 0, len(values))[0])
    whole += at(next_one, before + len(values), 3)
    whole += b"".join(batch(b"z", offset=before + 2 * len(values) + number) for number in range(after))
    own = [Sent(raw, values), Sent(next_one, values)]
    for offset in range(before + 2):
        assert parsed(whole, offset, "here", own=own) == parsed(whole, offset, "here")


@given(st.integers(0, 2_000))
def test_a_batch_of_ones_own_that_came_back_changed_is_seen(place: int) -> None:
    values = [bytes([number]) * 100 for number in range(5)]
    raw = bytes(built(values, 7, 0, 0)[0])
    where = 17 + place % (len(raw) - 17)
    changed = raw[:where] + bytes([raw[where] ^ 1]) + raw[where + 1 :]
    try:
        page = parsed(changed, 0, "here", own=[Sent(raw, values)])
    except StoreCorruptError:
        return
    assert [entry.raw for entry in page.entries] != values  # a bit that makes it another kind of batch


@given(st.sets(st.integers(1, 9)), st.integers(0, 400))
def test_wanted_places_are_what_they_are_among_all(wanted: set[int], cut: int) -> None:
    whole = batch(b"a", b"b", None) + batch(b"one entry", codec=1, offset=3) + batch(b"c", FOUNDING, b"d", offset=4)
    whole += batch(b"e", b"f", offset=7, epoch=2)
    whole = whole[: len(whole) - cut]
    every = parsed(whole, 0, "here", foundings=True)
    page = parsed(whole, 0, "here", only=sorted(wanted))
    kept = [number for number, entry in enumerate(every.entries) if entry.place in wanted]
    assert page.entries == [every.entries[number] for number in kept]
    assert page.epochs == [every.epochs[number] for number in kept]
    assert (page.next, page.epoch) == (every.next, every.epoch)


def test_what_is_torn_is_one_foreign_entry_for_whoever_wants_its_last_place() -> None:
    raw = batch(b"a", b"b")
    torn = raw[:-1] + b"\x7f"  # the last record counts headers that are not there
    (entry,) = parsed(torn, 0, "here", only=[2]).entries
    assert entry.raw != b"b"
    assert (entry.place, entry.raw) == (2, torn[61:])


def test_a_batch_takes_what_fits_and_at_least_one() -> None:
    values = [bytes(MAX_BATCH * 2 // 5)] * 4
    assert built(values, 7, 0, 0)[1] == 2
    assert built([bytes(MAX_RECORD)] * 2, 7, 0, 0)[1] == 1


@given(st.lists(st.integers(0, MAX_BATCH + 100), min_size=1, max_size=20))
def test_no_batch_of_several_records_is_larger_than_the_bound(sizes: list[int]) -> None:
    raw, count = built([bytes(size) for size in sizes], 7, 0, 0)
    assert count == 1 or len(raw) <= MAX_BATCH
    assert count == len(sizes) or sum(sizes[: count + 1]) + 100 * (count + 2) > MAX_BATCH


@given(st.integers(0, 6), st.integers(0, 400))
def test_a_page_begins_anywhere_and_is_cut_off_anywhere(first: int, cut: int) -> None:
    whole = batch(b"a", b"b", b"c", epoch=1) + batch(b"d", b"e", b"f", offset=3, epoch=2)
    page = parsed(whole[: max(0, len(whole) - cut)], first, "here")
    kept = b"abcdef"[: 6 if not cut else 3 if len(whole) - cut >= len(whole) // 2 else 0]
    assert [entry.raw for entry in page.entries] == [bytes([letter]) for letter in kept[first:]]
    assert page.next == max(first, len(kept))


def test_epochs_are_told_for_each_entry() -> None:
    page = parsed(batch(b"a", epoch=1) + batch(b"b", offset=1, epoch=4), 0, "here")
    assert (page.epoch, page.epochs) == (1, [1, 4])


def test_a_tombstone_is_empty_bytes() -> None:
    assert [entry.raw for entry in parsed(batch(None, b"x"), 0, "here").entries] == [b"", b"x"]


def test_a_compressed_batch_is_one_foreign_entry_at_its_last_place() -> None:
    """However much it would unpack to."""
    raw = batch(bytes(900_000), bytes(9), codec=1)
    ((place, bytes_),) = parsed(raw, 0, "here").entries
    assert place == 2
    assert len(bytes_) < 2_000
    with pytest.raises(Malformed):
        parse(bytes_)


def test_a_marker_of_a_transaction_is_no_entry() -> None:
    raw = bytearray(batch(b"\0\0\0\0"))
    raw[22] |= 0x20
    page = parsed(bytes(raw) + batch(b"x", offset=1), 0, "here")
    assert [entry.place for entry in page.entries] == [2]
    assert page == parsed(bytes(raw) + batch(b"x", offset=1), 0, "here", only=[1, 2])


def test_a_changed_byte_is_damage() -> None:
    raw = bytearray(batch(b"a record"))
    raw[-4] ^= 1
    with pytest.raises(StoreCorruptError, match="does not have its checksum"):
        parsed(bytes(raw), 0, "here")


@given(st.binary(max_size=200))
def test_any_bytes_are_read_without_a_fault(raw: bytes) -> None:
    """An old format, or nonsense under a right length: foreign, or nothing."""
    framed = bytes(8) + len(raw).to_bytes(4) + raw
    assert len(parsed(framed, 0, "here", only=[1, 2, 3]).entries) <= 3
    try:
        assert len(parsed(framed, 0, "here").entries) <= 1
    except StoreCorruptError:
        assert raw[4] == 2


def test_founding_messages_are_passed_over_unless_asked_for() -> None:
    raw = batch(b"a", FOUNDING, b"b")
    assert [entry.place for entry in parsed(raw, 0, "here").entries] == [1, 3]
    assert len(parsed(raw, 0, "here", foundings=True).entries) == 3


def test_a_founding_message_says_which_log_it_is() -> None:
    assert founded(FOUNDING) == Founding(LOG, 12)
    assert is_founding(FOUNDING)
    assert not is_founding(FOUNDING[:-1])
    with pytest.raises(Malformed):
        parse(FOUNDING)
    with pytest.raises(Malformed):
        founded(founding(LOG, 0, bytes(16)))


def test_stamps_are_read_where_they_matter() -> None:
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, 0, 1 << 20)
    builder.append(0, 5_000, None, b"sign", [])
    assert stamped(bytes(builder.build()), 0) == (1, [(5.0, b"sign")])
