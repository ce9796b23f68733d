"""The log format and its rule, whole, in one file that trusts nothing.

    python verify.py FILE --root HEX [--log HEX]

Exits 0 if every record of the export holds, 1 with the finding and its place if not, 2 if there is nothing to read.
It needs the standard library and PyNaCl: copy the file away and it still runs. The program itself decodes and judges
every record with these functions, so what an auditor runs cannot drift from it. ``docs/log-format.md`` is the prose.
Sources: RFC 8032 (Ed25519), RFC 6962 section 2.1 (Merkle tree), RFC 5869 (HKDF, used by writers only).
"""

import argparse
import functools
import hashlib
import json
import re
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from nacl.bindings import crypto_core_ed25519_is_valid_point, crypto_sign_open
from nacl.exceptions import CryptoError

FORMATS, NOT_BEGUN = frozenset({0, 1}), -1
MAX_RECORD, MAX_EVENTS, MAX_ATTACHMENTS, MAX_GRANTS, MAX_ISSUERS = 1_000_000, 1_000, 16, 256, 64
MAX_STREAM, MAX_TYPE, MAX_META, EXPORT_MAGIC, ZERO = 200, 64, 4_096, b"agent-party export 0\n", bytes(32)
(DATA, CONTROL), (OWNER, WRITER), (PLAIN, AES_GCM) = (1, 2), (1, 2), (0, 1)
STREAM = re.compile(rb"[a-z][a-z0-9-]{0,31}(/[A-Za-z0-9._~-]{1,64}){1,6}", re.ASCII)
EVENT_TYPE = re.compile(rb"[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)+", re.ASCII)
SLICE_STREAM = re.compile(rb"keys/(0|[1-9][0-9]{0,4})", re.ASCII)
SLICE_CONTROLS = {b"certify": 32, b"revoke": 32, b"upgrade": 1, b"seal": 4, b"open": 32}  # type → payload length
CONTROLS = SLICE_CONTROLS | {b"grant": 49, b"fence": 32, b"erase": 16}
FIXED = struct.Struct(">BBHQHQ32s32s32s16s32s")
AFTER_TYPE = {b"\0": struct.Struct(">HB0s0sIB"), b"\1": struct.Struct(">HB16s32sIB")}  # by cipher suite
COMMIT_TAG, SIGN_TAG, EVENT_TAG, LOG_TAG, SLICE_TAG, GENESIS_TAG = (
    f"agent-party {tag}\0".encode() for tag in ("commit", "sign", "event", "log", "slice", "genesis")
)


class Malformed(ValueError):
    """Bytes that are not a record, a header, a body or an export of this format; the text says why."""


def sha256(*parts: bytes) -> bytes:
    """SHA-256 of the parts, joined."""
    return hashlib.sha256(b"".join(parts)).digest()


class Identity(NamedTuple):
    """Which log. The root, or the log id itself, comes from the reader's configuration, never from the thing read."""

    root: bytes
    slices: int
    nonce: bytes
    log_id: bytes


def identity(root: bytes, slices: int, nonce: bytes) -> Identity:
    """The log that ``root`` founded with this many slices (a power of two up to 65,536) and this 32-byte nonce."""
    if len(root) != 32 or len(nonce) != 32 or not 1 <= slices <= 65_536 or slices & (slices - 1):
        raise Malformed("a log needs a 32-byte root key, a 32-byte nonce and a power of two of slices")
    return Identity(root, slices, nonce, sha256(LOG_TAG, root, b"\1", struct.pack(">I", slices), nonce))


@functools.lru_cache(10_000)
def slice_of(log: Identity, stream: bytes) -> int:
    """The slice a stream lives in: by hash, but for ``keys/N``, which lives in slice N."""
    if named := SLICE_STREAM.fullmatch(stream):
        return int(named[1])
    return int.from_bytes(sha256(SLICE_TAG, log.log_id, stream)[:4]) * log.slices >> 32


def key_is_sound(key: bytes) -> bool:
    """Whether an Ed25519 public key is canonical and of the prime-order group, so that it can be granted."""
    return len(key) == 32 and bool(crypto_core_ed25519_is_valid_point(key))


def signature_holds(key: bytes, message: bytes, signature: bytes) -> bool:
    """Ed25519 by libsodium's rule: S < L, A and R canonical and not of small order, cofactorless."""
    try:
        return len(key) == 32 and len(signature) == 64 and crypto_sign_open(signature + message, key) is not None
    except (CryptoError, ValueError):
        return False


