"""The contract of blobs. A backend adds a class with two fixtures: the blobs, and how to damage one."""

import asyncio
import errno
import hashlib
import os
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from agent_party.eventstore import blobs as blobs_module
from agent_party.eventstore import parts
from agent_party.eventstore.backends.blob_folder import FolderBlobs
from agent_party.eventstore.backends.blob_memory import MemoryBlobs
from agent_party.eventstore.backends.blob_s3 import S3Blobs
from agent_party.eventstore.blobs import Blobs
from agent_party.eventstore.commit import DataKey
from agent_party.eventstore.errors import BlobError, StoreError, StoreFullError, StoreReadOnlyError
from tests.s3_kit import new_bucket, overwrite
from tests.services_kit import Services

Damage = Callable[[bytes], None]


def name_of(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


class BlobsContract:
    @pytest.fixture
    def blobs(self, tmp_path: Path) -> Blobs:
        raise NotImplementedError

    @pytest.fixture
    def damage(self, blobs: Blobs) -> Damage:
        raise NotImplementedError

    @pytest.mark.parametrize("content", [b"", b"x", bytes(200_000)], ids=["empty", "one byte", "200 kB"])
    async def test_what_was_put_is_got(self, blobs: Blobs, content: bytes) -> None:
        name = name_of(content)
        assert not await blobs.has(name)
        await blobs.put(name, content)
        assert await blobs.has(name)
        assert await blobs.get(name) == content
        assert [n async for n in blobs.names()] == [name]

    async def test_putting_again_is_nothing(self, blobs: Blobs) -> None:
        await asyncio.gather(*(blobs.put(name_of(b"same"), b"same") for _ in range(10)))
        assert [n async for n in blobs.names()] == [name_of(b"same")]

    async def test_a_missing_blob_says_so(self, blobs: Blobs) -> None:
        with pytest.raises(BlobError, match=name_of(b"never").hex()):
            await blobs.get(name_of(b"never"))

    async def test_a_damaged_blob_is_not_given_out(self, blobs: Blobs, damage: Damage) -> None:
        await blobs.put(name_of(b"content"), b"content")
        damage(name_of(b"content"))
        with pytest.raises(BlobError, match="damaged"):
            await blobs.get(name_of(b"content"))

    async def test_putting_the_right_bytes_mends_a_damaged_blob(self, blobs: Blobs, damage: Damage) -> None:
        await blobs.put(name_of(b"content"), b"content")
        damage(name_of(b"content"))
        await blobs.put(name_of(b"content"), b"content")
        assert await blobs.get(name_of(b"content")) == b"content"

    async def test_bytes_under_another_name_are_refused(self, blobs: Blobs) -> None:
        with pytest.raises(BlobError):
            await blobs.put(name_of(b"a"), b"b")
        assert not await blobs.has(name_of(b"a"))

    async def test_the_limit_is_a_limit(self, blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(blobs_module, "MAX_BLOB", 1_000)
        await blobs.put(name_of(bytes(1_000)), bytes(1_000))
        with pytest.raises(BlobError, match="in parts"):
            await blobs.put(name_of(bytes(1_001)), bytes(1_001))
        assert not await blobs.has(name_of(bytes(1_001)))

    async def test_sizes_and_ages_are_told(self, blobs: Blobs) -> None:
        await blobs.put(name_of(b"12345"), b"12345")
        (found,) = [one async for one in blobs.stored()]
        assert (found.name, found.size) == (name_of(b"12345"), 5)
        assert -2 < found.age < 600

    async def test_what_is_set_aside_is_got_but_not_named(self, blobs: Blobs) -> None:
        name = name_of(b"content")
        await blobs.put(name, b"content")
        await blobs.set_aside(name, "one")
        assert [n async for n in blobs.names()] == []
        assert [found async for found in blobs.aside()] == [(name, "one")]
        assert not await blobs.has(name)
        assert await blobs.get(name) == b"content"

    async def test_what_is_set_aside_is_put_anew(self, blobs: Blobs) -> None:
        """Nobody who puts relies on what a sweep is about to delete."""
        name = name_of(b"content")
        await blobs.put(name, b"content")
        await blobs.set_aside(name, "one")
        await blobs.put(name, b"content")
        await blobs.set_aside(name, "two")
        await blobs.put(name, b"content")
        await blobs.drop(name, "one")
        assert [found async for found in blobs.aside()] == [(name, "two")]
        await blobs.drop(name, "two")
        assert await blobs.get(name) == b"content"

    async def test_what_was_set_aside_comes_back(self, blobs: Blobs) -> None:
        name = name_of(b"content")
        await blobs.put(name, b"content")
        await blobs.set_aside(name, "one")
        await blobs.bring_back(name, "one")
        assert [n async for n in blobs.names()] == [name]
        assert [found async for found in blobs.aside()] == []

    async def test_what_is_dropped_is_gone(self, blobs: Blobs) -> None:
        name = name_of(b"content")
        await blobs.put(name, b"content")
        await blobs.set_aside(name, "one")
        await blobs.drop(name, "one")
        assert not await blobs.has(name)
        with pytest.raises(BlobError, match=name.hex()):
            await blobs.get(name)

    async def test_moving_what_is_not_there_is_nothing(self, blobs: Blobs) -> None:
        name = name_of(b"never")
        await blobs.put(name_of(b"other"), b"other")
        await blobs.set_aside(name, "one")
        await blobs.bring_back(name, "one")
        await blobs.drop(name, "one")
        assert not await blobs.has(name)

    async def test_notes(self, blobs: Blobs) -> None:
        assert await blobs.notes("") == {}
        assert await blobs.note("a/1", b"one", new=True)
        assert not await blobs.note("a/1", b"other", new=True)
        assert await blobs.note("b", b"")
        assert await blobs.notes("") == {"a/1": b"one", "b": b""}
        assert await blobs.note("a/1", b"changed")
        assert await blobs.notes("a/") == {"a/1": b"changed"}
        await blobs.remove_note("a/1")
        await blobs.remove_note("a/1")
        assert await blobs.notes("") == {"b": b""}
        assert [n async for n in blobs.names()] == []

    async def test_a_new_note_is_left_by_one(self, blobs: Blobs) -> None:
        left = await asyncio.gather(*(blobs.note("who", bytes([n]), new=True) for n in range(6)))
        assert sum(left) == 1
        assert (await blobs.notes(""))["who"] == bytes([left.index(True)])

    async def test_what_is_too_large_for_one_goes_in_parts(self, blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
        """In and out in bounded memory; see `tests/unit/test_parts.py` for what is noticed on the way."""
        monkeypatch.setattr(parts, "PART", 10_000)
        content = random.Random(1).randbytes(123_456)
        sealer = parts.Sealer(bytes(32), "task/one", DataKey(bytes(16), bytes(range(32))))

        async def source() -> AsyncIterator[bytes]:
            for start in range(0, len(content), 7_001):
                yield content[start : start + 7_001]

        async def put(sealed: bytes) -> None:
            await blobs.put(name_of(sealed), sealed)

        made = await parts.put_parts(sealer, source(), put)
        assert (made.size, len(made.parts)) == (123_456, 13)
        assert {name async for name in blobs.names()} == {part.blob for part in made.parts}
        assert b"".join([piece async for piece in parts.get_parts(sealer, made, blobs.get)]) == content


class TestMemoryBlobs(BlobsContract):
    @pytest.fixture
    def blobs(self, tmp_path: Path) -> Blobs:
        return MemoryBlobs()

    @pytest.fixture
    def damage(self, blobs: Blobs) -> Damage:
        assert isinstance(blobs, MemoryBlobs)
        return lambda name: blobs.contents.update({name: b"other"})


class TestFolderBlobs(BlobsContract):
    @pytest.fixture
    def blobs(self, tmp_path: Path) -> Blobs:
        return FolderBlobs(tmp_path / "blobs")

    @pytest.fixture
    def damage(self, blobs: Blobs) -> Damage:
        assert isinstance(blobs, FolderBlobs)

        def tear(name: bytes) -> None:
            blobs.path(name).write_bytes(b"torn")

        return tear

    async def test_a_name_never_shows_half_a_blob(self, blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whatever step fails, the name is not there, and nothing is left lying about."""
        assert isinstance(blobs, FolderBlobs)

        def fail(*_: object) -> None:
            raise OSError(errno.EIO, "a failing disk")

        steps: list[tuple[object, str]] = [(os, "fsync"), (Path, "rename")]
        for owner, step in steps:
            with monkeypatch.context() as patched:
                patched.setattr(owner, step, fail)
                with pytest.raises(StoreError, match="failing disk"):
                    await blobs.put(name_of(b"content"), b"content")
            assert not await blobs.has(name_of(b"content"))
            assert list(blobs.folder.glob("??/.*")) == []
        await blobs.put(name_of(b"content"), b"content")

    @pytest.mark.parametrize(
        ("code", "error"),
        [(errno.ENOSPC, StoreFullError), (errno.EROFS, StoreReadOnlyError), (errno.EACCES, StoreReadOnlyError)],
    )
    async def test_a_full_disk_and_a_read_only_one_say_so(
        self, blobs: Blobs, monkeypatch: pytest.MonkeyPatch, code: int, error: type[Exception]
    ) -> None:
        def fail(*_: object) -> None:
            raise OSError(code, os.strerror(code))

        with monkeypatch.context() as patched:
            patched.setattr(Path, "rename", fail)
            with pytest.raises(error):
                await blobs.put(name_of(b"content"), b"content")
        assert not await blobs.has(name_of(b"content"))


class TestS3Blobs(BlobsContract):
    @pytest.fixture
    async def blobs(self, services: Services) -> AsyncIterator[Blobs]:
        blobs = S3Blobs(services.blobs(new_bucket()))
        yield blobs
        await blobs.close()

    @pytest.fixture
    def damage(self, blobs: Blobs) -> Damage:
        assert isinstance(blobs, S3Blobs)
        return lambda name: overwrite(blobs, name, b"other")
