"""Artifacts, for programs: ``party.artifacts``. What people put, what tasks have kept, and the content of both."""

import asyncio
import contextlib
import hashlib
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from .actors.decider import stream_of
from .actors.errors import DeadlineError, InputError, StatementError
from .actors.events import Stated
from .actors.racing import let_finish, patiently
from .actors.shelf import NAME, STREAM, ArtifactPut, Kept
from .actors.statements import Statement, person_of, read, sign
from .eventstore import parts
from .eventstore.ambient import readable_id
from .eventstore.artifacts import Artifact, fetch, fetch_pieces, keep_pieces, name_of
from .eventstore.errors import ConflictError, GrantEndedError, IdReusedError
from .eventstore.reading import Commit

if TYPE_CHECKING:
    from .party import Party

_PIECE = 1024 * 1024
Many = list[Kept]
Source = Callable[[], AsyncGenerator[bytes, None]]


class ArtifactsHandle:
    """Documents and files beside the log, encrypted, found by the hashes that stand on it."""

    def __init__(self, party: "Party") -> None:
        self._party = party

    async def put(
        self, name: str, content: bytes | str | Path, *, person: str | None = None, request_id: str = ""
    ) -> Kept:
        """Put an artifact, signed by a person; it is on the log when this returns, and can be given to tasks.

        ``content``: of any size if it is the path of a file, which is read in bounded memory. The same ``request_id``
        with the same content is the same artifact, `IdReusedError` with another. Raises `InputError` for a name that
        cannot be, and for what is no file, cannot be read, is too large or changes while it is read: nothing of it is
        on the log then; `StoreError` where the blobs or the log are not there.
        """
        if not NAME.fullmatch(name):
            raise InputError(f"{name!r} cannot name an artifact: use 1 to 255 characters, no slash, none unprintable")
        source = _source(content)
        log = self._party.stack.log
        seed = log.identity.log_id + b"artifact " + request_id.encode()
        identity = readable_id(hashlib.sha256(seed).digest()[:10] if request_id else log.ambient.random(10))
        stream, artifact = f"{STREAM}{identity}", None

        async def there() -> Kept | None:
            if not request_id or not (before := await self._put_before(identity)):
                return None
            if before.artifact.name == name and before.artifact.blob == await name_of(log, stream, source()):
                return before
            raise IdReusedError(stream, request_id)

        for _ in patiently():
            if before := await there():
                return before
            artifact = artifact or await keep_pieces(log, stream, name, source())
            with contextlib.suppress(ConflictError, GrantEndedError):  # of another with the same request id
                await self._append(stream, artifact, person)
                return await self._found(identity)
            await let_finish(log, stream)
        if before := await there():
            return before
        raise DeadlineError(f"many others put {name!r} under the same request id: try again")

    async def list(self, task: str = "", *, after: str = "", limit: int = 1_000) -> Many:
        """What people have put, by its ids, from the one behind ``after`` on and at most ``limit`` of it; or all that a
        task has kept, in the order of its waits. `UnknownTaskError`."""
        if task:
            return await self._of_task(task)
        log = self._party.stack.log
        await log.refresh()
        streams = log.streams(STREAM, f"{STREAM}{after}" if after else "", limit)
        found = [await self._put_before(stream.removeprefix(STREAM)) for stream in streams]
        return [one for one in found if one]

    async def find(self, source: str, name: str = "") -> Kept:
        """An artifact by the id under which a person put it; or by a task's id and a name, of which the newest is it.
        `InputError` if there is none, `UnknownTaskError`."""
        there = await self._put_before(source)
        if there and name in ("", there.artifact.name):
            return there
        found = [] if there else [one for one in await self._of_task(source) if name in ("", one.artifact.name)]
        if not found or (not name and len({one.artifact.name for one in found}) > 1):
            how = f"named {name!r}" if name else "or several things: name one"
            raise InputError(f"{source} has kept nothing {how}: `party artifact list {'' if there else source}`")
        return found[-1]

    async def get(self, artifact: Artifact) -> bytes:
        """The content, verified. Raises `BlobError`, also where it is too large for one piece, `DataKeyMissingError`
        or `PayloadError`."""
        return await fetch(self._party.stack.log, artifact)

    def pieces(self, artifact: Artifact) -> AsyncGenerator[bytes, None]:
        """The same piece by piece, in bounded memory, each verified before it is given out."""
        return fetch_pieces(self._party.stack.log, artifact)

    async def _append(self, stream: str, artifact: Artifact, person: str | None) -> None:
        party, log = self._party, self._party.stack.log
        who, key = party.doorman.person(person or party.settings.person or None)
        statement = Statement(
            log=log.identity.log_id, task=stream, wait=-1, opened=b"", name=artifact.name,
            shown=msgspec.msgpack.encode(artifact), decision="put", person=who, key=key.public, time=log.ambient.now(),
        )  # fmt: skip
        stated = sign(statement, key)
        writer = await party.doorman.writer(stream)
        try:
            await log.append(writer, [ArtifactPut(stated.statement, stated.signature)], expected=0)
        finally:
            await party.doorman.release(writer)

    async def _found(self, identity: str) -> Kept:
        found = await self._put_before(identity)
        assert found
        return found

    async def _put_before(self, identity: str) -> Kept | None:
        log = self._party.stack.log
        await log.refresh()
        stream = stream_of("artifact", identity)
        if (await log.state(stream)).revision:
            async for commit in log.read(stream, 1, 1):
                return self._kept(identity, commit)
        return None

    def _kept(self, identity: str, commit: Commit) -> Kept | None:
        put = commit.events[0]
        if not isinstance(put, ArtifactPut):
            return None
        stated, trouble = Stated(put.statement, put.signature), ""
        try:
            key = self._party.doorman.person_key(person_of(stated))
            read(stated, self._party.stack.log.identity.log_id, commit.stream, key)
        except StatementError as error:
            trouble = str(error)
        return Kept(identity, put.artifact, put.person, commit.time, trouble)

    async def _of_task(self, task: str) -> Many:
        waits = (await self._party.task(task).state()).waits
        settled = [wait.settled for wait in waits if wait.name.startswith("artifact ") and wait.settled]
        return [Kept(task, msgspec.msgpack.decode(one.value, type=Artifact)) for one in settled if one.attachments]


