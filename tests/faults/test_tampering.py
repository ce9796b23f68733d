"""A hundred commits, altered in every way and judged from the state before; and whole logs, cut and rolled back.

What the rule alone must refuse is asked of the rule; what it cannot see (a tail that is gone, an order between
streams) is asked of the audit, once with the remembered checkpoint and once without.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agent_party.eventstore import verify
from agent_party.eventstore.audit import CANNOT_TELL, MATCHES, ROLLED_BACK, Audit, audit_journal
from agent_party.eventstore.backends.memory import MemoryTape, UnconditionalMemoryTape
from agent_party.eventstore.checkpoints import Checkpoint, remember
from agent_party.eventstore.commit import SigningKey
from agent_party.eventstore.keyring import Keyring
from agent_party.eventstore.tape import START
from agent_party.eventstore.verify import DATA, SIGN_TAG, Malformed, Record, parse
from tests.logs.hundred import SEED, Hundred, flips
from tests.logs.making import Making, altered, joined, packed


@pytest.fixture(scope="module")
def hundred() -> Hundred:
    return Hundred()


def resigned(record: Record, key: SigningKey) -> bytes:
    """The record's header and body, signed by another key."""
    return joined(packed(record.header), key.sign(SIGN_TAG + record.commit), record.body)


# The rule, from the state before


def test_the_log_itself_holds(hundred: Hundred) -> None:
    assert [hundred.finding(number, raw) for number, raw in enumerate(hundred.raws)] == [""] * 100


@pytest.mark.parametrize("first", range(0, 100, 25))
def test_every_single_bit(hundred: Hundred, first: int) -> None:
    numbers = range(first, first + 25)
    counts = flips(hundred, numbers)
    assert counts.total() == sum(len(hundred.raws[number]) * 8 for number in numbers)


