"""Makes logs in memory, record by record, without a store: for vectors and for tests that forge and alter.

The same seed makes the same bytes. Nothing here is a clock or a random source of the machine.
"""

import hashlib
import struct
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from agent_party.eventstore.ambient import Seeded
from agent_party.eventstore.commit import FORMAT, DataKey, Draft, Payload, SigningKey, build, control
from agent_party.eventstore.verify import (
    COMMIT_TAG,
    EVENT_TAG,
    EXPORT_MAGIC,
    FIXED,
    NOT_BEGUN,
    OWNER,
    SIGN_TAG,
    SLICE_STREAM,
    WRITER,
    ZERO,
    Header,
    Identity,
    Record,
    SliceState,
    StreamState,
    beginning,
    identity,
    judge,
    parse,
    sha256,
    slice_of,
    tree_root,
)


class Holder(NamedTuple):
    """Who may write a stream: the key and its grant's hash."""

    stream: bytes
    key: SigningKey
    grant: bytes


class Making:
    """A log in the making: the rule's state and all accepted records, in slice order for each slice."""

    def __init__(self, seed: int, slices: int = 1, *, certified: bool = True, format: int = FORMAT) -> None:  # noqa: A002
        self.ambient, self.format = Seeded(seed), format
        self.root, self.issuer = self.new_key(), self.new_key()
        self.log: Identity = identity(self.root.public, slices, self.ambient.random(32))
        self.data_key = DataKey(self.ambient.random(16), self.ambient.random(32))
        self.states: dict[bytes, StreamState] = {}
        self.parts: dict[int, SliceState] = {}
        self.records: list[bytes] = []
        if certified:
            for part in range(min(slices, 4)):
                self.certify(part)

    def new_key(self) -> SigningKey:
        return SigningKey.from_seed(self.ambient.random(32))

    def state(self, stream: bytes) -> StreamState:
        return self.states.get(stream) or beginning(self.log, stream)

    def part(self, number: int) -> SliceState:
        return self.parts.get(number) or SliceState()

    def add(self, raw: bytes) -> bytes:
        """Take a record into the log, which must accept it. Its hash."""
        record = parse(raw)
        stream, part = record.header.stream, record.header.slice
        verdict = judge(self.log, self.part(part), self.state(stream), record)
        assert not verdict.finding, f"{verdict.finding} on {stream.decode()}"
        self.states[stream], self.parts[part] = verdict.stream, verdict.slice
        self.records.append(raw)
        return record.commit

    def draft(self, stream: bytes, payloads: Sequence[Payload] = (), **more: Any) -> Draft:
        salt = self.ambient.random(32) if payloads else b""
        begun = self.part(slice_of(self.log, stream)).format
        form = self.format if begun == NOT_BEGUN else begun
        return Draft(stream, payloads, self.ambient.random(16), self.ambient.now(), salt, **{"format": form} | more)

    def controlling(
        self,
        stream: bytes,
        kind: bytes,
        payload: bytes,
        *,
        key: SigningKey | None = None,
        grant: bytes | None = None,
        prev: bytes | None = None,
    ) -> bytes:
        """A control record, signed by the root on ``keys/N`` and by the issuing key elsewhere; not yet added."""
        of_slice = SLICE_STREAM.fullmatch(stream)
        key = key or (self.root if of_slice else self.issuer)
        grant = (ZERO if of_slice else self.certificate(stream)) if grant is None else grant
        prev = self.state(stream).head if prev is None else prev
        return control(self.log, self.draft(stream), kind, payload, prev, grant, key).raw

    def certificate(self, stream: bytes, key: SigningKey | None = None) -> bytes:
        """The certificate of the issuing key (or of ``key``) in a stream's slice."""
        public = (key or self.issuer).public
        issuers = self.part(slice_of(self.log, stream)).issuers
        return next((commit for commit, held in issuers.items() if held == public), sha256(b"no certificate"))

    def certify(self, part: int = 0, key: SigningKey | None = None) -> bytes:
        return self.add(self.controlling(b"keys/%d" % part, b"certify", (key or self.issuer).public))

    def grant(self, stream: bytes, key: SigningKey | None = None) -> Holder:
        """Grant a stream to a new key."""
        key = key or self.new_key()
        role = WRITER if stream.startswith(b"inbox/") else OWNER
        payload = bytes([role]) + key.public + self.ambient.random(16)
        return Holder(stream, key, self.add(self.controlling(stream, b"grant", payload)))

    def fence(self, holder: Holder) -> bytes:
        return self.add(self.controlling(holder.stream, b"fence", holder.grant, prev=holder.grant))

    def texts(self, count: int = 1, *, sealed: bool = True, size: int = 20, **more: Any) -> list[Payload]:
        """Payloads to write."""
        key = self.data_key if sealed else None
        return [Payload(b"note.written", 1, self.ambient.random(size), key, **more) for _ in range(count)]

    def data(
        self,
        holder: Holder,
        payloads: Sequence[Payload] | None = None,
        *,
        inline: int = 65_536,
        prev: bytes | None = None,
        revision: int | None = None,
        **more: Any,
    ) -> bytes:
        """A data record by a holder, the stream's next unless told otherwise; not yet added."""
        state = self.state(holder.stream)
        draft = self.draft(holder.stream, payloads or self.texts(), **more)
        prev = state.head if prev is None else prev
        revision = state.revision + 1 if revision is None else revision
        return build(self.log, draft, prev, revision, holder.grant, holder.key, inline).raw

    def append(self, holder: Holder, *arguments: Any, **more: Any) -> bytes:
        """`data`, added. Its hash."""
        return self.add(self.data(holder, *arguments, **more))

    def export(self) -> bytes:
        return framed(self.log, canonical(self.records))


