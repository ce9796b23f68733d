"""Issuing: certificates, grants, fences, revocations. Control commits, signed by the root or an issuing key.

Certificates and revocations stand in every slice, because acceptance uses only what came earlier in the same slice.
"""

import asyncio
from collections.abc import Collection

from .commit import SigningKey
from .errors import EventStoreError, GrantEndedError, WrongKeyError
from .log import Log, Writer
from .verify import MAX_GRANTS, OWNER, WRITER, ZERO, StreamState, slice_of


class Issuer:
    """Signs control commits with the keyring's keys. Any process with the keyring may have one."""

    def __init__(self, log: Log) -> None:
        self._log = log

    async def ensure_certified(self) -> None:
        """Certify the issuing key in every slice that does not have it yet; returns when all have.

        A slice whose mover has died between sealing and opening it is opened.
        """
        for number in self._log.index.sizes():
            await self.open(number)
        key = self._log.keyring.issuing(self._log.identity).public
        await self._in_all_slices(b"certify", lambda number: None if self._certificate(number, key) else key)

    async def rotate(self) -> bytes:
        """Make a new issuing key, certify it everywhere, and use it from now on. Its public key."""
        key = self._log.keyring.rotate_issuing(self._log.identity).public
        await self.ensure_certified()
        return key

    async def revoke(self, public: bytes) -> None:
        """Revoke an issuing key; acknowledged when all slices have it. What it signed before stays accepted.

        The key in use is rotated first: else the next process to open the log would certify it again.
        """
        if public == self._log.keyring.issuing(self._log.identity).public:
            await self.rotate()
        await self._in_all_slices(b"revoke", lambda number: self._certificate(number, public))

    async def move(self, number: int, lane: int) -> None:
        """Have a slice go on in another lane. Whoever appends meanwhile waits; nobody's commit is refused or lost."""
        if not 0 <= number < self._log.identity.slices or not 0 <= lane < self._log.tape.lanes:
            has = f"{self._log.identity.slices} slices and {self._log.tape.lanes} lanes"
            raise EventStoreError(f"slice {number} cannot be moved to lane {lane}: this log has {has}, from 0")

        def goal(number: int) -> bytes | None:
            there = self._sealed(number) or self._log.index.lane_of(number) == lane
            return None if there else lane.to_bytes(4)

        await self._log.refresh()
        if goal(number):
            await self._in_slice(b"seal", goal, number, self._log.keyring.root(self._log.identity))
        await self.open(number)

    async def open(self, number: int) -> None:
        """Open a sealed slice where it was sent; nothing happens if it is not sealed."""
        root = self._log.keyring.root(self._log.identity) if self._sealed(number) else None
        while root and self._sealed(number):
            await self._in_slice(b"open", lambda number: self._sealed(number) or None, number, root)

    def _sealed(self, number: int) -> bytes:
        return self._log.index.part(number)[0].sealed

    async def grant(self, stream: str, public: bytes, *, holder: bytes = bytes(16)) -> bytes:
        """Grant a stream to a key: as owner, ending the owner before, or as one writer of an inbox.

        ``holder``: 16 bytes that name the process, for those who must know whether it lives. Returns the grant's hash.
        """
        inbox = stream.startswith("inbox/")
        if inbox:
            await self._make_room(stream)
        payload = bytes([WRITER if inbox else OWNER]) + public + holder
        key, certificate = await self._issuing(stream)
        appended = await self._log.append_control(stream, b"grant", payload, key, grant=certificate)
        assert appended is not None
        return appended.commit

    async def writer(self, stream: str, *, holder: bytes = bytes(16)) -> Writer:
        """A fresh key, in memory only, and its grant."""
        self._log.keys.soon(stream)  # while the grant goes to disk
        key = SigningKey.from_seed(self._log.ambient.random(32))
        return Writer(stream, key, await self.grant(stream, key.public, holder=holder))

    async def successor(self, stream: str, grants: Collection[bytes], *, holder: bytes = bytes(16)) -> Writer | None:
        """As `writer`, for an owner, but only if just these grants are in force when it takes over; else None."""
        self._log.keys.soon(stream)
        owner = SigningKey.from_seed(self._log.ambient.random(32))
        key, certificate = await self._issuing(stream)
        payload, seen = bytes([OWNER]) + owner.public + holder, set(grants)
        appended = await self._log.append_control(
            stream, b"grant", payload, key, grant=certificate, skip=lambda state: set(state.grants) != seen
        )
        return Writer(stream, owner, appended.commit) if appended else None

    async def fence(self, stream: str, grant: bytes) -> None:
        """End a grant whatever the stream's head is; nothing happens if it has ended already."""
        key, certificate = await self._issuing(stream)
        await self._log.append_control(
            stream, b"fence", grant, key, grant=certificate, skip=lambda state: grant not in state.grants
        )

    async def owner(self, stream: str) -> bytes:
        """The grant in force on a stream; `GrantEndedError` if there is none."""
        state: StreamState = await self._log.state(stream)
        if not state.grants:
            raise GrantEndedError(stream)
        return next(iter(state.grants))

    async def _make_room(self, inbox: str) -> None:
        grants = (await self._log.state(inbox)).grants
        for grant in list(grants)[: max(0, len(grants) - MAX_GRANTS + 16)]:
            await self.fence(inbox, grant)

    def _certificate(self, number: int, public: bytes) -> bytes | None:
        issuers = self._log.index.part(number)[0].issuers
        return next((commit for commit, key in issuers.items() if key == public), None)

    async def _issuing(self, stream: str) -> tuple[SigningKey, bytes]:
        """The issuing key in use; certified first if another process has just made it."""
        for _ in range(2):
            key = self._log.keyring.issuing(self._log.identity)
            certificate = self._certificate(slice_of(self._log.identity, stream.encode()), key.public)
            if certificate:
                return key, certificate
            await self.ensure_certified()
        raise WrongKeyError(f"the issuing key is not certified in the slice of {stream}: open the log again")

    async def _in_all_slices(self, kind: bytes, payload: object) -> None:
        """``payload(slice)`` is what to write there, or None where nothing is to be done."""
        assert callable(payload)
        todo = [number for number in range(self._log.identity.slices) if payload(number) is not None]
        if todo:
            root = self._log.keyring.root(self._log.identity)
            await asyncio.gather(*(self._in_slice(kind, payload, number, root) for number in todo))

    async def _in_slice(self, kind: bytes, payload: object, number: int, root: SigningKey) -> None:
        assert callable(payload)
        content = payload(number)
        await self._log.append_control(
            f"keys/{number}", kind, content, root, grant=ZERO, skip=lambda _: payload(number) is None
        )
