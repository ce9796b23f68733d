"""Blobs in a bucket of an S3 server (AWS, MinIO, …), by MinIO's client, which blocks and is given threads.

    PREFIX blobs/abcdef…              a blob, named in hex; put on condition that there is none (If-None-Match: *)
    PREFIX aside/abcdef…/SWEEP        one that a sweep has set aside
    PREFIX notes/KEY                  a note

A put is one request, so the server shows a blob whole or not at all. Where there is one already, the server's
checksum of it (ETag, where it is the MD5) says whether it is the same; if it says otherwise, the blob is read, and
replaced only if its bytes are wrong.
"""

import asyncio
import functools
import hashlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import urllib3
from minio import Minio
from minio.commonconfig import CopySource
from minio.error import S3Error
from minio.time import from_http_header

from .. import blobs as limits
from ..blobs import MAX_NOTE, Stored, checked_size
from ..errors import BlobError, StoreBusyError, StoreError
from .s3_address import Address, parsed
from .s3_errors import AlreadyThere, Gone, translated

AT_ONCE = 8
"""Requests in flight; further ones wait for their turn, within their deadline."""
DEADLINE = 60.0
"""Seconds for a request, its turn and its retries; and one more for each MiB that it carries."""
_CONNECT, _READ, _RETRIES, _PAGE = 5.0, 20.0, 2, 1_000
_BUSY = (500, 502, 503, 504)
T = TypeVar("T")


