"""The one activation loop: load, then decide → append → evolve → reply, until passivated or taken over.

A stream that is live in this process is an `Activation`: its fold, and the key and grant under which this process
writes it. The fold remembers the ids of the last `WINDOW` commands, so that a command that is sent again is answered
again and not done again, also after a crash: the ids stand in the commits.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from ..eventstore.errors import ConflictError, EventStoreError, GrantEndedError, IdReusedError, UnknownOutcomeError
from ..eventstore.log import Log, Writer
from ..eventstore.reading import Commit, request_digest
from ..eventstore.snapshots import NOWHERE, Part, Place, Snapshots
from ..eventstore.verify import Cause
from .errors import MovedError

S = TypeVar("S")
WINDOW = 1_000
SNAPSHOT_EVERY = 500
_TRIES = 20
_AT_ONCE = 50
_log = logging.getLogger("agent_party")


_Part = tuple[bytes, dict[bytes, tuple[bytes, int]], int, dict[int, Any]]
"""A snapshot or a part of one: the state but for the list that grows, recent ids, that list's length, its changes."""


class Growing(NamedTuple):
    """A list in a state that grows with the stream, of which a snapshot keeps only what has changed.

    ``name`` of the attribute, ``item``: the type of its items, ``changed(event)``: the places of items that an event
    may change or add. Items may also go, from the end.
    """

    name: str
    item: Any
    changed: Callable[[Any], Iterable[int]]


class Fold(Generic[S]):
    """How commits become state. ``program`` names the code, version included; snapshots of another are not used.

    ``trusted``: the state is known to come back from a snapshot as it was; else that is checked for each snapshot.
    ``growing``: the part of it that grows, if the rest does not; then a snapshot costs what came since the one before.
    """

    def __init__(
        self,
        initial: Callable[[], S],
        evolve: Callable[[S, Commit], S],
        state_type: Any,
        program: str,
        *,
        trusted: bool = True,
        growing: Growing | None = None,
    ) -> None:
        self.initial, self.evolve, self.state_type, self.program = initial, evolve, state_type, program
        self.trusted, self.growing = trusted, growing
        item: Any = growing.item if growing else Any
        self.parts: msgspec.msgpack.Decoder[_Part] = msgspec.msgpack.Decoder(
            tuple[bytes, dict[bytes, tuple[bytes, int]], int, dict[int, item]]
        )


class Folded(Generic[S]):
    """A fold that has come to a revision. ``kept``: where the newest snapshot of it was made, ``packed``: its bytes."""

    def __init__(self, fold: Fold[S], stream: str) -> None:
        self.fold, self.stream = fold, stream
        self.state, self.revision, self.head = fold.initial(), 0, b""
        self.recent: dict[bytes, tuple[bytes, int]] = {}
        self.packed, self.kept = 0, NOWHERE
        self._changed: set[int] = set()

    def add(self, commit: Commit) -> None:
        """Evolve by one commit."""
        self.state = self.fold.evolve(self.state, commit)
        self.revision, self.head = commit.revision, commit.hash
        if self.fold.growing:
            for event in commit.events:
                self._changed.update(self.fold.growing.changed(event))
        if commit.digest:
            self.recent[commit.id] = (commit.digest, commit.revision)
            if len(self.recent) > WINDOW:
                del self.recent[next(iter(self.recent))]

    @property
    def place(self) -> Place:
        """Where it stands."""
        return Place(self.revision, self.head)

    def pack(self) -> bytes:
        """State and recent ids as a snapshot holds them: of the part that grows, what has changed since `kept`."""
        if (growing := self.fold.growing) is None:
            return msgspec.msgpack.encode((msgspec.msgpack.encode(self.state), self.recent, 0, {}))
        items = getattr(self.state, growing.name)
        changed = {place: items[place] for place in sorted(self._changed) if place < len(items)}
        try:
            setattr(self.state, growing.name, [])
            rest = msgspec.msgpack.encode(self.state)
        finally:
            setattr(self.state, growing.name, items)
        return msgspec.msgpack.encode((rest, self.recent, len(items), changed))

    def was_kept(self, packed: bytes) -> Place:
        """A snapshot was made of this; after which one."""
        before, self.kept, self.packed = self.kept, self.place if self.fold.growing else NOWHERE, len(packed)
        self._changed.clear()
        return before

    def was_lost(self) -> None:
        """The snapshot that was made last is not there: the next one is whole."""
        self.kept = NOWHERE
        if self.fold.growing:
            self._changed.update(range(len(getattr(self.state, self.fold.growing.name))))

    def unpack(self, parts: Sequence[Part]) -> None:
        """The reverse of `pack`, part by part. Changes nothing where it raises."""
        growing, items = self.fold.growing, list[Any]()
        rest, recent, data = b"", self.recent, b""
        for _, data in parts:
            rest, recent, count, changed = self.fold.parts.decode(data)
            for place, item in changed.items():
                items[place : place + 1] = [item]
            del items[count:]
            if len(items) != count:
                raise ValueError("a part of the snapshot is missing")
        state = msgspec.msgpack.decode(rest, type=self.fold.state_type)
        if growing:
            setattr(state, growing.name, items)
        self.state, self.recent, (self.revision, self.head), self.packed = state, recent, parts[-1].place, len(data)
        self.kept = self.place if growing else NOWHERE


