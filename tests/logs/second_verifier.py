"""A second verifier, written from docs/log-format.md alone, to show that the page suffices.

It shares no line with `eventstore/verify.py`: other names, other structure, OpenSSL instead of libsodium, the curve's
arithmetic by hand. The tests let both judge the same files.
"""

import re
import struct
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
NAME = re.compile(rb"[a-z][a-z0-9-]{0,31}(?:/[A-Za-z0-9._~-]{1,64}){1,6}")
TYPE = re.compile(rb"[a-z][a-z0-9_-]*(?:\.[a-z0-9_-]+)+")
KEYS = re.compile(rb"keys/(0|[1-9][0-9]{0,4})")
OF_SLICES = {b"certify": 32, b"revoke": 32, b"upgrade": 1, b"seal": 4, b"open": 32}
LENGTHS = {**OF_SLICES, b"grant": 49, b"fence": 32, b"erase": 16}
Point = tuple[int, int]


class Found(Exception):
    """The name of what is wrong."""


def h(*parts: bytes) -> bytes:
    return sha256(b"".join(parts)).digest()


def add(p: Point, q: Point) -> Point:
    product = D * p[0] * q[0] * p[1] * q[1] % P
    x = (p[0] * q[1] + p[1] * q[0]) * pow(1 + product, -1, P)
    y = (p[1] * q[1] + p[0] * q[0]) * pow(1 - product, -1, P)
    return x % P, y % P


def times(n: int, p: Point) -> Point:
    total = (0, 1)
    for bit in bin(n)[2:]:
        total = add(total, total)
        total = add(total, p) if bit == "1" else total
    return total


def point(encoded: bytes) -> Point | None:
    """RFC 8032, 5.1.3; None if it is not canonical or not on the curve."""
    y, sign = int.from_bytes(encoded, "little") & 2**255 - 1, encoded[31] >> 7
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    if x * x % P != square or (x == 0 and sign):
        return None
    return (P - x if x & 1 != sign else x), y


@cache
def sound(key: bytes) -> bool:
    place = point(key)
    return place is not None and place != (0, 1) and times(L, place) == (0, 1)


def holds(key: bytes, message: bytes, signature: bytes) -> bool:
    place = point(signature[:32])
    if place is None or times(8, place) == (0, 1) or int.from_bytes(signature[32:], "little") >= L:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def tree(hashes: list[bytes]) -> bytes:
    """Level by level, a lone node going up unchanged: the same tree as RFC 6962's."""
    level = [h(b"\0", each) for each in hashes]
    while len(level) > 1:
        paired = [h(b"\1", level[n], level[n + 1]) for n in range(0, len(level) - 1, 2)]
        level = paired + level[len(level) & ~1 :]
    return level[0]


class Cursor:
    def __init__(self, data: bytes) -> None:
        self.rest = memoryview(data)

    def take(self, count: int) -> bytes:
        if count > len(self.rest):
            raise Found("malformed")
        taken, self.rest = bytes(self.rest[:count]), self.rest[count:]
        return taken

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "big")

    def name(self) -> bytes:
        name = self.take(self.number(1))
        must(len(name) <= 200 and NAME.fullmatch(name), "malformed")
        return name

    def end(self) -> None:
        if self.rest:
            raise Found("malformed")


def must(condition: object, finding: str) -> None:
    if not condition:
        raise Found(finding)


@dataclass
class Stream:
    head: bytes
    revision: int = 0
    grants: dict[bytes, bytes] = field(default_factory=dict)


@dataclass
class Slice:
    format: int | None = None
    epoch: int = 0
    seal: bytes | None = None
    certificates: dict[bytes, bytes] = field(default_factory=dict)


class Commit:
    """A record's frame and header."""

    def __init__(self, raw: bytes) -> None:
        must(len(raw) <= 1_000_000, "malformed")
        frame = Cursor(raw)
        self.header = frame.take(frame.number(2))
        self.signature, self.body = frame.take(64), frame.take(frame.number(4))
        frame.end()
        self.hash = h(b"agent-party commit\0", self.header)
        cursor = Cursor(self.header)
        fixed = struct.unpack(">BBHQHQ32s32s32s16s32s", cursor.take(166))
        self.format, kind, self.slice, self.revision, self.events, _, self.log, self.prev, self.grant, _, self.root = (
            fixed
        )
        self.control = kind == 2
        must(self.format in (0, 1) and kind in (1, 2) and 1 <= self.events <= 1000, "malformed")
        must(self.revision == 0 and self.events == 1 if self.control else self.revision > 0, "malformed")
        self.stream = cursor.name()
        flags = cursor.number(1)
        must(flags < (16 if self.control else 64), "malformed")
        cursor.take((16 if flags & 1 else 0) + (16 if flags & 2 else 0) + (32 if flags & 4 else 0))
        if flags & 8:
            cursor.name()
            cursor.take(42)
        cursor.take(32 if flags & 16 else 0)
        if flags & 32:
            size = cursor.number(2)
            must(1 <= size <= 4096, "malformed")
            cursor.take(size)
        cursor.end()

    def contents(self) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """Type and payload of each event, and the root over all."""
        cursor, events, leaves = Cursor(self.body), [], []
        for _ in range(self.events):
            header = cursor.take(cursor.number(2))
            kind, in_blobs, size, plain = self.event(header)
            if self.control:
                must(plain and LENGTHS.get(kind) == size, "malformed")
            must((kind in LENGTHS) == self.control, "malformed")
            payload = cursor.take(32 if in_blobs else size)
            content = payload if in_blobs else h(payload)
            leaves.append(h(b"agent-party event\0", struct.pack(">H", len(header)), header, content))
            events.append((kind, payload))
        cursor.end()
        return events, tree(leaves)

    @staticmethod
    def event(header: bytes) -> tuple[bytes, bool, int, bool]:
        cursor = Cursor(header)
        flags, kind, schema, suite = cursor.number(1), cursor.take(cursor.number(1)), cursor.number(2), cursor.number(1)
        must(flags < 4 and schema > 0 and suite < 2, "malformed")
        must(len(kind) <= 64 and (kind in LENGTHS or TYPE.fullmatch(kind)), "malformed")
        cursor.take(48 * suite)
        size, attachments = cursor.number(4), cursor.number(1)
        must(attachments <= 16, "malformed")
        cursor.take(32 * attachments + (32 if flags & 2 else 0))
        cursor.end()
        return kind, bool(flags & 1), size, not (flags or suite or attachments)


