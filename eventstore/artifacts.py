"""Artifacts: documents and files that lie in the blobs, encrypted under their stream's data key, named by hash."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from typing import Protocol

import msgspec

from . import blobs, parts, sealing
from .commit import DataKey
from .errors import BlobError
from .log import Log
from .parts import PartList, Sealer, get_parts, put_parts
from .verify import sha256


class Artifact(msgspec.Struct, frozen=True, omit_defaults=True):
    """``blob``: SHA-256 of the ciphertext, its name in the blobs, or of the list of its ``parts`` where there are any
    (see `parts`; then ``salt`` is empty). ``size``: bytes of plaintext."""

    name: str
    blob: bytes
    size: int
    stream: str
    key_id: bytes
    salt: bytes
    parts: int = 0


async def keep(log: Log, stream: str, name: str, content: bytes) -> Artifact:
    """Encrypt content with the stream's data key and put it into the blobs; durable when it returns."""
    key, salt = log.keys.of_subject(stream), log.ambient.random(32)
    secret = sealing.event_key(sealing.hkdf_extract(salt, key.secret), 0)
    sealed = sealing.encrypt(secret, content, _bound(log.identity.log_id, stream, key.id))
    blob = sha256(sealed)
    await log.puts.put(blob, sealed)
    return Artifact(name, blob, len(content), stream, key.id, salt)


async def keep_pieces(log: Log, stream: str, name: str, source: AsyncIterable[bytes]) -> Artifact:
    """The same for a source of any size, in bounded memory; all of it is durable when it returns.

    Broken off, nothing of it shows; done again with the same content, what was put already is found there.
    """
    key = log.keys.of_subject(stream)

    async def put(sealed: bytes) -> None:
        await log.blobs.put(sha256(sealed), sealed)

    pin = await log.puts.begin()  # for all parts: a sweep takes none before the list is named
    try:
        made = await put_parts(Sealer(log.identity.log_id, stream, key), source, put)
        packed = made.packed()
        await put(packed)
    except BaseException:
        log.puts.end(pin)
        raise
    log.puts.hold(pin, sha256(packed))
    return Artifact(name, sha256(packed), made.size, stream, key.id, b"", len(made.parts))


async def name_of(log: Log, stream: str, source: AsyncIterable[bytes]) -> bytes:
    """The name that `keep_pieces` would give to this content, which is put nowhere."""

    async def nowhere(sealed: bytes) -> None:
        """It was to be sealed only."""

    sealer = Sealer(log.identity.log_id, stream, log.keys.of_subject(stream))
    return sha256((await put_parts(sealer, source, nowhere)).packed())


class Keys(Protocol):
    """Who has data keys."""

    def of_id(self, key_id: bytes) -> DataKey: ...


async def fetch(log: Log, artifact: Artifact) -> bytes:
    """The content in one piece. Raises `BlobError`, also where it is too large for that, `DataKeyMissingError` or
    `PayloadError`."""
    return await content_of(log.identity.log_id, log.keys, log.blobs.get, artifact)


def fetch_pieces(log: Log, artifact: Artifact) -> AsyncGenerator[bytes, None]:
    """The content piece by piece, in bounded memory, each verified before it is given out. Raises as `fetch` does."""
    return pieces_of(log.identity.log_id, log.keys, log.blobs.get, artifact)


async def content_of(log_id: bytes, keys: Keys, get: Callable[[bytes], Awaitable[bytes]], artifact: Artifact) -> bytes:
    """`fetch`, wherever keys and blobs come from."""
    if artifact.size > blobs.MAX_BLOB:
        raise BlobError(
            f"artifact {artifact.name} has {artifact.size:,} bytes, over the {blobs.MAX_BLOB:,} of one piece: "
            "read it by its pieces"
        )
    return b"".join([piece async for piece in pieces_of(log_id, keys, get, artifact)])


async def pieces_of(
    log_id: bytes, keys: Keys, get: Callable[[bytes], Awaitable[bytes]], artifact: Artifact
) -> AsyncGenerator[bytes, None]:
    """`fetch_pieces`, wherever keys and blobs come from."""
    key = keys.of_id(artifact.key_id)
    if not artifact.parts:
        secret = sealing.event_key(sealing.hkdf_extract(artifact.salt, key.secret), 0)
        yield sealing.decrypt(secret, await get(artifact.blob), _bound(log_id, artifact.stream, key.id))
        return
    found = await part_list(get, artifact.blob)
    if found is None or len(found.parts) != artifact.parts or found.size != artifact.size:
        raise BlobError(f"artifact {artifact.name}: blob {artifact.blob.hex()} is not the list of its parts")
    async with contextlib.aclosing(get_parts(Sealer(log_id, artifact.stream, key), found, get)) as pieces:
        async for piece in pieces:
            yield piece


async def part_list(get: Callable[[bytes], Awaitable[bytes]], name: bytes) -> PartList | None:
    """The list that a blob is; None if it is something else. Raises `BlobError` if it cannot be read."""
    return parts.parsed(await get(name))


def _bound(log_id: bytes, stream: str, key_id: bytes) -> bytes:
    return sealing.associated(sealing.Place(log_id, stream.encode(), 0, 0, b"artifact", 1), key_id)
