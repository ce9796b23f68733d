"""A log of a hundred commits, and what becomes of it when somebody alters it."""

import random
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from agent_party.eventstore.tree import Tree
from agent_party.eventstore.verify import Malformed, SliceState, StreamState, beginning, judge, parse
from tests.logs.making import Holder, Making

SEED = 20_260_902


class Before(NamedTuple):
    """The rule's states just before a record."""

    streams: dict[bytes, StreamState]
    parts: dict[int, SliceState]


class Hundred:
    """A hundred commits in four slices: owners, an inbox, takeovers, a fence, a rotation and a revocation."""

    def __init__(self, seed: int = SEED) -> None:
        self.making = making = Making(seed, slices=4)
        self.holders: dict[bytes, Holder] = {}
        names = (b"note/a", b"note/b", b"task/t1", b"inbox/note/a", b"inbox/note/a", b"quiet/q")
        a, b, task, inbox, second, quiet = (self._grant(name) for name in names)
        self._write([a, b, task, inbox, second, quiet], 28)
        self.ended = a
        a = self._grant(b"note/a")
        making.fence(second)
        second = self._grant(b"inbox/note/a")
        self._write([a, b, task, inbox, second], 24)
        self.revoked = making.issuer
        making.issuer = making.new_key()
        for part in range(4):
            old = making.certificate(b"keys/%d" % part, self.revoked)
            making.certify(part)
            making.add(making.controlling(b"keys/%d" % part, b"revoke", old))
        b = self._grant(b"note/b")
        self._write([a, b, task, inbox, second], 100 - len(making.records))
        self.raws = list(making.records)
        assert len(self.raws) == 100
        self.before = list(self._states())

    def _grant(self, stream: bytes) -> Holder:
        holder = self.making.grant(stream)
        self.holders[holder.grant] = holder
        return holder

    def _write(self, holders: list[Holder], count: int) -> None:
        """Data commits of one to three events, by each in turn."""
        for number in range(count):
            self.making.append(holders[number % len(holders)], self.making.texts(1 + number % 3))

    def _states(self) -> Iterator[Before]:
        now = Before({}, {})
        for raw in self.raws:
            yield now
            now = self.after(now, raw)

    def after(self, before: Before, raw: bytes) -> Before:
        header = parse(raw).header
        state = before.streams.get(header.stream) or beginning(self.making.log, header.stream)
        verdict = judge(self.making.log, before.parts.get(header.slice, SliceState()), state, parse(raw), own=True)
        streams, parts = (
            {**before.streams, header.stream: verdict.stream},
            {**before.parts, header.slice: verdict.slice},
        )
        return Before(streams, parts)

    def finding(self, number: int, raw: bytes) -> str:
        """What the rule says of these bytes in the place of a record, from its predecessor's state."""
        try:
            record = parse(raw)
        except Malformed:
            return "malformed"
        streams, parts = self.before[number]
        header = record.header
        state = streams.get(header.stream) or beginning(self.making.log, header.stream)
        return judge(self.making.log, parts.get(header.slice, SliceState()), state, record).finding

    def trees(self) -> dict[int, Tree]:
        """The tree of each slice."""
        trees: dict[int, Tree] = {}
        for raw in self.raws:
            record = parse(raw)
            trees.setdefault(record.header.slice, Tree()).append(record.commit)
        return trees

    def data(self) -> list[int]:
        """The places of all data commits."""
        return [number for number, raw in enumerate(self.raws) if parse(raw).header.revision]

    def holder(self, number: int) -> Holder:
        """Who wrote a data commit."""
        return self.holders[parse(self.raws[number]).header.grant]


def flips(hundred: Hundred, numbers: range, *, share: float = 1.0, seed: int = SEED) -> Counter[str]:
    """Flip every bit of these records (or a share of them), each alone; count the findings. None may be accepted."""
    dice, counts = random.Random(f"{seed}/{numbers.start}"), Counter[str]()
    for number in numbers:
        raw = bytearray(hundred.raws[number])
        for bit in range(len(raw) * 8):
            if share < 1 and dice.random() > share:
                continue
            raw[bit >> 3] ^= 1 << (bit & 7)
            finding = hundred.finding(number, bytes(raw))
            raw[bit >> 3] ^= 1 << (bit & 7)
            if not finding:
                raise AssertionError(f"record {number} with bit {bit} flipped is accepted")
            counts[finding] += 1
    return counts
