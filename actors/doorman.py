"""The Doorman: who may do what. For now: which process may write which stream, and whose key a person's is."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection

from ..eventstore.ambient import readable_id
from ..eventstore.commit import SigningKey
from ..eventstore.errors import GrantEndedError, KeyringError
from ..eventstore.grants import Issuer
from ..eventstore.log import Log, Writer
from .activation import Folded
from .errors import MovedError, StatementError
from .people import ROLES, STREAM, Roles

_HOLDERS = 50_000


class _SharedWriter:
    """A writer that several use. ``users``: how many do, or wait until it is there."""

    def __init__(self) -> None:
        self.users, self.turn = 0, asyncio.Lock()
        self.writer: Writer | None = None


class Doorman:
    """Issues grants with the keyring's issuing key. ``holder``: 16 bytes that name this process in its grants."""

    def __init__(self, log: Log, holder: bytes) -> None:
        self.log, self.holder, self.issuer = log, holder, Issuer(log)
        self._holders: dict[bytes, bytes] = {}
        self._named: dict[str | None, str] = {}
        self._people: Folded[dict[str, list[str]]] | None = None
        self._shared: dict[str, _SharedWriter] = {}

    async def writer(self, stream: str) -> Writer:
        """A fresh key, in this process's memory only, and the grant that lets it write the stream."""
        return await self.issuer.writer(stream, holder=self.holder)

    @contextlib.asynccontextmanager
    async def shared_writer(self, inbox: str) -> AsyncIterator[Writer]:
        """A writer of an inbox, the same for all of this process who write there at the same time; the last one ends
        its grant."""
        shared = self._shared.setdefault(inbox, _SharedWriter())
        shared.users += 1
        try:
            async with shared.turn:
                shared.writer = writer = shared.writer or await self.writer(inbox)
            try:
                yield writer
            except GrantEndedError:
                if shared.writer is writer:
                    shared.writer = None
                raise
        finally:
            shared.users -= 1
            if not shared.users:
                del self._shared[inbox]
                if shared.writer:
                    await self.release(shared.writer)

    async def successor(self, stream: str, grants: Collection[bytes]) -> Writer:
        """The same, if just these grants are in force on the stream; else `MovedError`: another was faster."""
        writer = await self.issuer.successor(stream, grants, holder=self.holder)
        if writer is None:
            raise MovedError(f"{stream} was taken over by another process just now: resolve it again")
        return writer

    async def holder_of(self, stream: str) -> bytes | None:
        """The process that owns a stream, by the name in its grant; None if nobody does."""
        grants = (await self.log.state(stream)).grants
        if not grants:
            return None
        grant = next(reversed(list(grants)))
        if grant not in self._holders:
            rows = [row for row in self.log.index.control_rows(stream.encode()) if row.commit == grant]
            for commit in await self.log.commits(rows):
                if len(self._holders) >= _HOLDERS:
                    self._holders.clear()
                if commit.control:
                    self._holders[grant] = bytes(commit.control[1][33:49])
        return self._holders.get(grant)

    async def release(self, writer: Writer) -> None:
        """End a grant of this process, so that whoever can go on with the stream may."""
        await self.issuer.fence(writer.stream, writer.grant)

    def person(self, person: str | None = None) -> tuple[str, SigningKey]:
        """A person's id and key; without an id, this user's own, made at first use."""
        chosen = person or self.log.keyring.default_person(readable_id(self.log.ambient.random(10)))
        return chosen, self.log.keyring.person(chosen)

    def person_id(self, person: str | None = None) -> str:
        """The same id, for who only needs to be named."""
        if person not in self._named:
            self._named[person] = self.person(person)[0]
        return self._named[person]

    def person_key(self, person: str) -> bytes:
        """The public key that statements of a person must be signed with; `StatementError` if nobody is known so."""
        try:
            return self.log.keyring.known_person(person).public
        except KeyringError as error:
            raise StatementError(f"nobody is known as {person}: {error}") from error

    async def roles(self) -> Roles:
        """Who has which role, by all that is on the log at this moment."""
        if self._people is None:
            self._people = Folded(ROLES, STREAM)
        people = self._people
        await self.log.refresh()
        async for commit in self.log.read(people.stream, people.revision + 1):
            if commit.revision == people.revision + 1:  # another call may have read it meanwhile
                people.add(commit)
        return people.state
