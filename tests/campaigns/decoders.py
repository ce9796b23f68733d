"""Mutated bytes to every decoder: no exception but its own, nothing accepted, memory bounded.

python -m tests.campaigns.decoders [--seed N] [--count N]
"""

import argparse
import json
import random
import resource
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from agent_party.eventstore.checkpoints import Checkpoint, read, sign
from agent_party.eventstore.codec import Codec, event
from agent_party.eventstore.errors import EventStoreError
from agent_party.eventstore.export import read_export
from agent_party.eventstore.verify import (
    Malformed,
    check_export,
    judge,
    parse,
    parse_body,
    parse_event_header,
    parse_header,
)
from tests.campaigns import Result
from tests.logs.good import GOOD
from tests.logs.making import Making, joined, packed

CHUNK = 2_000
COUNT = 100_000
SEED = 20_260_901
MEMORY = 64 * 1024
"""Kilobytes by which the process may grow."""


class Accepted(AssertionError):
    """A decoder took altered bytes for good."""


class Target(NamedTuple):
    """A decoder: good inputs, and what must refuse every other one. It raises `Accepted` if it does not."""

    name: str
    samples: list[bytes]
    refuse: Callable[[bytes], str]


class Point(msgspec.Struct, frozen=True):
    """A payload with something of everything."""

    x: int
    y: float
    name: str
    many: list[bytes]
    more: dict[str, int] = {}


class Decoders:
    """All decoders, with a log of each kind of record to try them on."""

    def __init__(self) -> None:
        self.making = GOOD["all-that-a-header-can-say"]()
        self.before = self._states()
        self.raws = self.making.records
        exports = [making() for name, making in GOOD.items() if not name.startswith("most")]
        self.roots = {making.export(): making.root.public for making in exports}
        self.checkpoint = Checkpoint(self.making.log.log_id, {0: (17, bytes(range(32))), 3: (2**40, bytes(32))})
        note = sign(self.checkpoint, self.making.issuer).encode()
        point = event("point.drawn", version=2, upcast={1: lambda old: old | {"name": "p"}})(Point)
        self.codec = Codec([point])
        payload = self.codec.encode(Point(2**60, 0.5, "pé", [b"a", b"b" * 300], {"k": -1}))[2]
        headers = [packed(parse(raw).header) for raw in self.raws]
        events = [parse(raw).body[2 : 2 + int.from_bytes(parse(raw).body[:2])] for raw in self.raws]
        self.targets = [
            Target("record", self.raws, self.record),
            Target("header", headers, self.header),
            Target("event header", events, self.event_header),
            Target("body", [parse(raw).body for raw in self.raws], self.body),
            Target("export", list(self.roots), self.export),
            Target("checkpoint", [note], self.note),
            Target("payload", [payload], self.payload),
        ]

    def _states(self) -> dict[bytes, Making]:
        """For each record, the log as it was before it."""
        states: dict[bytes, Making] = {}
        replay = GOOD["all-that-a-header-can-say"]()
        records, replay.records, replay.states, replay.parts = list(replay.records), [], {}, {}
        for raw in records:
            before = Making.__new__(Making)
            before.log, before.states, before.parts = replay.log, dict(replay.states), dict(replay.parts)
            states[raw] = before
            replay.add(raw)
        return states

    def record(self, data: bytes) -> str:
        record, finding = parse(data), ""
        for before in self.before.values():
            state, part = before.state(record.header.stream), before.part(record.header.slice)
            if not (finding := judge(self.making.log, part, state, record).finding):
                raise Accepted(data.hex())
        return finding

    def header(self, data: bytes) -> str:
        header = parse_header(data)
        if packed(header) != data:
            raise Accepted(f"two forms of one header: {data.hex()}")
        outcome = "no body"
        for raw in self.raws:
            if (body := parse(raw)).header.events == header.events and body.header.kind == header.kind:
                outcome = self.record(joined(data, body.signature, body.body))
        return outcome

    def event_header(self, data: bytes) -> str:
        parse_event_header(data)
        return self.body(len(data).to_bytes(2) + data + bytes(60))

    def body(self, data: bytes) -> str:
        for raw in self.raws:
            record = parse(raw)
            try:
                root = parse_body(record._replace(body=data))[1]
            except Malformed:
                continue
            if root == record.header.body_root:
                raise Accepted(data.hex())
        return "other root"

    def export(self, data: bytes) -> str:
        for root in set(self.roots.values()):
            if not check_export(data, root)["finding"]:
                raise Accepted(data.hex())
        read_export(data)
        raise Accepted(f"read_export takes what check_export does not: {data.hex()}")

    def note(self, data: bytes) -> str:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            return "not text"
        checkpoint = read(text, self.making.log, self.making.issuer.public)
        lines, good = text.splitlines(), self.targets[5].samples[0].decode().splitlines()
        if checkpoint != self.checkpoint or len(lines) <= len(good) or not set(good) <= set(lines):
            raise Accepted(data.hex())
        return "somebody else's signature added"  # which a note may have, and which says nothing to us

    def payload(self, data: bytes) -> str:
        for version in (1, 2):
            self.codec.decode(b"point.drawn", version, data)
        return "no integrity of its own"


def mutated(dice: random.Random, data: bytes, other: bytes) -> bytes:
    """Other bytes, most of them near to the good ones."""
    made, times = bytearray(data), dice.choice((1, 1, 1, 2, 4))
    for _ in range(times):
        place = dice.randrange(len(made) + 1)
        width = dice.choice((1, 2, 4, 8, 32, 200))
        match dice.randrange(9):
            case 0 | 1 if made:
                made[place % len(made)] ^= 1 << dice.randrange(8)
            case 2:
                made[place : place + width] = dice.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * width
            case 3:
                del made[place:]
            case 4:
                del made[place : place + width]
            case 5:
                made[place:place] = made[place : place + width]
            case 6:
                made[place:place] = dice.randbytes(width)
            case 7:
                made[place : place + width] = dice.randbytes(width)
            case 8:
                cut = dice.randrange(len(other) + 1)
                made[place:] = other[cut:]
    return bytes(made) if dice.random() > 0.01 else dice.randbytes(dice.randrange(400))


def chunk(decoders: Decoders, seed: int, number: int, size: int) -> Counter[str]:
    """One chunk: the same seed and number give the same inputs. What became of them, counted."""
    dice, counts = random.Random(f"{seed}/{number}"), Counter[str]()
    for turn in range(size):
        target = decoders.targets[turn % len(decoders.targets)]
        data = mutated(dice, dice.choice(target.samples), dice.choice(target.samples))
        if data in target.samples or (target.name == "event header" and not data):
            counts[f"{target.name}: unchanged"] += 1
            continue
        try:
            outcome = target.refuse(data)
        except Malformed:
            outcome = "malformed"
        except EventStoreError as error:
            outcome = type(error).__name__
        counts[f"{target.name}: {outcome}"] += 1
    return counts


def peak() -> int:
    """The most memory this process ever had, in kilobytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--count", type=int, default=COUNT)
    options = parser.parse_args()
    print(f"seed {options.seed}")
    result, decoders = Result("decoders", options.seed), Decoders()
    before = peak()
    while result.done < options.count:
        size = min(CHUNK, options.count - result.done)
        result.add(result.done + size, chunk(decoders, options.seed, result.done // CHUNK, size))
        assert peak() - before < MEMORY, "a decoder takes memory"
    print(json.dumps({"done": result.done, "counts": result.counts}, indent=2))


if __name__ == "__main__":
    main()
