"""Artifacts: documents and files that lie in the blobs, encrypted under their stream's data key, named by hash."""

import msgspec

from . import sealing
from .log import Log
from .verify import sha256


class Artifact(msgspec.Struct, frozen=True):
    """``blob``: SHA-256 of the ciphertext, its name in the blobs. ``size``: bytes of plaintext."""

    name: str
    blob: bytes
    size: int
    stream: str
    key_id: bytes
    salt: bytes


async def keep(log: Log, stream: str, name: str, content: bytes) -> Artifact:
    """Encrypt content with the stream's data key and put it into the blobs; durable when it returns."""
    key, salt = log.keys.of_subject(stream), log.ambient.random(32)
    sealed = sealing.encrypt(
        sealing.event_key(sealing.hkdf_extract(salt, key.secret), 0), content, _bound(log, stream, key.id)
    )
    blob = sha256(sealed)
    await log.blobs.put(blob, sealed)
    return Artifact(name, blob, len(content), stream, key.id, salt)


async def fetch(log: Log, artifact: Artifact) -> bytes:
    """The content. Raises `BlobError`, `DataKeyMissingError` or `PayloadError`."""
    key = log.keys.of_id(artifact.key_id)
    secret = sealing.event_key(sealing.hkdf_extract(artifact.salt, key.secret), 0)
    return sealing.decrypt(secret, await log.blobs.get(artifact.blob), _bound(log, artifact.stream, key.id))


def _bound(log: Log, stream: str, key_id: bytes) -> bytes:
    return sealing.associated(sealing.Place(log.identity.log_id, stream.encode(), 0, 0, b"artifact", 1), key_id)
