"""Artifacts of any size: sealed in parts, each a blob, and a list of them, which is a blob too and names the artifact.

    list = magic ‖ size u64 ‖ (blob 32 ‖ salt 32) for each part          size: bytes of plaintext in all
    part = AES-256-GCM of up to `PART` bytes, under a key of its own
    salt = HMAC-SHA-256(data key, "agent-party part salt\\0" ‖ associated data ‖ SHA-256(plaintext))
    key  = the event key of the data key extracted with the salt, as in `sealing`
    associated data: as in `sealing`, type "part", schema 1, revision = number of the part, event = 1 for the last

The list is put last, so half an upload never shows. Salts depend on what they seal, so the same content of the same
stream comes to the same parts, and an upload that was broken off finds those that are there already; a key seals
one message, ever. The list is plaintext: a sweep follows it without any key, and it shows sizes and no more.
A part that is missing, damaged, cut, moved or exchanged is noticed before its bytes are given out, and so is a list.
"""

import asyncio
import contextlib
import hashlib
import hmac
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from . import sealing
from .commit import DataKey
from .errors import BlobError, PayloadError

MAGIC = b"agent-party parts 1\n"
PART = 4 * 1024 * 1024
"""Bytes of plaintext in each part but the last."""
MAX_PARTS = 262_144
"""Parts of one artifact: 1 TiB."""
LARGEST = MAX_PARTS * PART
"""Bytes of plaintext in the largest artifact."""
AT_ONCE = 4
"""Parts that are sealed, sent or fetched at once; memory holds a few times that many."""
_SALT = b"agent-party part salt\0"
_HEAD, _ENTRY = len(MAGIC) + 8, 64
T = TypeVar("T")


class Part(NamedTuple):
    """A part's blob, and the salt of its key."""

    blob: bytes
    salt: bytes


class PartList(NamedTuple):
    """``size``: bytes of plaintext in all parts."""

    size: int
    parts: list[Part]

    def packed(self) -> bytes:
        """The blob."""
        return MAGIC + self.size.to_bytes(8) + b"".join(part.blob + part.salt for part in self.parts)


def may_be_list(size: int) -> bool:
    """Whether a blob of so many bytes can be a list."""
    return size >= _HEAD and (size - _HEAD) % _ENTRY == 0


def parsed(content: bytes) -> PartList | None:
    """The list that a blob is; None for one that is something else."""
    if not content.startswith(MAGIC) or not may_be_list(len(content)):
        return None
    entries = (content[at : at + _ENTRY] for at in range(_HEAD, len(content), _ENTRY))
    return PartList(int.from_bytes(content[len(MAGIC) : _HEAD]), [Part(one[:32], one[32:]) for one in entries])


class Sealer(NamedTuple):
    """Seals and opens the parts of one stream's artifacts."""

    log_id: bytes
    stream: str
    key: DataKey

    def seal(self, number: int, last: bool, plaintext: bytes) -> tuple[Part, bytes]:
        """A part and its ciphertext."""
        bound = self._bound(number, last)
        salt = hmac.digest(self.key.secret, _SALT + bound + hashlib.sha256(plaintext).digest(), "sha256")
        sealed = sealing.encrypt(self._secret(salt), plaintext, bound)
        return Part(hashlib.sha256(sealed).digest(), salt), sealed

    def open(self, number: int, last: bool, part: Part, sealed: bytes) -> bytes:
        """The plaintext; `PayloadError` if it is another part, or in another place."""
        return sealing.decrypt(self._secret(part.salt), sealed, self._bound(number, last))

    def _secret(self, salt: bytes) -> bytes:
        return sealing.event_key(sealing.hkdf_extract(salt, self.key.secret), 0)

    def _bound(self, number: int, last: bool) -> bytes:
        place = sealing.Place(self.log_id, self.stream.encode(), number, int(last), b"part", 1)
        return sealing.associated(place, self.key.id)


async def put_parts(sealer: Sealer, source: AsyncIterable[bytes], put: Callable[[bytes], Awaitable[None]]) -> PartList:
    """Seal a source part by part, up to `AT_ONCE` at a time, and put each; the list is the caller's to put.

    `BlobError` for a source beyond `MAX_PARTS`; whatever the source or ``put`` raises ends it.
    """

    async def send(number: int, last: bool, piece: bytes) -> tuple[Part, int]:
        part, sealed = await asyncio.to_thread(sealer.seal, number, last, piece)
        await put(sealed)
        return part, len(piece)

    async def calls() -> AsyncIterator[Awaitable[tuple[Part, int]]]:
        number = 0
        async for piece, last in _cut(source):
            if number == MAX_PARTS:
                raise BlobError(f"an artifact of more than {MAX_PARTS * PART:,} bytes: keep it as several")
            yield send(number, last, piece)
            number += 1

    async with contextlib.aclosing(in_order(calls())) as sent:
        done = [one async for one in sent]
    return PartList(sum(size for _, size in done), [part for part, _ in done])


async def get_parts(
    sealer: Sealer, found: PartList, get: Callable[[bytes], Awaitable[bytes]]
) -> AsyncGenerator[bytes, None]:
    """The plaintext, part by part in order, each verified before it is given out; the next ones are on their way."""

    async def fetch(number: int, part: Part) -> bytes:
        sealed = await get(part.blob)
        return await asyncio.to_thread(sealer.open, number, number == len(found.parts) - 1, part, sealed)

    async def calls() -> AsyncIterator[Awaitable[bytes]]:
        for number, part in enumerate(found.parts):
            yield fetch(number, part)

    left = found.size
    async with contextlib.aclosing(in_order(calls())) as opened:
        async for piece in opened:
            left -= len(piece)
            if left < 0:
                break
            yield piece
    if left:
        raise PayloadError("an artifact whose parts do not make up its size: restore its blobs")


async def in_order(calls: AsyncIterator[Awaitable[T]]) -> AsyncGenerator[T, None]:
    """What the calls return, in their order, up to `AT_ONCE` running; the first error ends the others."""
    running: deque[asyncio.Future[T]] = deque()
    try:
        async for call in calls:
            running.append(asyncio.ensure_future(call))
            if len(running) == AT_ONCE:
                yield await running[0]
                running.popleft()
        while running:
            yield await running[0]
            running.popleft()
    finally:
        for one in running:
            one.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def file_pieces(path: Path, size: int = 1024 * 1024) -> AsyncIterator[bytes]:
    """A file, piece by piece."""
    file = await asyncio.to_thread(path.open, "rb")
    try:
        while piece := await asyncio.to_thread(file.read, size):
            yield piece
    finally:
        file.close()


async def _cut(source: AsyncIterable[bytes]) -> AsyncIterator[tuple[bytes, bool]]:
    """The source in pieces of `PART` bytes, and whether each is the last; an empty source is one empty piece."""
    held = bytearray()
    async for piece in source:
        held += piece
        while len(held) > PART:  # what is left over belongs to a later piece, so this is not the last
            yield bytes(held[:PART]), False
            del held[:PART]
    yield bytes(held), True