def tree_root(leaves: Sequence[bytes]) -> bytes:
    """The RFC 6962 tree hash over these leaves, of which there is at least one."""
    nodes = [hashlib.sha256(b"\0" + leaf).digest() for leaf in leaves]
    while len(nodes) > 1:  # pair neighbours; an odd one at the end goes up as it is
        nodes = [sha256(b"\1", *nodes[i : i + 2]) for i in range(0, len(nodes) - 1, 2)] + nodes[len(nodes) & ~1 :]
    return nodes[0]


class Cause(NamedTuple):
    """The event that led to a commit: stream, revision, index in the commit, and that commit's hash."""

    stream: bytes
    revision: int
    event: int
    commit: bytes


class Header(NamedTuple):
    """What is hashed and signed, decoded. Times are microseconds since 1970 and only ever a claim."""

    format: int
    kind: int
    slice: int
    revision: int
    events: int
    time: int
    log_id: bytes
    prev: bytes
    grant: bytes
    commit_id: bytes
    body_root: bytes
    stream: bytes
    digest: bytes
    correlation: bytes
    authority: bytes
    cause: Cause | None
    salt: bytes
    meta: bytes


class Event(NamedTuple):
    """One event as it stands on the tape: ``payload`` is ciphertext, or its hash where it lies in the blobs."""

    type: bytes
    schema: int
    suite: int
    key_id: bytes
    commitment: bytes
    length: int
    in_blobs: bool
    attachments: tuple[bytes, ...]
    fields: bytes
    payload: bytes


class Record(NamedTuple):
    """One commit: the bytes, the parts, and ``commit``, the hash by which everything else names it."""

    raw: bytes
    header: Header
    signature: bytes
    body: bytes
    commit: bytes


class _Reader:
    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data, self.at = data, at

    def take(self, size: int) -> bytes:
        start, self.at = self.at, self.at + size
        if self.at > len(self.data):
            raise Malformed(f"ends at byte {len(self.data)} where {self.at} are needed")
        return self.data[start : self.at]

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width))

    def counted(self, width: int) -> bytes:
        return self.take(width + int.from_bytes(self.data[self.at : self.at + width]))[width:]

    def stream(self) -> bytes:
        name = self.counted(1)
        if len(name) > MAX_STREAM or not STREAM.fullmatch(name):
            raise Malformed("a stream name outside the grammar")
        return name

    def end(self) -> None:
        if self.at != len(self.data):
            raise Malformed(f"{len(self.data) - self.at} bytes after the end")


def parse_header(data: bytes) -> Header:
    """Decode a header strictly: one form for each meaning, nothing left over."""
    if len(data) < FIXED.size:
        raise Malformed("a header that is too short")
    form, kind, _, revision, count = (fixed := FIXED.unpack_from(data))[:5]
    if form not in FORMATS:
        raise Malformed(f"format {form}, which this reader does not know")
    most = MAX_EVENTS if kind == DATA else 1
    if kind not in (DATA, CONTROL) or not 1 <= count <= most or (kind == DATA) != (revision > 0):
        raise Malformed("a kind that does not exist, or a revision or an event count that it cannot have")
    read = _Reader(data, FIXED.size)
    stream, flags = read.stream(), read.number(1)
    if flags & ~0b111111 or (kind == CONTROL and flags & 0b110000):
        raise Malformed("flags that do not exist")
    digest, correlation = read.take(16) if flags & 1 else b"", read.take(16) if flags & 2 else b""
    authority = read.take(32) if flags & 4 else b""
    cause = Cause(read.stream(), read.number(8), read.number(2), read.take(32)) if flags & 8 else None
    salt = read.take(32) if flags & 16 else b""
    meta = read.counted(2) if flags & 32 else b""
    read.end()
    if flags & 32 and not 1 <= len(meta) <= MAX_META:
        raise Malformed("sealed metadata that is empty or too long")
    return Header._make((*fixed, stream, digest, correlation, authority, cause, salt, meta))


def parse(raw: bytes) -> Record:
    """Decode a record's frame and header; the body is decoded by `parse_body`, once the cheap tests are passed."""
    if len(raw) > MAX_RECORD:
        raise Malformed(f"a record of {len(raw)} bytes, over the limit of {MAX_RECORD}")
    signed = 2 + int.from_bytes(raw[:2])
    rest, head = signed + 68, raw[2:signed]
    if len(raw) < rest or len(raw) - rest != int.from_bytes(raw[rest - 4 : rest]):
        raise Malformed("a record that its parts do not fill exactly")
    return Record(raw, parse_header(head), raw[signed : signed + 64], raw[rest:], sha256(COMMIT_TAG, head))