def framed(log: Identity, raws: Iterable[bytes]) -> bytes:
    """An export file of these records, in this order."""
    front = EXPORT_MAGIC + log.root + log.slices.to_bytes(4) + log.nonce
    data = front + b"".join(len(raw).to_bytes(4) + raw for raw in raws) + bytes(4)
    return data + sha256(data)


def canonical(raws: Sequence[bytes]) -> list[bytes]:
    """The records in the order of an export; each slice's must come in the slice's order."""
    placed: list[tuple[tuple[int, int, bytes, int], bytes]] = []
    epochs: dict[int, int] = {}
    for number, raw in enumerate(raws):
        header = parse(raw).header
        of_slice = bool(SLICE_STREAM.fullmatch(header.stream))
        epochs[header.slice] = epochs.get(header.slice, 0) + of_slice
        placed.append(((header.slice, epochs[header.slice], b"" if of_slice else header.stream, number), raw))
    return [raw for _, raw in sorted(placed)]


def packed(header: Header, *, flags: int | None = None) -> bytes:
    """A header's bytes, whatever its values are."""
    fixed = FIXED.pack(*header[:11])
    cause = b""
    if header.cause:
        stream, revision, event, commit = header.cause
        cause = bytes([len(stream)]) + stream + struct.pack(">QH", revision, event) + commit
    meta = len(header.meta).to_bytes(2) + header.meta if header.meta or (flags or 0) & 32 else b""
    optional = (header.digest, header.correlation, header.authority, cause, header.salt, meta)
    given = sum(1 << bit for bit, value in enumerate(optional) if value) if flags is None else flags
    return fixed + bytes([len(header.stream)]) + header.stream + bytes([given]) + b"".join(optional)


def signed(head: bytes, body: bytes, key: SigningKey) -> bytes:
    """A record of this header and body, with a good signature."""
    commit = hashlib.sha256(COMMIT_TAG + head).digest()
    return joined(head, key.sign(SIGN_TAG + commit), body)


def joined(head: bytes, signature: bytes, body: bytes) -> bytes:
    """A record of its three parts."""
    return len(head).to_bytes(2) + head + signature + len(body).to_bytes(4) + body


def altered(
    raw: bytes, key: SigningKey, *, flags: int | None = None, body: bytes | None = None, **fields: Any
) -> bytes:
    """The record with other header fields or another body, signed again by a key."""
    record: Record = parse(raw)
    header = record.header._replace(**fields)
    return signed(packed(header, flags=flags), record.body if body is None else body, key)


class Told(NamedTuple):
    """An event as told: any bytes for its header, its payload, and what of it is hashed."""

    head: bytes
    payload: bytes


def event_head(
    kind: bytes = b"note.written",
    length: int = 0,
    *,
    flags: int = 0,
    schema: int = 1,
    suite: int = 0,
    sealed: bytes = b"",
    attachments: int = 0,
    more: bytes = b"",
) -> bytes:
    """An event header's bytes, whatever its values are."""
    front = bytes([flags, len(kind)]) + kind + schema.to_bytes(2) + bytes([suite]) + sealed
    return front + length.to_bytes(4) + bytes([attachments]) + bytes(32 * attachments) + more


def rebodied(raw: bytes, key: SigningKey, events: Sequence[Told], *, trailing: bytes = b"") -> bytes:
    """The record with other events, their root and count put right, signed again by a key."""
    body = b"".join(len(head).to_bytes(2) + head + payload for head, payload in events) + trailing
    leaves = [
        sha256(EVENT_TAG, len(head).to_bytes(2), head, payload if head[0] & 1 else hashlib.sha256(payload).digest())
        for head, payload in events
    ]
    return altered(raw, key, body=body, events=len(events), body_root=tree_root(leaves))