class Reader:
    """Judges the records of one log, in order."""

    def __init__(self, root: bytes, slices: int, nonce: bytes) -> None:
        self.root, self.slices = root, slices
        self.id = h(b"agent-party log\0", root, b"\1", struct.pack(">I", slices), nonce)
        self.streams: dict[bytes, Stream] = {}
        self.parts: dict[int, Slice] = {}

    def home(self, stream: bytes) -> int:
        if match := KEYS.fullmatch(stream):
            return int(match[1])
        return int.from_bytes(h(b"agent-party slice\0", self.id, stream)[:4], "big") * self.slices // 2**32

    def judge(self, commit: Commit) -> None:
        must(commit.log == self.id, "wrong-log")
        must(commit.slice < self.slices and commit.slice == self.home(commit.stream), "wrong-slice")
        part = self.parts.get(commit.slice, Slice())
        genesis = Stream(h(b"agent-party genesis\0", self.id, commit.stream))
        stream = self.streams.get(commit.stream, genesis)
        must(part.format in (None, commit.format), "wrong-format")
        must(part.seal is None or (commit.control and bool(KEYS.fullmatch(commit.stream))), "sealed")
        if commit.control:
            key = self.root if commit.grant == bytes(32) else part.certificates.get(commit.grant)
        else:
            key = stream.grants.get(commit.grant)
        must(key, "no-grant")
        must(commit.control or commit.revision > stream.revision, "stale")
        events, root = commit.contents()
        must(root == commit.root, "body-mismatch")
        must(holds(key or b"", b"agent-party sign\0" + commit.hash, commit.signature), "bad-signature")
        linked = commit.prev == stream.head
        if not commit.control:
            must(linked and commit.revision == stream.revision + 1, "unlinked")
            stream.head, stream.revision = commit.hash, commit.revision
        else:
            self.obey(commit, *events[0], stream, part, linked)
        part.format = commit.format if part.format is None else part.format
        self.streams[commit.stream], self.parts[commit.slice] = stream, part

    def obey(self, commit: Commit, kind: bytes, payload: bytes, stream: Stream, part: Slice, linked: bool) -> None:
        on_slice_stream, inbox = bool(KEYS.fullmatch(commit.stream)), commit.stream.startswith(b"inbox/")
        must(part.seal is None or kind == b"open", "sealed")
        must((kind in OF_SLICES) == on_slice_stream, "not-allowed")
        must(not on_slice_stream or commit.grant == bytes(32), "not-allowed")
        if kind == b"fence":
            must(commit.prev == payload and payload in stream.grants, "stale")
            del stream.grants[payload]
            return
        key = payload[1:33] if kind == b"grant" else payload
        must(kind not in (b"grant", b"certify") or sound(key), "not-allowed")
        must(kind != b"grant" or payload[0] == (2 if inbox else 1), "not-allowed")
        must(kind != b"grant" or not inbox or len(stream.grants) < 256, "not-allowed")
        must(kind != b"certify" or len(part.certificates) < 64, "not-allowed")
        must(kind != b"revoke" or payload in part.certificates, "not-allowed")
        must(kind != b"upgrade" or payload[0] > commit.format, "not-allowed")
        must(kind != b"open" or payload == part.seal, "not-allowed")
        must(linked, "unlinked")
        stream.head = commit.hash
        if kind == b"grant":
            stream.grants = {**(stream.grants if inbox else {}), commit.hash: key}
        elif kind == b"certify":
            part.certificates[commit.hash] = key
        elif kind == b"revoke":
            del part.certificates[payload]
        elif kind == b"upgrade":
            part.format = payload[0]
        elif kind == b"seal":
            part.seal = commit.hash
        elif kind == b"open":
            part.seal = None


def verify(data: bytes, root: bytes) -> tuple[str, dict[str, object]]:
    """Finding (empty if the export holds) and place."""
    at: dict[str, object] = {"record": 0}
    count, last = 0, (0, 0, b"")
    cursor = Cursor(data)
    try:
        must(cursor.take(21) == b"agent-party export 0\n", "not-an-export")
        key, slices, nonce = cursor.take(32), cursor.number(4), cursor.take(32)
        must(slices in [1 << n for n in range(17)], "malformed")
        must(key == root, "wrong-root")
        reader = Reader(key, slices, nonce)
        while size := cursor.number(4):
            commit = Commit(cursor.take(size))
            at |= {"stream": commit.stream.decode(), "revision": commit.revision}
            reader.judge(commit)
            part = reader.parts[commit.slice]
            keys = KEYS.fullmatch(commit.stream) is not None
            part.epoch += keys
            place = (commit.slice, part.epoch, b"" if keys else commit.stream)
            must(place >= last, "wrong-order")
            count, last = count + 1, place
            at = {"record": count}
        checked = len(data) - len(cursor.rest)
        must(cursor.take(32) == h(data[:checked]), "wrong-checksum")
        cursor.end()
    except Found as found:
        return str(found), at
    return "", at