@pytest.mark.parametrize("planted", ["signature_holds", "tree_root"])
def test_a_planted_bug_lets_a_bit_through(hundred: Hundred, planted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if planted == "signature_holds":
        monkeypatch.setattr(verify, planted, lambda *_: True)
    else:  # the body's root is not computed but taken from the header
        whole = verify.parse_body
        monkeypatch.setattr(verify, "parse_body", lambda record: (whole(record)[0], record.header.body_root))
    with pytest.raises(AssertionError, match="is accepted"):
        flips(hundred, range(90, 95))


def test_every_duplicate(hundred: Hundred) -> None:
    """A record that stands already is refused everywhere behind itself."""
    dice = random.Random(SEED)
    for number in range(99):
        for place in {number + 1, dice.randrange(number + 1, 100), 99}:
            assert hundred.finding(place, hundred.raws[number]), (number, place)


def test_every_record_before_its_turn(hundred: Hundred) -> None:
    """In the place of one before it a record is refused if one of its stream stands between, else accepted.

    Fences do not count: they are accepted whatever the head is, and do not move it. What stands between on the
    slice's ``keys`` matters for some.
    """
    fences = [n for n, raw in enumerate(hundred.raws) if b"\5fence\0" in raw]
    for number in set(range(100)) - set(fences):
        stream, part = (header := parse(hundred.raws[number]).header).stream, header.slice
        for place in range(max(0, number - 20), number):
            between = [parse(hundred.raws[n]).header for n in range(place, number) if n not in fences]
            streams = {other.stream for other in between}
            if stream in streams or b"keys/%d" % part not in streams:
                refused = bool(hundred.finding(place, hundred.raws[number]))
                assert refused == (stream in streams), (number, place)


def test_every_splice_from_another_stream(hundred: Hundred) -> None:
    """Told as its own, and signed again by the holder of the other stream or of this one's ended grant."""
    data = hundred.data()
    for number in data:
        mine = parse(hundred.raws[number])
        other = next(n for n in data if parse(hundred.raws[n]).header.stream != mine.header.stream)
        theirs, holder = parse(hundred.raws[other]), hundred.holder(other)
        chain: dict[str, Any] = {"stream": mine.header.stream, "slice": mine.header.slice}
        place: dict[str, Any] = {"prev": mine.header.prev, "revision": mine.header.revision}
        renamed = joined(packed(theirs.header._replace(**chain)), theirs.signature, theirs.body)
        assert hundred.finding(number, renamed) in ("no-grant", "stale")
        assert hundred.finding(number, altered(theirs.raw, holder.key, **chain, **place)) == "no-grant"
        under_mine = altered(theirs.raw, holder.key, **chain, **place, grant=mine.header.grant)
        assert hundred.finding(number, under_mine) == "bad-signature"
        body = joined(packed(mine.header), mine.signature, theirs.body)
        assert hundred.finding(number, body) in ("body-mismatch", "malformed")


def test_every_splice_from_another_log(hundred: Hundred) -> None:
    twin = Hundred(SEED + 1)
    for number in range(100):
        raw = twin.raws[number]
        assert hundred.finding(number, raw) == "wrong-log"
        record = parse(raw)
        key = twin.holder(number).key if record.header.kind == DATA else twin.making.issuer
        relabelled = altered(raw, key, log_id=hundred.making.log.log_id)
        assert hundred.finding(number, relabelled) in ("no-grant", "stale", "wrong-slice", "bad-signature"), number


def test_every_re_signing(hundred: Hundred) -> None:
    """By a key that nobody granted, by the root, by a revoked issuing key, by the key that the record itself names."""
    stranger = hundred.making.new_key()
    for number, raw in enumerate(hundred.raws):
        record = parse(raw)
        keys = [stranger, hundred.revoked if record.header.kind == DATA else hundred.ended.key]
        if record.header.kind == DATA:
            keys.append(hundred.making.root)
        elif record.body[3:10] == b"\5grant\0":
            keys += [holder.key for holder in hundred.holders.values() if holder.key.public in record.body]
        for key in keys:
            assert hundred.finding(number, resigned(record, key)) == "bad-signature", number
            own_grant = altered(raw, key, grant=verify.sha256(key.public))
            assert hundred.finding(number, own_grant) == "no-grant", number


def test_every_grant_after_its_end(hundred: Hundred) -> None:
    """A holder whose grant a later one ended, and an issuing key after its revocation, write nothing more."""
    making, tried = hundred.making, 0
    for number in hundred.data():
        header, grants = parse(hundred.raws[number]).header, hundred.before[number].streams
        for holder in hundred.holders.values():
            if holder.stream == header.stream and holder.grant not in grants[header.stream].grants:
                forged = altered(hundred.raws[number], holder.key, grant=holder.grant)
                assert hundred.finding(number, forged) == "no-grant"
                tried += 1
    assert tried > 20
    certificate = next(
        parse(raw).commit for raw in hundred.raws if hundred.revoked.public in raw and parse(raw).header.slice == 0
    )
    revoke = making.controlling(b"keys/0", b"revoke", certificate)
    assert hundred.finding(99, altered(revoke, hundred.revoked, grant=certificate)) == "no-grant"


def test_every_header_with_every_near_body(hundred: Hundred) -> None:
    records = [parse(raw) for raw in hundred.raws]
    for number, record in enumerate(records):
        for other in records[max(0, number - 3) : number] + records[number + 1 : number + 4]:
            if other.body == record.body:  # certificates of one key, in several slices
                continue
            exchanged = joined(packed(record.header), record.signature, other.body)
            assert hundred.finding(number, exchanged) in ("body-mismatch", "malformed")


# The audit: what no single record shows


class Case:
    """The hundred commits on a tape, altered or not, with the checkpoint that was remembered of them, or none."""

    def __init__(self, hundred: Hundred, folder: Path) -> None:
        self.hundred, self.log = hundred, hundred.making.log
        self.keyring, self.ignorant = Keyring(folder / "state"), Keyring(folder / "other")
        trees = {number: (tree.size, tree.root()) for number, tree in hundred.trees().items()}
        key = self.keyring.checkpoint_key(self.log)
        path = self.keyring.log_folder(self.log) / "checkpoint"
        remember(path, Checkpoint(self.log.log_id, trees), self.log, key)

    async def audit(self, raws: Sequence[bytes], *, remembering: bool = True, conditional: bool = True) -> Audit:
        tape = MemoryTape() if conditional else UnconditionalMemoryTape()
        await tape.found(self.log)
        await tape.append(0, list(raws), START)
        return await audit_journal(tape, self.log, self.keyring if remembering else self.ignorant)

    def order(self, raws: Sequence[bytes]) -> dict[int, list[bytes]]:
        """The records of each slice, which is all the order there is."""
        order: dict[int, list[bytes]] = {}
        for raw in raws:
            order.setdefault(parse(raw).header.slice, []).append(raw)
        return order


@pytest.fixture
def case(hundred: Hundred, tmp_path: Path) -> Case:
    return Case(hundred, tmp_path)


async def test_the_whole_log_matches(case: Case) -> None:
    audit = await case.audit(case.hundred.raws)
    assert (audit.ok, audit.finding, audit.commits, audit.slices) == (True, "", 100, 4)
    assert (audit.checkpoint.status, audit.checkpoint.size, audit.checkpoint.tail) == (MATCHES, 100, 0)
    longer = [*case.hundred.raws, case.hundred.making.data(list(case.hundred.holders.values())[-1])]
    assert (await case.audit(longer)).checkpoint.tail == 1
    alone = await case.audit(case.hundred.raws, remembering=False)
    assert (alone.ok, alone.checkpoint.status) == (True, CANNOT_TELL)
    assert any("cut off" in line for line in alone.proved)


async def test_every_delete(case: Case) -> None:
    """Detected by the chain where something follows on the stream, else by the checkpoint, or not at all without it."""
    raws = case.hundred.raws
    seen = {"chain": 0, "checkpoint": 0}
    for number in range(100):
        left = [*raws[:number], *raws[number + 1 :]]
        audit = await case.audit(left)
        assert not audit.ok, number
        if audit.finding:
            assert audit.at["place"] > number
            seen["chain"] += 1
        else:
            assert audit.checkpoint.status == ROLLED_BACK
            assert (await case.audit(left, remembering=False)).checkpoint.status == CANNOT_TELL
            seen["checkpoint"] += 1
    assert min(seen.values()) > 3


async def test_every_swap(case: Case) -> None:
    """An order between slices does not exist; any other is detected, by the chain or by the checkpoint."""
    raws, dice = case.hundred.raws, random.Random(SEED)
    pairs = [(n, n + 1) for n in range(99)] + [
        (a, b) for a, b in (sorted(dice.sample(range(100), 2)) for _ in range(60))
    ]
    for first, second in pairs:
        swapped = list(raws)
        swapped[first], swapped[second] = raws[second], raws[first]
        audit = await case.audit(swapped)
        assert audit.ok == (case.order(swapped) == case.order(raws)), (first, second)
        assert not audit.finding or audit.at["place"] > first


@pytest.mark.parametrize("cut", [1, 2, 50, 99, 100])
async def test_a_tail_that_is_gone(case: Case, cut: int) -> None:
    left = case.hundred.raws[: 100 - cut]
    audit = await case.audit(left)
    assert (audit.finding, audit.checkpoint.status) == ("", ROLLED_BACK)
    assert "were there before" in audit.checkpoint.details[0]
    alone = await case.audit(left, remembering=False)
    assert (alone.ok, alone.checkpoint.status) == (True, CANNOT_TELL)


async def test_a_stream_that_is_gone(case: Case) -> None:
    for stream in {holder.stream for holder in case.hundred.holders.values()}:
        left = [raw for raw in case.hundred.raws if parse(raw).header.stream != stream]
        assert (await case.audit(left)).checkpoint.status == ROLLED_BACK, stream
        assert (await case.audit(left, remembering=False)).checkpoint.status == CANNOT_TELL


async def test_a_quiet_streams_tail(case: Case) -> None:
    """The last commit of a stream to which nothing happened since."""
    last = max(n for n, raw in enumerate(case.hundred.raws) if parse(raw).header.stream == b"quiet/q")
    assert last < 50
    left = [*case.hundred.raws[:last], *case.hundred.raws[last + 1 :]]
    audit = await case.audit(left)
    assert (audit.finding, audit.checkpoint.status) == ("", ROLLED_BACK)
    assert (await case.audit(left, remembering=False)).checkpoint.status == CANNOT_TELL


async def test_another_history(case: Case) -> None:
    """The holder of a key writes its last commit anew: every chain holds, the checkpoint does not."""
    number = case.hundred.data()[-1]
    holder, record = case.hundred.holder(number), parse(case.hundred.raws[number])
    other = [*case.hundred.raws[:number], altered(record.raw, holder.key, time=0), *case.hundred.raws[number + 1 :]]
    audit = await case.audit(other)
    assert (audit.finding, audit.checkpoint.status) == ("", ROLLED_BACK)
    assert "not the ones seen before" in audit.checkpoint.details[0]


async def test_an_altered_record_is_named_by_what_follows_it(case: Case) -> None:
    """Though its own name is what was altered."""
    raws, named = case.hundred.raws, 0
    for number in case.hundred.data()[:30]:
        header = parse(raws[number]).header
        raw = bytearray(raws[number])
        raw[2 + 167 + 1] ^= 2  # the second letter of the stream's name
        try:
            parse(bytes(raw))
        except Malformed:
            continue
        audit = await case.audit([*raws[:number], bytes(raw), *raws[number + 1 :]])
        assert audit.at["place"] == number + 1
        named += (audit.at["stream"], audit.at["revision"]) == (header.stream.decode(), header.revision)
    assert named > 20


async def test_a_tape_of_all_that_arrives(case: Case) -> None:
    """Where anybody may append, losers and garbage are counted, and only a gap is a finding."""
    raws = case.hundred.raws
    stranger = Making(7).records
    noisy = [*raws[:60], raws[10], b"garbage", raws[59], *stranger, *raws[60:], raws[99]]
    audit = await case.audit(noisy, conditional=False)
    assert (audit.ok, audit.commits, audit.checkpoint.status) == (True, 100, MATCHES)
    assert audit.findings == {"stale": 3, "foreign": 2}
    number = next(n for n in case.hundred.data() if n > 60)
    gap = await case.audit([*raws[:number], *raws[number + 1 :]], conditional=False)
    assert (gap.finding, gap.at["stream"]) == ("gap", parse(raws[number]).header.stream.decode())
