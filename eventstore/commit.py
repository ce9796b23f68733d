"""The writer's side of the format: from events to the bytes of one signed record.

Reading is `agent_party.eventstore.verify`, which imports nothing of ours. What is hashed and signed is built here
once and never serialised again.
"""

import hashlib
import struct
from collections.abc import Sequence
from typing import NamedTuple

from nacl.bindings import crypto_sign, crypto_sign_seed_keypair

from . import sealing
from .errors import NewerFormatError, PayloadError
from .verify import (
    AES_GCM,
    COMMIT_TAG,
    CONTROL,
    DATA,
    EVENT_TAG,
    FIXED,
    FORMATS,
    MAX_ATTACHMENTS,
    MAX_EVENTS,
    MAX_RECORD,
    NOT_BEGUN,
    PLAIN,
    SIGN_TAG,
    ZERO,
    Cause,
    Identity,
    SliceState,
    StreamState,
    sha256,
    slice_of,
    tree_root,
)

FORMAT = 1
"""The format in which a slice begins. What follows is written in the slice's own."""


class SigningKey(NamedTuple):
    """An Ed25519 key pair: ``secret`` is libsodium's 64 bytes, seed and public key."""

    secret: bytes
    public: bytes

    @classmethod
    def from_seed(cls, seed: bytes) -> "SigningKey":
        """The key pair of a 32-byte seed (RFC 8032)."""
        public, secret = crypto_sign_seed_keypair(seed)
        return cls(secret, public)

    def sign(self, message: bytes) -> bytes:
        """A 64-byte signature."""
        return crypto_sign(message, self.secret)[:64]


class DataKey(NamedTuple):
    """A data key and the 16-byte id by which records name it."""

    id: bytes
    secret: bytes


class Payload(NamedTuple):
    """One event to be written: plaintext, and the key it is sealed with (None: plaintext on the log)."""

    type: bytes
    schema: int
    plaintext: bytes
    key: DataKey | None
    attachments: tuple[bytes, ...] = ()


class Draft(NamedTuple):
    """All of a data commit but its place in the chain."""

    stream: bytes
    payloads: Sequence[Payload]
    commit_id: bytes
    time: int
    salt: bytes
    digest: bytes = b""
    correlation: bytes = b""
    authority: bytes = b""
    cause: Cause | None = None
    format: int = FORMAT


class Built(NamedTuple):
    """A record, its hash, the ciphertexts that must lie in the blobs before it is appended, what `follows` needs to
    know, how many bytes of payload there are in all, and the events' types."""

    raw: bytes
    commit: bytes
    revision: int
    slice: int
    blobs: list[bytes]
    time: int
    stream: bytes
    prev: bytes
    grant: bytes
    signer: bytes
    size: int = 0
    types: tuple[bytes, ...] = ()


def build(log: Identity, draft: Draft, prev: bytes, revision: int, grant: bytes, key: SigningKey, inline: int) -> Built:
    """Encrypt, hash and sign a data commit. Ciphertexts longer than ``inline`` bytes go to the blobs (claim check)."""
    if not 1 <= len(draft.payloads) <= MAX_EVENTS:
        raise PayloadError(f"a commit holds 1 to {MAX_EVENTS} events, not {len(draft.payloads)}: divide it")
    parts: list[bytes] = []
    leaves: list[bytes] = []
    blobs: list[bytes] = []
    extracted: dict[bytes, bytes] = {}
    total = 0
    for index, payload in enumerate(draft.payloads):
        head, content = _seal(log, draft, revision, index, payload, extracted)
        digest = hashlib.sha256(content).digest()
        total += len(content)
        if len(content) > inline:
            blobs.append(content)
            head, content = b"\1" + head[1:], digest
        size = len(head).to_bytes(2)
        leaves.append(sha256(EVENT_TAG, size, head, digest))
        parts += (size, head, content)
    body = b"".join(parts)
    return _record(log, draft, (DATA, prev, revision, grant, len(leaves)), body, leaves, key)._replace(
        blobs=blobs, size=total, types=tuple([payload.type for payload in draft.payloads])
    )


