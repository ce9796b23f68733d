"""What blobs on S3 alone promise: conditions on puts, deadlines, and errors that say what to do."""

import asyncio
import hashlib
import secrets
import socket
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import minio.time
import pytest
from minio.credentials.providers import StaticProvider
from minio.error import S3Error
from minio.minioadmin import MinioAdmin

from agent_party.actors.errors import ConfigurationError
from agent_party.cluster.settings import load
from agent_party.cluster.stores import open_blobs
from agent_party.eventstore.backends import blob_s3
from agent_party.eventstore.backends.blob_s3 import S3Blobs
from agent_party.eventstore.backends.s3_address import parsed
from agent_party.eventstore.errors import BlobError, StoreBusyError, StoreError, StoreReadOnlyError
from tests.s3_kit import client, new_bucket
from tests.services_kit import Services, entering


def name_of(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


@pytest.fixture
async def blobs(services: Services) -> AsyncIterator[S3Blobs]:
    blobs = S3Blobs(services.blobs(new_bucket()))
    yield blobs
    await blobs.close()


def put_requests(blobs: S3Blobs, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """The headers of every PUT of a blob from now on."""
    seen: list[dict[str, str]] = []
    execute = blobs._client._execute

    def watched(method: str, bucket: str, key: str | None = None, **options: Any) -> Any:
        if method == "PUT" and key:
            seen.append(dict(options.get("headers") or {}))
        return execute(method, bucket, key, **options)

    monkeypatch.setattr(blobs._client, "_execute", watched)
    return seen


async def test_a_put_is_made_on_condition_that_there_is_nothing(
    blobs: S3Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    await blobs.put(name_of(b"content"), b"content")
    seen = put_requests(blobs, monkeypatch)
    await blobs.put(name_of(b"content"), b"content")
    assert seen == [{"If-None-Match": "*"}]


async def test_what_only_looks_other_is_read_and_left(blobs: S3Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under server-side encryption an ETag is no MD5."""
    await blobs.put(name_of(b"content"), b"content")
    seen = put_requests(blobs, monkeypatch)
    monkeypatch.setattr(blobs, "_stat", lambda key: (7, "no-md5"))
    await blobs.put(name_of(b"content"), b"content")
    assert seen == [{"If-None-Match": "*"}]


async def test_a_server_without_conditions(blobs: S3Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked first whether there is something, and nothing is put twice."""
    await blobs.put(name_of(b"first"), b"first")
    execute = blobs._client._execute
    refused = S3Error(None, "NotImplemented", "A header is not implemented", "", "", "")  # type: ignore[arg-type]

    def old(method: str, bucket: str, key: str | None = None, **options: Any) -> Any:
        if "If-None-Match" in (options.get("headers") or {}):
            raise refused
        return execute(method, bucket, key, **options)

    monkeypatch.setattr(blobs._client, "_execute", old)
    await blobs.put(name_of(b"content"), b"content")
    seen = put_requests(blobs, monkeypatch)
    await blobs.put(name_of(b"content"), b"content")
    assert await blobs.get(name_of(b"content")) == b"content"
    assert not await blobs.note("once", b"1", new=True) or not await blobs.note("once", b"2", new=True)
    assert [headers for headers in seen if headers] == []


async def test_prefixes_are_apart(services: Services) -> None:
    bucket = new_bucket()
    address = services.blobs(bucket)
    one = S3Blobs(address.replace(bucket, f"{bucket}/one/deep"))
    two = S3Blobs(address.replace(bucket, f"{bucket}/two"))
    await one.put(name_of(b"content"), b"content")
    await one.note("mine", b"")
    assert await one.get(name_of(b"content")) == b"content"
    assert not await two.has(name_of(b"content"))
    assert [name async for name in two.names()] == []
    assert await two.notes("") == {}
    await one.close()
    await two.close()


async def test_more_than_a_page_is_listed(blobs: S3Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blob_s3, "_PAGE", 3)
    contents = [bytes([n]) for n in range(10)]
    await asyncio.gather(*(blobs.put(name_of(content), content) for content in contents))
    assert {name async for name in blobs.names()} == {name_of(content) for content in contents}


async def test_no_more_requests_at_once_than_the_limit(blobs: S3Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    running, most, lock, two = 0, 0, threading.Lock(), threading.Event()
    execute = blobs._client._execute

    def watched(*given: Any, **options: Any) -> Any:
        """The first ones go on when there are two."""
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        if most > 1:
            two.set()
        two.wait(120)
        try:
            return execute(*given, **options)
        finally:
            with lock:
                running -= 1

    await blobs.put(name_of(b""), b"")
    monkeypatch.setattr(blobs._client, "_execute", watched)
    contents = [bytes([n]) * 1_000 for n in range(50)]
    await asyncio.gather(*(blobs.put(name_of(content), content) for content in contents))
    assert 1 < most <= blob_s3.AT_ONCE


async def test_too_large_an_object_is_not_read_into_memory(blobs: S3Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.s3_kit import overwrite

    await blobs.put(name_of(b"content"), b"content")
    overwrite(blobs, name_of(b"content"), bytes(5_000))
    monkeypatch.setattr("agent_party.eventstore.blobs.MAX_BLOB", 1_000)
    with pytest.raises(BlobError, match="damaged"):
        await blobs.get(name_of(b"content"))


# Bad input and trouble: each says what to do


async def refused(url: str, kind: type[StoreError], said: str) -> None:
    blobs = S3Blobs(url)
    with pytest.raises(kind, match=said) as found:
        await blobs.put(name_of(b"content"), b"content")
    secret = parsed(url, {}).secret
    assert not secret or secret not in str(found.value)
    await blobs.close()


async def test_a_bucket_that_is_not_there_and_may_not_be_made(services: Services) -> None:
    await refused(services.blobs(new_bucket()) + "&create=no", StoreError, "no such bucket: create it")


async def test_a_wrong_secret(services: Services) -> None:
    url = services.blobs(new_bucket())
    url = entering(url, f"{parsed(url, {}).key}:wrong-secret")
    await refused(url, StoreReadOnlyError, "secret key is not the access key's")


async def test_a_wrong_key(services: Services) -> None:
    url = services.blobs(new_bucket())
    url = entering(url, f"nobody:{parsed(url, {}).secret}")
    await refused(url, StoreReadOnlyError, "does not know this access key")


async def test_a_bucket_without_permission(services: Services, blobs: S3Blobs) -> None:
    """A user who may read only: reading goes, writing says which rights are missing."""
    await blobs.put(name_of(b"content"), b"content")
    at, user = blobs.address, f"user-{secrets.token_hex(4)}"
    admin = MinioAdmin(endpoint=at.host, credentials=StaticProvider(at.key, at.secret), secure=False)
    admin.user_add(user, "reading-only")
    rights = {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": [f"arn:aws:s3:::{at.bucket}/*"]}
    admin.policy_add(user, policy={"Version": "2012-10-17", "Statement": [rights]})
    admin.attach_policy([user], user=user)
    reader = S3Blobs(entering(services.blobs(at.bucket), f"{user}:reading-only"))
    try:
        assert await reader.get(name_of(b"content")) == b"content"
        with pytest.raises(StoreReadOnlyError, match="s3:PutObject"):
            await reader.put(name_of(b"other"), b"other")
        with pytest.raises(StoreReadOnlyError, match="s3:ListBucket"):
            assert [name async for name in reader.names()]
    finally:
        await reader.close()
        admin.user_remove(user)
        admin.policy_remove(user)


async def test_a_clock_that_is_wrong(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    real = minio.time.utcnow
    monkeypatch.setattr(minio.time, "utcnow", lambda: real() + timedelta(hours=1))
    await refused(services.blobs(new_bucket()), StoreReadOnlyError, "set the clock")


async def test_no_server(services: Services) -> None:
    with socket.socket() as held:  # so that nobody else has the port
        held.bind(("127.0.0.1", 0))
        url = f"s3://party:party-secret@bucket?endpoint=http://127.0.0.1:{held.getsockname()[1]}"
        await refused(url, StoreBusyError, "cannot be reached: start it")


async def test_a_server_that_is_no_s3() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nhello")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        url = f"s3://party:party-secret@bucket?endpoint=http://127.0.0.1:{port}"
        await refused(url, StoreError, "no S3 server: check endpoint=")


async def test_a_server_that_does_not_answer_in_time() -> None:
    """The deadline holds whatever the driver does; what was given up can be done again."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()  # the kernel takes connections, and nobody reads
        url = f"s3://party:party-secret@bucket?endpoint=http://127.0.0.1:{silent.getsockname()[1]}"
        blobs = S3Blobs(url, deadline=0.3)
        async with asyncio.timeout(30):
            with pytest.raises(StoreBusyError, match=r"no answer within 0\.3 s"):
                await blobs.put(name_of(b"content"), b"content")
        await blobs.close()


async def test_no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, services: Services) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    at = parsed(services.blobs(new_bucket()), {})
    url = entering(services.blobs(at.bucket), "")
    await refused(url, StoreError, "no credentials: set AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", at.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", at.secret)
    blobs = S3Blobs(url)
    await blobs.put(name_of(b"content"), b"content")
    await blobs.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://", "not one of a bucket"),
        ("s3://key@bucket", "not one of a bucket"),
        ("s3://Bucket", "cannot name a bucket"),
        ("s3://my_bucket", "cannot name a bucket"),
        ("s3://bucket?endpoint=ftp://host", "endpoint="),
        ("s3://bucket?endpoint=http://host/path", "nothing after it"),
        ("s3://bucket?endpont=http://host", "endpont; known are"),
        ("s3://bucket?create=perhaps", "yes or no"),
        ("s3://bucket?region", "cannot be read"),
    ],
)
def test_urls_that_are_none(url: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=said):
        parsed(url, {})
    with pytest.raises(ConfigurationError, match=said):
        open_blobs(load({"blobs": url}, {}, tmp_path))


def test_what_a_url_says() -> None:
    at = parsed("s3://k%2Fey:s%40cret@bucket/a/b/?endpoint=http://127.0.0.1:9000&region=eu-west-1", {})
    assert (at.host, at.secure, at.bucket, at.prefix) == ("127.0.0.1:9000", False, "bucket", "a/b/")
    assert (at.key, at.secret, at.region, at.create) == ("k/ey", "s@cret", "eu-west-1", True)
    assert "s@cret" not in str(at)
    at = parsed("s3://bucket", {"AWS_ENDPOINT_URL": "https://minio.example", "AWS_REGION": "here"})
    assert (at.host, at.secure, at.region, at.prefix) == ("minio.example", True, "here", "")
    assert parsed("s3://bucket", {}).host == "s3.amazonaws.com"


async def test_a_party_on_s3(services: Services, tmp_path: Path) -> None:
    """Through the settings: a large payload lies in the bucket, sealed."""
    from agent_party import Agent, Party, Task

    writer = Agent("writer", version="1")

    @writer.on("text.write")
    async def write(task: Task, words: str) -> str:
        return words * 20_000

    bucket = new_bucket()
    journal = f"sqlite:///{tmp_path}/log.db"
    async with Party.open(agents=[writer], journal=journal, blobs=services.blobs(bucket), runtime="local") as party:
        asked = await party.ask(write, words="crow ")
        assert await asked.result() == "crow " * 20_000
        store = party.stack.log.blobs
        assert isinstance(store, S3Blobs)
        sealed = [found async for found in store.stored()]
        assert sealed
        reader = client(store)
        for found in sealed:
            assert b"crow crow" not in reader.get_object(bucket, f"blobs/{found.name.hex()}").data
    assert not (tmp_path / "blobs").exists()


async def test_what_the_doctor_says(services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a bucket that is not there yet, of one that is, of a wrong secret, of a clock that goes wrong."""
    from agent_party.cli import blob_checks

    bucket = new_bucket()
    settings = load({"blobs": services.blobs(bucket)}, {}, tmp_path)
    (found,) = await blob_checks.look(settings)
    assert (found.status, found.advice) == ("note", "the first blob makes it")
    blobs = S3Blobs(services.blobs(bucket))
    await blobs.put(name_of(b"content"), b"content")
    (found,) = await blob_checks.look(settings)
    assert (found.status, found.detail.partition(": ")[2]) == ("fine", "1 blobs, can be read, written and deleted")
    assert await blobs.notes("") == {}
    monkeypatch.setattr("agent_party.cli.blob_checks.SKEW", -1.0)
    assert "set the clock" in (await blob_checks.look(settings))[0].advice
    wrong = load({"blobs": entering(services.blobs(bucket), f"{blobs.address.key}:wrong")}, {}, tmp_path)
    (found,) = await blob_checks.look(wrong)
    assert found.status == "problem"
    assert "secret key is not" in found.detail
    missing = load({"blobs": services.blobs(new_bucket()) + "&create=no"}, {}, tmp_path)
    assert "create it" in (await blob_checks.look(missing))[0].detail
    await blobs.close()


async def test_a_sweep_of_a_bucket(services: Services, tmp_path: Path) -> None:
    """The same two runs as anywhere; what the log names is read at every moment."""
    from agent_party.eventstore.artifacts import fetch, keep, keep_pieces
    from agent_party.eventstore.codec import Codec
    from agent_party.eventstore.grants import Issuer
    from agent_party.eventstore.sweeping import sweep
    from tests.eventstore_kit import Site
    from tests.unit.test_sweeping import Kept, source

    site = Site(tmp_path, "memory")
    site.blobs = blobs = S3Blobs(services.blobs(new_bucket()))
    log = await site.open()
    log.codec = log.opener._codec = Codec([Kept])
    writer = await Issuer(log).writer("task/one")
    page, late = await keep(log, "task/one", "page", b"words"), await keep(log, "task/one", "late", b"more")
    weights = await keep_pieces(log, "task/one", "weights", source(3_500))
    await log.append(writer, [Kept([page.blob, weights.blob])], expected=0)
    await blobs.put(name_of(b"nobody's"), b"nobody's")
    assert {one.name for one in (await sweep(log, older_than=-5.0)).set_aside} == {name_of(b"nobody's"), late.blob}
    assert await fetch(log, late) == b"more"
    held_up = await sweep(log, older_than=-5.0)
    assert held_up.deleted == []
    assert len(held_up.waiting) == 1
    await log.append(writer, [Kept([late.blob])], expected=1)
    await log.puts.close()
    told = await sweep(log, older_than=-5.0)
    assert (told.brought_back, told.deleted) == ([late.blob], [name_of(b"nobody's")])
    assert await fetch(log, late) == b"more"
    assert len(await fetch(log, weights)) == 3_500
    assert set(await blobs.notes("")) == {"log"}
    await site.close()
