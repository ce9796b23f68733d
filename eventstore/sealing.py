"""Encryption of payloads: AES-256-GCM, each event under its own key, derived and committed to.

    event key  = HKDF-SHA-256(data key, salt of the commit, "agent-party event key\\0" ‖ index)     RFC 5869
    commitment = SHA-256("agent-party key commitment\\0" ‖ event key)                 stands in the event header
    nonce      = 12 zero bytes: a key seals one message, ever
    associated = log id, stream, revision, index, type, schema, data-key id

So a ciphertext cannot be moved elsewhere, an event can be disclosed by its key without disclosing another, and a
data key that is destroyed takes every event of its subject with it while all hashes still hold.
"""

import hashlib
import hmac
import struct
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .errors import PayloadError

_EVENT_KEY = b"agent-party event key\0"
_COMMITMENT = b"agent-party key commitment\0"
_NONCE = bytes(12)
METADATA = 0xFFFF


class Place(NamedTuple):
    """Where a ciphertext stands; all of it is bound to the ciphertext."""

    log_id: bytes
    stream: bytes
    revision: int
    event: int
    type: bytes
    schema: int


def hkdf_extract(salt: bytes, secret: bytes) -> bytes:
    """RFC 5869 2.2: a pseudo-random key from a secret; an empty salt stands for 32 zero bytes."""
    return hmac.digest(salt or bytes(32), secret, "sha256")


def hkdf_expand(key: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869 2.3: up to 8,160 bytes from a pseudo-random key."""
    if not 0 < length <= 255 * 32:
        raise PayloadError(f"HKDF-SHA-256 gives 1 to 8,160 bytes, not {length}")
    block = out = b""
    for counter in range(1, -(-length // 32) + 1):
        block = hmac.digest(key, block + info + bytes([counter]), "sha256")
        out += block
    return out[:length]


def event_key(extracted: bytes, index: int) -> bytes:
    """The key of one event, from the data key extracted with the commit's salt."""
    return hmac.digest(extracted, _EVENT_KEY + struct.pack(">H", index) + b"\1", "sha256")


def commitment(key: bytes) -> bytes:
    """What the event header says of the key, so that no second key opens the same ciphertext to another text."""
    return hashlib.sha256(_COMMITMENT + key).digest()


def associated(place: Place, key_id: bytes) -> bytes:
    """The associated data of a ciphertext."""
    return b"".join(
        (
            place.log_id,
            bytes([len(place.stream)]),
            place.stream,
            struct.pack(">QHB", place.revision, place.event, len(place.type)),
            place.type,
            struct.pack(">H", place.schema),
            key_id,
        )
    )


def encrypt(key: bytes, plaintext: bytes, bound: bytes) -> bytes:
    """Ciphertext and 16-byte tag. The key must never have sealed anything before."""
    return AESGCM(key).encrypt(_NONCE, plaintext, bound)


def decrypt(key: bytes, ciphertext: bytes, bound: bytes) -> bytes:
    """The plaintext, or `PayloadError` if key, place or bytes are not the ones it was sealed with."""
    try:
        return AESGCM(key).decrypt(_NONCE, ciphertext, bound)
    except InvalidTag:
        raise PayloadError("a ciphertext that its key does not open: it was altered, or moved from its place") from None