def _seal(
    log: Identity, draft: Draft, revision: int, index: int, payload: Payload, extracted: dict[bytes, bytes]
) -> tuple[bytes, bytes]:
    """An event's header and what stands under it."""
    kind, schema, plaintext, key, attachments = payload
    if attachments and (len(attachments) > MAX_ATTACHMENTS or any(len(name) != 32 for name in attachments)):
        raise PayloadError(f"an event has at most {MAX_ATTACHMENTS} attachments, each named by a hash of 32 bytes")
    front = b"\0" + bytes([len(kind)]) + kind + schema.to_bytes(2)
    back = bytes([len(attachments)]) + b"".join(attachments)
    if key is None:
        return front + bytes([PLAIN]) + len(plaintext).to_bytes(4) + back, plaintext
    if key.id not in extracted:
        extracted[key.id] = sealing.hkdf_extract(draft.salt, key.secret)
    secret = sealing.event_key(extracted[key.id], index)
    place = sealing.Place(log.log_id, draft.stream, revision, index, kind, schema)
    content = sealing.encrypt(secret, plaintext, sealing.associated(place, key.id))
    middle = bytes([AES_GCM]) + key.id + sealing.commitment(secret) + len(content).to_bytes(4)
    return front + middle + back, content


def control(
    log: Identity, draft: Draft, kind: bytes, payload: bytes, prev: bytes, grant: bytes, key: SigningKey
) -> Built:
    """Build a control commit. ``grant``: the issuing key's certificate, or `ZERO` for the root key."""
    head = b"\0" + bytes([len(kind)]) + kind + b"\0\1\0" + len(payload).to_bytes(4) + b"\0"
    size = len(head).to_bytes(2)
    leaf = sha256(EVENT_TAG, size, head, hashlib.sha256(payload).digest())
    return _record(log, draft, (CONTROL, prev, 0, grant, 1), size + head + payload, [leaf], key)


def _record(
    log: Identity,
    draft: Draft,
    chain: tuple[int, bytes, int, bytes, int],
    body: bytes,
    leaves: list[bytes],
    key: SigningKey,
) -> Built:
    kind, prev, revision, grant, count = chain
    stream, part, root = draft.stream, slice_of(log, draft.stream), tree_root(leaves)
    fixed = (draft.format, kind, part, revision, count, draft.time, log.log_id, prev, grant, draft.commit_id, root)
    salt = draft.salt if kind == DATA else b""
    cause, causation = draft.cause, b""
    if cause:
        place = struct.pack(">QH", cause.revision, cause.event)
        causation = bytes([len(cause.stream)]) + cause.stream + place + cause.commit
    optional = (draft.digest, draft.correlation, draft.authority, causation, salt)
    flags = sum(1 << bit for bit, value in enumerate(optional) if value)
    head = FIXED.pack(*fixed) + bytes([len(stream)]) + stream + bytes([flags]) + b"".join(optional)
    commit = hashlib.sha256(COMMIT_TAG + head).digest()
    raw = b"".join((len(head).to_bytes(2), head, key.sign(SIGN_TAG + commit), len(body).to_bytes(4), body))
    if len(raw) > MAX_RECORD:
        raise PayloadError(f"a commit of {len(raw):,} bytes, over the format's {MAX_RECORD:,}: divide it into several")
    return Built(raw, commit, revision, part, [], draft.time, stream, prev, grant, key.public)


def format_of(stream: str, part: SliceState) -> int:
    """The format in which the next record of a stream's slice is written: `NewerFormatError` if we cannot."""
    if part.format in FORMATS:
        return part.format
    if part.format == NOT_BEGUN:
        return FORMAT
    raise NewerFormatError(stream, part.format)


def follows(built: Built, state: StreamState, part: SliceState) -> StreamState | None:
    """The stream's state after a data commit that this process built on these states; None: the rule must say.

    What `judge` would answer for the bytes, without reading them again: log, slice, count, root and signature are
    right because `build` computed them, and what depends on the states is compared here.
    """
    linked = built.prev == state.head and built.revision == state.revision + 1
    if (
        linked
        and built.raw[2] == part.format
        and not part.sealed
        and state.grants.get(built.grant, (0, b""))[1] == built.signer
    ):
        return StreamState(built.commit, built.revision, state.grants)
    return None


__all__ = ["ZERO", "Built", "DataKey", "Draft", "Payload", "SigningKey", "build", "control", "format_of"]