class S3Blobs:
    """See the module's text. Nothing is asked of the server before it is needed."""

    def __init__(self, url: str | Address, *, deadline: float = DEADLINE) -> None:
        self.address = parsed(url) if isinstance(url, str) else url
        self.deadline = deadline
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="s3")
        self._http = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=min(_CONNECT, deadline), read=min(_READ, deadline)),
            maxsize=AT_ONCE,
            retries=urllib3.Retry(
                total=_RETRIES,
                backoff_factor=0.2,
                status_forcelist=_BUSY,
                allowed_methods=None,  # everything here may be done twice
                raise_on_status=False,
                raise_on_redirect=False,
            ),
        )
        self._conditional = True

    @functools.cached_property
    def _client(self) -> Minio:
        at = self.address
        return Minio(
            at.host,
            secure=at.secure,
            region=at.region or None,
            credentials=at.credentials(),
            http_client=self._http,
        )

    async def put(self, name: bytes, content: bytes) -> None:
        checked_size(content)
        if hashlib.sha256(content).digest() != name:
            raise BlobError(f"these {len(content):,} bytes are not blob {name.hex()}")
        await self._do(lambda: self._put(name, content), len(content))

    async def get(self, name: bytes) -> bytes:
        content = await self._do(lambda: self._get(name), limits.MAX_BLOB)
        if content is None:
            raise BlobError(f"blob {name.hex()} is missing from {self.address}: restore it from a copy")
        if hashlib.sha256(content).digest() != name:
            raise BlobError(f"blob {name.hex()} is damaged in {self.address}: restore it from a copy")
        return content

    async def has(self, name: bytes) -> bool:
        return await self._do(lambda: self._stat(self._key(name)) is not None)

    async def names(self) -> AsyncIterator[bytes]:
        async for found in self._listed("blobs/"):
            yield bytes.fromhex(found.object_name.rpartition("/")[2])

    async def stored(self) -> AsyncIterator[Stored]:
        now = await self._do(self._clock)
        async for found in self._listed("blobs/"):
            age = (now - found.last_modified).total_seconds()
            yield Stored(bytes.fromhex(found.object_name.rpartition("/")[2]), found.size, age)

    async def set_aside(self, name: bytes, run: str) -> None:
        await self._do(lambda: self._move(self._key(name), self._aside_key(name, run)))

    async def aside(self) -> AsyncIterator[tuple[bytes, str]]:
        async for found in self._listed("aside/"):
            *_, name, run = found.object_name.split("/")
            yield bytes.fromhex(name), run

    async def bring_back(self, name: bytes, run: str) -> None:
        await self._do(lambda: self._move(self._aside_key(name, run), self._key(name)))

    async def drop(self, name: bytes, run: str) -> None:
        await self._do(lambda: self._client.remove_object(self.address.bucket, self._aside_key(name, run)))

    async def note(self, key: str, content: bytes, *, new: bool = False) -> bool:
        def write() -> bool:
            try:
                self._send(self._note_key(key), content, new=new)
            except AlreadyThere:
                return False
            return True

        return await self._do(write, len(content))

    async def notes(self, prefix: str) -> dict[str, bytes]:
        cut, found = len(self._note_key("")), dict[str, bytes]()
        async for listed in self._listed(f"notes/{prefix}"):
            content = await self._do(functools.partial(self._read, listed.object_name, MAX_NOTE), listed.size)
            if content is not None:
                found[listed.object_name[cut:]] = content
        return found

    async def remove_note(self, key: str) -> None:
        await self._do(lambda: self._client.remove_object(self.address.bucket, self._note_key(key)))

    async def clock(self) -> float:
        """The server's time, seconds since 1970. Asks for the bucket too, so that it fails as anything there would."""
        return float((await self._do(self._clock)).timestamp())

    async def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._http.clear()

    async def _do(self, work: Callable[[], T], carried: int = 0) -> T:
        """Call it on a thread, with its deadline. What was given up ends by its own time-outs, and harms nobody."""
        seconds = self.deadline + carried / (1 << 20)

        def translating() -> T:
            with translated(str(self.address)):
                return work()

        try:
            async with asyncio.timeout(seconds):
                return await asyncio.get_running_loop().run_in_executor(self._pool, translating)
        except Gone:
            raise StoreError(f"{self.address}: an object that was just there is not any more: try again") from None
        except TimeoutError:
            raise StoreBusyError(f"{self.address}: no answer within {seconds:.1f} s: try again") from None

    async def _listed(self, folder: str) -> AsyncIterator[Any]:
        """The objects under a folder, page by page; none where there is no bucket yet and one may be made."""
        listing = await self._do(lambda: self._listing(self.address.prefix + folder))
        while page := await self._do(lambda: list(itertools.islice(listing, _PAGE))):
            for found in page:
                yield found

    def _put(self, name: bytes, content: bytes) -> None:
        key = self._key(name)
        try:
            self._send(key, content, new=True)
        except AlreadyThere:
            etag = hashlib.md5(content, usedforsecurity=False).hexdigest()
            if self._stat(key) == (len(content), etag) or self._read(key, limits.MAX_BLOB) == content:
                return
            self._send(key, content, new=False)

    def _send(self, key: str, content: bytes, *, new: bool) -> None:
        """One PUT. ``new``: `AlreadyThere` if there is an object; not every server can say so in one request."""
        if new and not self._conditional and self._stat(key) is not None:
            raise AlreadyThere
        headers = {"If-None-Match": "*"} if new and self._conditional else {}
        try:
            self._ask("PUT", key, body=content, headers=headers)
        except StoreError as error:
            if self.may_be_made(error):
                self._make_bucket()
                self._ask("PUT", key, body=content, headers=headers)
            elif getattr(error.__cause__, "code", "") == "NotImplemented" and headers:
                self._conditional = False
                self._send(key, content, new=new)
            else:
                raise

    def may_be_made(self, error: StoreError) -> bool:
        """Whether it failed for want of a bucket that the first put makes."""
        return self.address.create and getattr(error.__cause__, "code", "") == "NoSuchBucket"

    def _make_bucket(self) -> None:
        with translated(str(self.address)):
            try:
                self._client.make_bucket(self.address.bucket)
            except Exception as error:
                if getattr(error, "code", "") not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                    raise

    def _get(self, name: bytes) -> bytes | None:
        """The bytes, here or set aside; looked for twice, for they may be on their way back."""
        for _ in range(2):
            for key in itertools.chain([self._key(name)], self._asides(name)):
                if (content := self._read(key, limits.MAX_BLOB)) is not None:
                    return content
        return None

    def _read(self, key: str, limit: int) -> bytes | None:
        try:
            response = self._ask("GET", key, preload_content=False)
        except Gone:
            return None
        except StoreError as error:
            if self.may_be_made(error):
                return None
            raise
        try:
            with translated(str(self.address)):
                content: bytes = response.read(limit + 1)
        except BaseException:
            response.close()
            raise
        if len(content) > limit:  # nobody put that
            response.close()
            return b""
        response.release_conn()
        return content

    def _stat(self, key: str) -> tuple[int, str] | None:
        """Size and checksum of an object."""
        try:
            headers = self._ask("HEAD", key).headers
        except Gone:
            return None
        return int(headers.get("content-length", "-1")), headers.get("etag", "").strip('"')

    def _move(self, source: str, target: str) -> None:
        try:
            self._client.copy_object(self.address.bucket, target, CopySource(self.address.bucket, source))
        except Exception as error:
            if getattr(error, "code", "") == "NoSuchKey":
                return
            raise
        self._client.remove_object(self.address.bucket, source)

    def _asides(self, name: bytes) -> Iterator[str]:
        for found in self._listing(f"{self.address.prefix}aside/{name.hex()}/"):
            yield str(found.object_name)

    def _listing(self, prefix: str) -> Iterator[Any]:
        """The objects whose keys begin so, asked for as they are taken."""
        try:
            yield from self._client.list_objects(self.address.bucket, prefix=prefix, recursive=True)
        except S3Error as error:
            if error.code != "NoSuchBucket" or not self.address.create:
                raise

    def _clock(self) -> Any:
        # Not HEAD, whose answer has no body to say what is wrong.
        asked = {"list-type": "2", "max-keys": "1", "prefix": self.address.prefix}
        return from_http_header(self._ask("GET", None, query_params=asked).headers["date"])

    def _ask(self, method: str, key: str | None, **options: Any) -> Any:
        """One request. The client's public calls can neither say If-None-Match nor show the server's time."""
        with translated(str(self.address)):
            return self._client._execute(method, self.address.bucket, key, **options)

    def _key(self, name: bytes) -> str:
        return f"{self.address.prefix}blobs/{name.hex()}"

    def _aside_key(self, name: bytes, run: str) -> str:
        return f"{self.address.prefix}aside/{name.hex()}/{run}"

    def _note_key(self, key: str) -> str:
        return f"{self.address.prefix}notes/{key}"