async def load(
    log: Log, fold: Fold[S], stream: str, *, snapshots: Snapshots | None, at: int | None = None
) -> Folded[S]:
    """The fold of a stream at its head, or at a revision; from a snapshot and the tail where there is one."""
    folded = Folded(fold, stream)
    kept = snapshots.load(stream, fold.program) if snapshots and at is None else []
    if kept and await _stands(log, stream, kept[-1].place):
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, TypeError, ValueError):
            folded.unpack(kept)
    head = (await log.state(stream)).revision if at is None else at
    for first in range(folded.revision + 1, head + 1, _AT_ONCE):
        async for commit in log.read(stream, first, min(head, first + _AT_ONCE - 1)):
            folded.add(commit)
        await asyncio.sleep(0)  # so that a long stream does not keep the others of this process waiting
    return folded


async def _stands(log: Log, stream: str, place: Place) -> bool:
    """Whether the chain has this commit at this revision: a snapshot is believed no further."""
    async for commit in log.read(stream, place.revision, place.revision, lenient=True):
        return commit.hash == place.head
    return False


class Activation(Generic[S]):
    """A stream that this process writes."""

    def __init__(self, log: Log, fold: Fold[S], stream: str, snapshots: Snapshots | None = None) -> None:
        self.log, self.fold, self.stream, self.snapshots = log, fold, stream, snapshots
        self.folded = Folded(fold, stream)
        self.writer: Writer | None = None
        self.ended = False
        self._lock = asyncio.Lock()
        self._snapshot_at = self._snapshot_size = self._written = 0

    @property
    def state(self) -> S:
        """The state after everything recorded."""
        return self.folded.state

    async def start(self, grant: Callable[[str], Any], kept: Writer | None = None) -> None:
        """Take the stream over (``grant(stream)`` gives key and grant), then load it: what comes after is ours.

        ``kept``: key and grant that this process has had since it let go of the stream, if they still count.
        """
        self.writer = kept or await grant(self.stream)
        self.folded = await load(self.log, self.fold, self.stream, snapshots=self.snapshots)
        self._snapshot_at, self._snapshot_size = self.folded.revision, self.folded.packed

    async def command(
        self, command_id: bytes, request: bytes, decide: Callable[[S], Sequence[Any]], cause: Cause | None = None
    ) -> tuple[Any, ...]:
        """Decide and record, once for each id. ``request``: the command's bytes; others under its id are refused."""
        digest = request_digest(self.log.secret("request"), request)
        async with self._lock:
            for _ in range(_TRIES):
                if known := self.folded.recent.get(command_id):
                    return await self._again(command_id, digest, known)
                events = tuple(decide(self.state))
                if not events:
                    return ()
                with contextlib.suppress(ConflictError):
                    await self._append(events, command_id, digest, cause)
                    return events
        raise ConflictError(self.stream, self.folded.revision, self.folded.revision)

    async def record(self, events: Sequence[Any], cause: Cause | None = None) -> Commit:
        """Record what has happened, whatever it is: the owner's own doing, outside of any command."""
        async with self._lock:
            return await self._append(events, self.log.ambient.random(16), b"", cause)

    async def release(self, end: Callable[[Writer], Awaitable[None]]) -> None:
        """Let the stream go: ``end(writer)`` ends the grant, and whoever can go on with it may."""
        async with self._lock:
            self.ended = True
            if self.writer:
                await end(self.writer)

    async def catch_up(self) -> None:
        """Read what others have written on the stream meanwhile."""
        await self.log.refresh()
        async with self._lock:
            await self._catch_up(b"")

    async def _again(self, command_id: bytes, digest: bytes, known: tuple[bytes, int]) -> tuple[Any, ...]:
        if known[0] != digest:
            raise IdReusedError(self.stream, command_id.hex())
        async for commit in self.log.read(self.stream, known[1], known[1]):
            return commit.events
        return ()

    async def _append(self, events: Sequence[Any], command_id: bytes, digest: bytes, cause: Cause | None) -> Commit:
        if self.ended or self.writer is None:
            raise MovedError(f"{self.stream} is not live in this process: resolve it again")
        for _ in range(_TRIES):
            expected = self.folded.revision
            try:
                appended = await self.log.append(
                    self.writer, events, expected=expected, commit_id=command_id, digest=digest, cause=cause
                )
            except GrantEndedError as error:
                self.ended = True
                raise MovedError(f"{self.stream} was taken over by another process: resolve it again") from error
            except (ConflictError, UnknownOutcomeError):
                await self.log.refresh()
                if commit := await self._catch_up(command_id):
                    return commit
                if self.folded.revision != expected:
                    raise ConflictError(self.stream, expected, self.folded.revision) from None
                continue
            commit = Commit(
                self.stream, appended.revision, appended.commit, command_id, digest, appended.time, cause, b"", b"",
                tuple(events), None, appended.slice, appended.position,
            )  # fmt: skip
            self.folded.add(commit)
            self._written += appended.size
            self._maybe_snapshot()
            return commit
        raise UnknownOutcomeError(self.stream, command_id)

    async def _catch_up(self, command_id: bytes) -> Commit | None:
        """Read what came; one's own commit may be among it."""
        own = None
        async for commit in self.log.read(self.stream, self.folded.revision + 1):
            self.folded.add(commit)
            own = commit if commit.id == command_id else own
        return own

    def _maybe_snapshot(self) -> None:
        """After so many commits, and not before about as many bytes were recorded as the last snapshot had.

        So all snapshots of a stream together are no larger than a few times what was recorded, however it grows. A part
        may be twice as large as what it is of: most of it are the same values.
        """
        if self._written * (2 if self.fold.growing else 1) >= self._snapshot_size:
            self.snapshot(SNAPSHOT_EVERY)

    @property
    def is_busy(self) -> bool:
        """Whether something is being decided or recorded."""
        return self._lock.locked()

    def snapshot(self, worth: int = 1) -> None:
        """Keep the fold, so that the next activation need not read the whole stream; if it is ``worth`` commits on."""
        if self.snapshots and self.folded.revision - self._snapshot_at >= worth:
            self._snapshot_at, self._written = self.folded.revision, 0
            try:
                packed = self.folded.pack()
                self._snapshot_size = len(packed)
                if not self.fold.trusted and not self._comes_back(packed):
                    _log.warning(
                        "the state of %s does not survive being stored: no snapshot of it is kept", self.stream
                    )
                    return
                before = self.folded.was_kept(packed)
                if not self.snapshots.save(self.stream, self.folded.place, self.fold.program, packed, before):
                    self.folded.was_lost()
            except (TypeError, ValueError, OverflowError, RecursionError, EventStoreError) as error:
                _log.warning("no snapshot of %s is kept: %s", self.stream, error)

    def _comes_back(self, packed: bytes) -> bool:
        again = Folded(self.fold, self.stream)
        again.unpack([Part(self.folded.place, packed)])
        return bool(again.state == self.state)
