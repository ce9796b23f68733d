"""The log: append, read, follow. One `Log` over any tape.

    appended = await log.append(writer, [OrderPlaced(...)], expected=0)
    async for commit in log.read("order/1"): ...

Acknowledged means: the tape was read up to the record and the rule accepted it. A conflict means: another data commit
occupies the expected revision. Neither needs a transaction, a lease or a leader: the chain is the lock.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from . import checkpoints
from .ambient import Ambient, System
from .appending import Appended, Appender, Pending
from .backends.index_file import IndexDamaged, IndexFile, Row, delete
from .blobs import Blobs
from .codec import Codec
from .commit import Built, Draft, Payload, SigningKey, build, control
from .datakeys import DataKeys
from .errors import (
    ConflictError,
    ControlRefusedError,
    EventStoreError,
    GrantEndedError,
    LogRolledBack,
    StoreBusyError,
    StoreError,
)
from .index import Index
from .keyring import Keyring
from .reading import Commit, Opener, checked
from .tape import Tape
from .verify import STREAM, ZERO, Cause, Identity, StreamState, judge, parse, sha256, slice_of

INLINE = 64 * 1024
DEADLINE = 30.0
_REMEMBER_EVERY = 2.0


class Writer(NamedTuple):
    """Who may write a stream: the key, in this process only, and the grant it was given."""

    stream: str
    key: SigningKey
    grant: bytes


class Log:
    """An open log. Made by `founding.open_log`; belongs to one event loop."""

    def __init__(
        self,
        identity: Identity,
        tape: Tape,
        keyring: Keyring,
        *,
        index: Path,
        blobs: Blobs,
        codec: Codec,
        ambient: Ambient | None = None,
    ) -> None:
        self.identity, self.tape, self.keyring, self.blobs, self.codec = identity, tape, keyring, blobs, codec
        self.ambient: Ambient = ambient or System()
        folder = keyring.log_folder(identity)
        self.keys = DataKeys(folder / "keys.db", keyring.secret(identity, "wrapping"), self.ambient.random)
        self.opener = Opener(identity, self.keys, blobs, codec)
        self.checkpoint_file = folder / "checkpoint"
        self._index_path, self._index_secret = index, keyring.secret(identity, "index")
        self._grown = asyncio.Event()
        self._locks: dict[str, asyncio.Lock] = {}
        self._doubts: dict[str, Pending] = {}
        self._tails: list[asyncio.Task[None]] = []
        self._remembered = 0.0
        self._closed = False

    async def start(self) -> None:
        """Read the tape to its end and compare it with the remembered checkpoint."""
        try:
            await self._read_all()
        except (IndexDamaged, LogRolledBack):
            # The index is never truth: whether the tape or the index is wrong shows when it is read without one.
            delete(self._index_path)
            await self._read_all()
        self.check_remembered()

    async def _read_all(self) -> None:
        file = IndexFile(self._index_path, self._index_secret, self.identity.log_id)
        self.index = Index(self.identity, file, accepted_only=self.tape.conditional)
        self._appenders = [Appender(n, self.tape, self.index, self._put_blob) for n in range(self.tape.lanes)]
        for appender in self._appenders:
            appender.grown = self._notify
            await appender.bind()
        await self.refresh()
        self.check_remembered()

    def check_remembered(self) -> None:
        """Raise `LogRolledBack` if the log is not a continuation of its remembered checkpoint."""
        key = self.keyring.checkpoint_key(self.identity)
        kept = checkpoints.remembered(self.checkpoint_file, self.identity, key.public)
        for number, (size, root) in (kept.slices if kept else {}).items():
            if (now := self.index.position(number)) < size:
                raise LogRolledBack(
                    f"slice {number} has {now} commits, {size} were there before: the log was rolled back, cut or "
                    "emptied. Restore the newest copy; if it was deleted on purpose, run `party log forget`"
                )
            if self.index.root_at(number, size) != root:
                raise LogRolledBack(f"the first {size} commits of slice {number} are not the ones seen before")

    def checkpoint(self) -> checkpoints.Checkpoint:
        """What the log is now, as far as it was read."""
        slices = {number: (tree.size, tree.root()) for number, (_, tree) in self.index.parts.items()}
        return checkpoints.Checkpoint(self.identity.log_id, slices)

    def remember(self) -> None:
        """Keep a signed checkpoint outside the log's folder."""
        key = self.keyring.checkpoint_key(self.identity)
        checkpoints.remember(self.checkpoint_file, self.checkpoint(), self.identity, key)
        self._remembered = asyncio.get_running_loop().time()

    async def refresh(self) -> None:
        """Read every lane to its end."""
        for appender in self._appenders:
            async with appender.lock:
                while await appender.read():
                    pass
        self._notify()

    def _notify(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()

    async def append(
        self,
        writer: Writer,
        events: Sequence[Any],
        *,
        expected: int,
        commit_id: bytes | None = None,
        digest: bytes = b"",
        cause: Cause | None = None,
        correlation: bytes = b"",
        authority: bytes = b"",
        subject: str | None = None,
        deadline: float = DEADLINE,
    ) -> Appended:
        """Append one commit. ``expected``: the stream's revision as the writer knows it; ``deadline``: seconds.

        Raises `ConflictError`, `GrantEndedError`, `UnknownOutcomeError`, `PayloadError` or a `StoreError`; after any
        but the third, nothing was written. ``subject``: whose data key seals it, by default the stream's own.
        """
        stream = writer.stream.encode()
        encoded = [self.codec.encode(event) for event in events]
        key = self.keys.of_subject(subject or writer.stream)
        payloads = [Payload(name, schema, plaintext, key) for name, schema, plaintext in encoded]
        identifier = commit_id or self.ambient.random(16)

        def prepare(state: StreamState) -> Built:
            if state.revision != expected:
                raise ConflictError(writer.stream, expected, state.revision)
            if writer.grant not in state.grants:
                raise GrantEndedError(writer.stream)
            salt, now = self.ambient.random(32), self.ambient.now()
            draft = Draft(stream, payloads, identifier, now, salt, digest, correlation, authority, cause)
            return build(self.identity, draft, state.head, expected + 1, writer.grant, writer.key, INLINE)

        appended = await self._submit(writer.stream, prepare, deadline)
        assert appended is not None
        return appended

    async def append_control(
        self, stream: str, kind: bytes, payload: bytes, key: SigningKey, *, grant: bytes = ZERO, skip: Any = None
    ) -> Appended | None:
        """Append a control commit, again and again until it stands. ``skip(state)``: there is nothing to do."""

        def prepare(state: StreamState) -> Built | None:
            if skip and skip(state):
                return None
            draft = Draft(stream.encode(), (), self.ambient.random(16), self.ambient.now(), b"")
            prev = payload if kind == b"fence" else state.head
            built = control(self.identity, draft, kind, payload, prev, grant, key)
            part = self.index.part(built.slice)[0]
            if finding := judge(self.identity, part, state, parse(built.raw), own=True).finding:
                raise ControlRefusedError(stream, kind.decode(), finding)
            return built

        return await self._submit(stream, prepare, DEADLINE)

    async def _submit(self, stream: str, prepare: Any, deadline: float) -> Appended | None:
        if self._closed:
            raise StoreError("the log is closed")
        if not STREAM.fullmatch(stream.encode()):
            raise EventStoreError(f"{stream!r} is no stream name: use kind/name, ASCII letters, digits, . _ ~ -")
        lock = self._locks.setdefault(stream, asyncio.Lock())
        appender = self._appenders[self._lane(slice_of(self.identity, stream.encode()))]
        loop = asyncio.get_running_loop()
        async with lock:
            if doubt := self._doubts.pop(stream, None):
                await self._resolve(appender, doubt)
            pending = Pending(stream.encode(), prepare, loop.time() + deadline)
            appender.submit(pending)
            try:
                # The append goes on when its caller is cancelled: then the next one on the stream finds out first.
                await asyncio.wait([pending.done], timeout=deadline + 1)
            except asyncio.CancelledError:
                self._doubts[stream] = pending
                raise
            if not pending.done.done():
                self._doubts[stream] = pending
                raise StoreBusyError(f"no answer within {deadline} s for {stream}; the next append finds out first")
            if pending.done.exception() and pending.sent:
                self._doubts[stream] = pending
        if not lock.locked():
            self._locks.pop(stream, None)
        self._maybe_remember()
        return pending.done.result()

    async def _resolve(self, appender: Appender, doubt: Pending) -> None:
        """Find out what became of an append whose caller was not told."""
        if not doubt.done.done():
            await asyncio.wait([doubt.done], timeout=DEADLINE)
            if not doubt.done.done():
                raise StoreBusyError(f"what became of an earlier append on {doubt.stream.decode()} is still unknown")
        async with appender.lock:
            while await appender.read():
                pass

    def _maybe_remember(self) -> None:
        if asyncio.get_running_loop().time() - self._remembered > _REMEMBER_EVERY:
            self.remember()

    def _lane(self, part: int) -> int:
        return part * self.tape.lanes // self.identity.slices

    async def _put_blob(self, content: bytes) -> None:
        await self.blobs.put(sha256(content), content)

    async def state(self, stream: str) -> StreamState:
        """The rule's state of a stream, as far as this process has read."""
        appender = self._appenders[self._lane(slice_of(self.identity, stream.encode()))]
        async with appender.lock:
            return await appender.state(stream.encode())

    async def read(self, stream: str, first: int = 1, last: int | None = None) -> AsyncIterator[Commit]:
        """A stream's data commits between two revisions, both included, in order; decrypted and checked."""
        name = stream.encode()
        last = (await self.state(stream)).revision if last is None else last
        for start in range(first, last + 1, 500):
            rows = self.index.rows(name, start, min(last, start + 499))
            if [row.revision for row in rows] != list(range(start, start + len(rows))):
                raise IndexDamaged("the index skips a revision: delete it and start again")
            for commit in await self.commits(rows):
                yield commit

    async def commits(self, rows: Sequence[Row]) -> list[Commit]:
        """The commits of index rows, in the same order."""
        raws: dict[tuple[int, int], bytes] = {}
        for lane in {row.lane for row in rows}:
            places = [row.place for row in rows if row.lane == lane]
            raws |= {(lane, entry.place): entry.raw for entry in await self.tape.fetch(lane, places)}
        return [
            await self.opener.commit(*checked(raws[row.lane, row.place], row.stream, row.commit), row.position)
            for row in rows
        ]

    def after(self, sizes: dict[int, int], limit: int = 500) -> list[Row]:
        """The next accepted records of all slices for a reader who has had ``sizes[slice]`` of each."""
        return self.index.after(sizes, limit)

    async def changed(self, timeout: float = DEADLINE) -> None:
        """Return soon after this process has read something new, or after ``timeout`` seconds."""
        if not self._tails:
            self._tails = [asyncio.create_task(self._tail(appender)) for appender in self._appenders]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._grown.wait()

    async def _tail(self, appender: Appender) -> None:
        while True:
            await self.tape.wait(appender.lane, appender.seen.place, 1.0)
            async with appender.lock:
                grown = await appender.read()
            if grown:
                self._notify()

    def streams(self, prefix: str = "", after: str = "", limit: int = 1_000) -> list[str]:
        """Stream names with a prefix, sorted."""
        return [name.decode() for name in self.index.streams(prefix.encode(), after.encode(), limit)]

    async def close(self) -> None:
        """Finish what is on its way, remember a checkpoint, and let go of the stores."""
        if self._closed:
            return
        self._closed = True
        for tail in self._tails:
            tail.cancel()
        await asyncio.gather(*self._tails, return_exceptions=True)
        for appender in self._appenders:
            await appender.close()
        if self.index.sizes():
            self.remember()
        self.index.close()
        self.keys.close()
        await self.blobs.close()
        await self.tape.close()