def parse_event_header(data: bytes) -> Event:
    """Decode an event header strictly; the payload is empty."""
    read = _Reader(data)
    flags, kind = read.number(1), read.counted(1)
    form = AFTER_TYPE.get(data[read.at + 2 : read.at + 3])
    if flags & ~0b11 or not form:
        raise Malformed("event flags or a cipher suite that do not exist")
    schema, suite, key_id, commitment, length, attached = form.unpack(read.take(form.size))
    if len(kind) > MAX_TYPE or not (EVENT_TYPE.fullmatch(kind) or kind in CONTROLS):
        raise Malformed("an event type outside the grammar")
    if not schema or attached > MAX_ATTACHMENTS:
        raise Malformed("schema version 0, or too many attachments")
    attachments = tuple([read.take(32) for _ in range(attached)]) if attached else ()
    fields = read.take(32) if flags & 2 else b""
    read.end()
    return Event(kind, schema, suite, key_id, commitment, length, bool(flags & 1), attachments, fields, b"")


def parse_body(record: Record) -> tuple[list[Event], bytes]:
    """The events of a record and the root of the tree over them, computed from the bytes."""
    read, events, leaves, control = _Reader(record.body), [], [], record.header.kind == CONTROL
    for _ in range(record.header.events):
        event = parse_event_header(head := read.counted(2))
        if control and (len(head) != 10 + len(kind := event.type) or head[0] or CONTROLS.get(kind) != event.length):
            raise Malformed("a control event that is not plain, or of another length than its type has")
        if control != (event.type in CONTROLS):
            raise Malformed("a control type in a data commit, or the reverse")
        payload = read.take(32 if event.in_blobs else event.length)
        content = payload if event.in_blobs else hashlib.sha256(payload).digest()
        leaves.append(hashlib.sha256(EVENT_TAG + len(head).to_bytes(2) + head + content).digest())
        events.append(Event._make((*event[:-1], payload)))
    read.end()
    return events, tree_root(leaves)


class StreamState(NamedTuple):
    """What the rule remembers of a stream. ``grants``: commit hash of each grant in force → role, key."""

    head: bytes
    revision: int
    grants: Mapping[bytes, tuple[int, bytes]]


def beginning(log: Identity, stream: bytes) -> StreamState:
    """A stream before its first record, whose predecessor is this head."""
    return StreamState(sha256(GENESIS_TAG, log.log_id, stream), 0, {})


class SliceState(NamedTuple):
    """A slice. ``issuers``: certificates in force → key. ``sealed``: by this seal. ``lane``: where a seal sent it."""

    issuers: Mapping[bytes, bytes] = {}
    format: int = NOT_BEGUN
    sealed: bytes = b""
    lane: int = -1


class Verdict(NamedTuple):
    """``finding`` is empty where the record is accepted; the states are those after it."""

    finding: str
    stream: StreamState
    slice: SliceState
    events: list[Event]


def judge(log: Identity, part: SliceState, state: StreamState, record: Record, *, own: bool = False) -> Verdict:
    """The rule: is this record the stream's next? Pure; every reader applies it to every record, in tape order.

    ``own``: this process signed these very bytes a moment ago, so their signature, and only that, is taken as read.
    """
    header, control, after, finding, events = record.header, record.header.kind == CONTROL, state, "", list[Event]()
    part_after = part if part.format != NOT_BEGUN else part._replace(format=header.format)
    held = part.issuers.get(header.grant, b"") if control else state.grants.get(header.grant, (0, b""))[1]
    key = log.root if control and header.grant == ZERO else held
    if header.log_id != log.log_id:
        finding = "wrong-log"
    elif header.slice >= log.slices or header.slice != slice_of(log, header.stream):
        finding = "wrong-slice"
    elif header.format != part_after.format:
        finding = "wrong-format"
    elif part.sealed and not (control and SLICE_STREAM.fullmatch(header.stream)):
        finding = "sealed"
    elif not key:
        finding = "no-grant"
    elif not control and header.revision <= state.revision:
        finding = "stale"
    if not finding:
        try:
            events, root = parse_body(record)
            finding = "" if root == header.body_root else "body-mismatch"
        except Malformed:
            finding = "malformed"
    if not finding and not own and not signature_holds(key, SIGN_TAG + record.commit, record.signature):
        finding = "bad-signature"
    if not finding and control:
        finding, after, part_after = _obey(part_after, state, record, events[0])
    elif not finding:
        finding = "" if (header.prev, header.revision) == (state.head, state.revision + 1) else "unlinked"
        after = StreamState(record.commit, header.revision, state.grants)
    return Verdict(finding, state, part, []) if finding else Verdict("", after, part_after, events)


