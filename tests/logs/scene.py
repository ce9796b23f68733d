"""The log that most bad ones are made from, and how a bad one is told."""

from collections.abc import Iterator
from typing import NamedTuple

from agent_party.eventstore.verify import EXPORT_MAGIC, Malformed, parse
from tests.logs.making import Making, framed


class Bad(NamedTuple):
    """An export that does not hold. ``record`` counts the records before the place; ``root`` is the reader's."""

    name: str
    data: bytes
    root: bytes
    finding: str
    record: int

    def at(self) -> dict[str, object]:
        """The place as `verify.py` names it: with the record's own claims, if it has a header that can be read."""
        at: dict[str, object] = {"record": self.record}
        start, skipped = len(EXPORT_MAGIC) + 68, 0
        while (size := int.from_bytes(self.data[start : start + 4])) and skipped < self.record:
            start, skipped = start + 4 + size, skipped + 1
        if size and skipped == self.record and self.finding not in ("not-an-export", "wrong-root", "wrong-checksum"):
            try:
                header = parse(self.data[start + 4 : start + 4 + size]).header
            except Malformed:
                return at
            at |= {"stream": header.stream.decode(), "revision": header.revision}
        return at


class Scene:
    """One slice, two streams: records 0 certificate; 1 grant, 2 to 4 data of note/a; 5 grant, 6, 7 data of note/b."""

    def __init__(self) -> None:
        self.making = Making(100)
        self.a = self.making.grant(b"note/a")
        for _ in range(3):
            self.making.append(self.a, self.making.texts(2))
        self.b = self.making.grant(b"note/b")
        for _ in range(2):
            self.making.append(self.b)
        self.raws = list(self.making.records)

    def framed(self, raws: list[bytes]) -> bytes:
        return framed(self.making.log, raws)

    def with_(self, number: int, raw: bytes) -> bytes:
        """The export with another record in a place."""
        return self.framed([*self.raws[:number], raw, *self.raws[number + 1 :]])

    def next_a(self) -> bytes:
        return self.making.data(self.a)

    def plus(self, raw: bytes) -> bytes:
        """The export with one more record after note/a's last, which is record 5."""
        return self.framed([*self.raws[:5], raw, *self.raws[5:]])


def bad(scene: Scene, finding: str, record: int, **exports: bytes) -> Iterator[Bad]:
    root = scene.making.root.public
    for name, data in exports.items():
        yield Bad(f"{finding}-{name.replace('_', '-')}", data, root, finding, record)