def _source(content: bytes | str | Path) -> Source:
    if isinstance(content, Path):
        return lambda: unchanging(content)
    data = content.encode() if isinstance(content, str) else content

    async def pieces() -> AsyncGenerator[bytes, None]:
        yield data

    return pieces


async def unchanging(path: Path) -> AsyncGenerator[bytes, None]:
    """A file, piece by piece. `InputError` if it is none, cannot be read, is too large, or is another at its end than
    it was at its beginning: it was written to, or cut, meanwhile."""
    try:
        file = await asyncio.to_thread(os.open, path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    try:
        async for piece in _whole(path, file):
            yield piece
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    finally:
        os.close(file)


async def _whole(path: Path, file: int) -> AsyncIterator[bytes]:
    began = os.fstat(file)
    if not stat.S_ISREG(began.st_mode):
        raise InputError(f"{path} is no file: put the files of a folder one by one, or an archive of it")
    if began.st_size > parts.LARGEST:
        raise InputError(f"{path} has {began.st_size:,} bytes, over the {parts.LARGEST:,} of an artifact: put several")
    left = began.st_size
    while piece := await asyncio.to_thread(os.read, file, _PIECE):
        left -= len(piece)
        if left < 0:
            break
        yield piece
    ended = os.fstat(file)
    if left or (ended.st_size, ended.st_mtime_ns) != (began.st_size, began.st_mtime_ns):
        raise InputError(f"{path} changed while it was read: put it again when nobody writes to it")