def _obey(part: SliceState, state: StreamState, record: Record, event: Event) -> tuple[str, StreamState, SliceState]:
    """What a control commit changes, or why it may not."""
    header, kind, payload, grants, issuers = record.header, event.type, event.payload, state.grants, dict(part.issuers)
    of_slice, of_inbox = bool(SLICE_STREAM.fullmatch(header.stream)), header.stream.startswith(b"inbox/")
    if part.sealed and kind != b"open":
        return "sealed", state, part
    allowed = (kind in SLICE_CONTROLS) == of_slice and (header.grant == ZERO or not of_slice)
    if kind == b"fence" and allowed:  # whatever the head is, and without moving it
        left = {grant: held for grant, held in grants.items() if grant != payload}
        return "" if header.prev == payload and payload in grants else "stale", state._replace(grants=left), part
    if kind == b"grant":
        allowed = allowed and payload[0] == (WRITER if of_inbox else OWNER) and key_is_sound(payload[1:33])
        allowed = allowed and not (of_inbox and len(grants) >= MAX_GRANTS)
        grants = {**(grants if of_inbox else {}), record.commit: (payload[0], payload[1:33])}
    elif kind == b"certify":
        allowed = allowed and len(issuers) < MAX_ISSUERS and key_is_sound(payload)
        part = part._replace(issuers={**issuers, record.commit: payload})
    elif kind == b"revoke":
        allowed = allowed and issuers.pop(payload, None) is not None
        part = part._replace(issuers=issuers)
    elif kind == b"upgrade":
        allowed, part = allowed and payload[0] > part.format, part._replace(format=payload[0])
    elif kind == b"seal":
        part = part._replace(sealed=record.commit, lane=int.from_bytes(payload))
    elif kind == b"open":
        allowed, part = allowed and payload == part.sealed, part._replace(sealed=b"")
    finding = "not-allowed" if not allowed else "" if header.prev == state.head else "unlinked"
    return finding, StreamState(record.commit, state.revision, grants), part


def check_export(data: bytes, root: bytes, log_id: bytes | None = None) -> dict[str, object]:
    """Judge every record of an export. The answer holds ``finding`` (empty if all holds), ``at`` and counts."""
    streams, parts = dict[bytes, StreamState](), dict[int, SliceState]()
    at, last, commits, count, keys = dict[str, object](record=0), (0, 0, b""), 0, 0, 0

    def found(finding: str, **more: object) -> dict[str, object]:
        return {"finding": finding, "at": at, "commits": commits, "events": count, "streams": len(streams), **more}

    try:
        read = _Reader(data)
        if read.take(len(EXPORT_MAGIC)) != EXPORT_MAGIC:
            return found("not-an-export")
        log = identity(read.take(32), read.number(4), read.take(32))
        if log.root != root or (log_id or log.log_id) != log.log_id:
            return found("wrong-root" if log.root != root else "wrong-log")
        while size := read.number(4):
            record = parse(read.take(size))
            stream, part = (header := record.header).stream, header.slice
            at |= {"stream": stream.decode(), "revision": header.revision}
            verdict = judge(log, parts.get(part, SliceState()), streams.get(stream) or beginning(log, stream), record)
            of_slice, keys = bool(SLICE_STREAM.fullmatch(stream)), keys if part == last[0] else 0
            place = (part, keys + of_slice, b"" if of_slice else stream)
            if verdict.finding or place < last:
                return found(verdict.finding or "wrong-order")
            streams[stream], parts[part], last, keys = verdict.stream, verdict.slice, place, place[1]
            commits, count, at = commits + 1, count + len(verdict.events), {"record": commits + 1}
        if read.take(32) != sha256(data[: read.at - 32]):
            return found("wrong-checksum")
        read.end()
    except Malformed as error:
        return found("malformed", detail=str(error))
    return found("", log=log.log_id.hex())


def main(arguments: list[str]) -> int:
    """The command line: 0 all holds, 1 something does not, 2 there is nothing to check."""
    parser = argparse.ArgumentParser(prog="verify.py", description="Check an export of an Agent Party log, offline.")
    parser.add_argument("file", help="an export (party log export)")
    parser.add_argument("--root", required=True, type=bytes.fromhex, help="the log's root key, hex: from its owner")
    parser.add_argument("--log", type=bytes.fromhex, help="the log id, hex, if only this log will do")
    options = parser.parse_args(arguments)
    try:
        report = check_export(Path(options.file).read_bytes(), options.root, options.log)
    except OSError as error:
        print(f"verify.py: {error}", file=sys.stderr)
        return 2
    not_shown = "whether later records were cut off; when any was written"
    print(json.dumps(report | ({} if report["finding"] else {"not_shown": not_shown})))
    return 1 if report["finding"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
