"""The log: append, read, follow. One `Log` over any tape.

    appended = await log.append(writer, [OrderPlaced(...)], expected=0)
    async for commit in log.read("order/1"): ...

Acknowledged means: the tape was read up to the record and the rule accepted it. A conflict means: another data commit
occupies the expected revision. Neither needs a transaction, a lease or a leader: the chain is the lock.
"""

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from . import checkpoints
from .ambient import Ambient, System
from .appending import Appender
from .backends.index_file import IndexDamaged, Row
from .blobs import Blobs
from .codec import Codec
from .commit import Built, Draft, Payload, SigningKey, build, control, format_of
from .datakeys import DataKeys
from .errors import (
    ConflictError,
    ControlRefusedError,
    CorruptLogError,
    EventStoreError,
    GrantEndedError,
    LogRolledBack,
    PayloadError,
    StoreBusyError,
    WrongKeyError,
)
from .index import Index
from .keyring import Keyring
from .lanes import Lanes
from .pending import Appended, SliceSealed
from .puts import Puts
from .reading import Commit, Opener, checked, fetched, in_turns
from .sharing import Shared
from .tape import Tape
from .verify import (
    MAX_STREAM,
    STREAM,
    ZERO,
    Cause,
    Event,
    Identity,
    Record,
    SliceState,
    StreamState,
    judge,
    parse,
)

INLINE = 64 * 1024
DEADLINE = 30.0
_REMEMBER_EVERY = 2.0
_CALM = 0.02
_logger = logging.getLogger(__name__)


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
        self.puts = Puts(blobs, identity.log_id, self.ambient.random)
        self.checkpoint_file = folder / "checkpoint"
        self._lanes = Lanes(
            identity, tape, index, keyring.secret(identity, "index"), self.puts.put_payload, self._notify
        )
        self._grown, self._reading_on = asyncio.Event(), Shared(self._lanes.catch_up)
        self._listeners: list[Callable[[bytes], None]] = []
        self._tails: list[asyncio.Task[None]] = []
        self._healing: set[asyncio.Task[None]] = set()
        self._remembered = 0.0
        self._secrets: dict[str, bytes] = {}
        self._closed = False

    def secret(self, name: str) -> bytes:
        """A symmetric secret of this log from the keyring, which is asked once (see `Keyring.secret`)."""
        found = self._secrets.get(name)
        if found is None:
            found = self._secrets[name] = self.keyring.secret(self.identity, name)
        return found

    @property
    def index(self) -> Index:
        """What this process has read."""
        return self._lanes.index

    async def start(self) -> None:
        """Read the tape to its end and compare it with the remembered checkpoint."""
        await self._lanes.start(self.check_remembered)
        self.index.listeners = self._listeners

    def check_remembered(self, index: Index | None = None) -> None:
        """Raise `LogRolledBack` if the log is not a continuation of its remembered checkpoint."""
        index, key = index or self.index, self.keyring.checkpoint_key(self.identity)
        kept = checkpoints.remembered(self.checkpoint_file, self.identity, key.public)
        for number, (size, root) in (kept.slices if kept else {}).items():
            if (now := index.position(number)) < size:
                raise LogRolledBack(
                    f"slice {number} has {now} commits, {size} were there before: the log was rolled back, cut or "
                    "emptied. Restore the newest copy; if it was deleted on purpose, run `party log forget`"
                )
            if index.root_at(number, size) != root:
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
        """Read every lane to its end; `LogRolledBack` if what was read before is not there any more."""
        await self._reading_on()
        self._notify()

    def _notify(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()

    async def append(
        self,
        writer: Writer,
        events: Sequence[Any],
        *,
        expected: int | None,
        commit_id: bytes | None = None,
        digest: bytes = b"",
        cause: Cause | None = None,
        correlation: bytes = b"",
        authority: bytes = b"",
        subject: str | None = None,
        deadline: float = DEADLINE,
    ) -> Appended:
        """Append one commit. ``expected``: the stream's revision as the writer knows it, None for whatever it is (an
        inbox has many writers); ``deadline``: seconds.

        Raises `ConflictError`, `GrantEndedError`, `UnknownOutcomeError`, `PayloadError` or a `StoreError`; after any
        but the third, nothing was written. ``subject``: whose data key seals it, by default the stream's own.
        A caller that is cancelled does not know either; what it began may go on until the deadline.
        """
        if commit_id or digest or correlation or authority or cause:
            _check_ids(commit_id or bytes(16), digest, correlation, authority, cause)
        stream = writer.stream.encode()
        encoded = [self.codec.encode(event) for event in events]
        key = self.keys.known(subject or writer.stream) or await self.keys.made(subject or writer.stream)
        named = [tuple(getattr(event, "attachments", ())) for event in events]
        payloads = [Payload(*parts, key, blobs) for parts, blobs in zip(encoded, named, strict=True)]
        identifier = commit_id or self.ambient.random(16)

        def prepare(state: StreamState, part: SliceState) -> Built:
            if writer.grant not in state.grants:
                raise GrantEndedError(writer.stream)
            if state.grants[writer.grant][1] != writer.key.public:
                raise WrongKeyError(f"the key of this writer is not the one that {writer.stream} was granted to")
            if expected is not None and state.revision != expected:
                raise ConflictError(writer.stream, expected, state.revision)
            salt, now, form = self.ambient.random(32), self.ambient.now(), format_of(writer.stream, part)
            draft = Draft(stream, payloads, identifier, now, salt, digest, correlation, authority, cause, form)
            return build(self.identity, draft, state.head, state.revision + 1, writer.grant, writer.key, INLINE)

        submit = functools.partial(self._lanes.submit, writer.stream, prepare, deadline)
        if any(named) or any(len(payload.plaintext) > INLINE - 16 for payload in payloads):
            names = {name for blobs in named for name in blobs}
            appended = await self.puts.naming(names, submit, lambda: self._lanes.in_doubt(stream))
        else:
            appended = await submit()
        self._maybe_remember()
        assert appended is not None
        return appended

    async def append_control(
        self, stream: str, kind: bytes, payload: bytes, key: SigningKey, *, grant: bytes = ZERO, skip: Any = None
    ) -> Appended | None:
        """Append a control commit, again and again until it stands. ``skip(state)``: there is nothing to do."""

        def prepare(state: StreamState, part: SliceState) -> Built | None:
            if skip and skip(state):
                return None
            prev, form = payload if kind == b"fence" else state.head, format_of(stream, part)
            draft = Draft(stream.encode(), (), self.ambient.random(16), self.ambient.now(), b"", format=form)
            built = control(self.identity, draft, kind, payload, prev, grant, key)
            if key.public != (self.identity.root if grant == ZERO else part.issuers.get(grant, key.public)):
                raise WrongKeyError(f"the key for a {kind.decode()} on {stream} is not the one its certificate names")
            finding = judge(self.identity, part, state, parse(built.raw), own=True).finding
            if finding == "sealed":
                raise SliceSealed(stream, f"slice {built.slice} is sealed")
            if finding:
                raise ControlRefusedError(stream, kind.decode(), finding)
            return built

        appended = await self._lanes.submit(stream, prepare, DEADLINE)
        await asyncio.sleep(0)  # whoever is called when a stream grows may want to begin something
        self._maybe_remember()
        return appended

    def _maybe_remember(self) -> None:
        if asyncio.get_running_loop().time() - self._remembered > _REMEMBER_EVERY:
            self._try_to_remember()

    def _try_to_remember(self) -> None:
        """A commit that stands is acknowledged, whether or not a checkpoint of it can be kept just now."""
        try:
            self.remember()
        except (OSError, EventStoreError) as error:
            _logger.warning("the checkpoint of %s cannot be remembered: %s", self.identity.log_id.hex()[:16], error)

    async def state(self, stream: str) -> StreamState:
        """The rule's state of a stream, as far as this process has read."""
        return await self._lanes.state(stream.encode())

    def newest_types(self, stream: str) -> tuple[bytes, ...] | None:
        """The types of the events in a stream's newest data commit, if this process has read that commit lately."""
        return self.index.types(stream.encode())

    async def read(
        self, stream: str, first: int = 1, last: int | None = None, *, lenient: bool = False
    ) -> AsyncIterator[Commit]:
        """A stream's data commits between two revisions, both included, in order; decrypted and checked."""
        head = (await self.state(stream)).revision
        last = head if last is None else min(last, head)
        for start in range(max(first, 1), last + 1, 500):
            rows = await self._lanes.mended(self._rows, stream.encode(), start, min(last, start + 499))
            for commit in await self.commits(rows, lenient=lenient):
                yield commit

    async def _rows(self, stream: bytes, first: int, last: int) -> list[Row]:
        rows = self.index.rows(stream, first, last)
        if [row.revision for row in rows] != list(range(first, last + 1)):
            raise IndexDamaged(f"the index does not know all revisions of {stream.decode()}")
        try:
            beyond = any(not 0 <= row.position < self.index.position(row.part) for row in rows)
            out_of_order = any(one.position >= two.position for one, two in pairwise(rows) if one.part == two.part)
        except TypeError as error:
            raise IndexDamaged(f"the index has a position of {stream.decode()} that is no number") from error
        if beyond or out_of_order:
            raise IndexDamaged(f"the index has a position of {stream.decode()} that cannot be")
        return rows

    async def commits(self, rows: Sequence[Row], *, lenient: bool = False) -> list[Commit]:
        """The commits of index rows, in the same order. ``lenient``: unknown events come as `Opaque`."""
        generation = self.index.generation
        try:
            return await self._opened(rows, lenient)
        except (CorruptLogError, LogRolledBack) as error:
            if isinstance(error, CorruptLogError) and error.finding != "altered":
                raise
            # Tape or index: read without the index, the tape shows which.
            await self._lanes.heal(generation)
            return await self._opened(self.index.rows_at([(row.part, row.position) for row in rows]), lenient)

    async def _opened(self, rows: Sequence[Row], lenient: bool) -> list[Commit]:
        """One by one: what is taken apart is still at hand when it is decrypted."""
        return [
            await self.opener.commit(*checked(raw, row.stream, row.commit), row.position, lenient=lenient)
            async for row, raw in in_turns(await fetched(self.tape, rows))
        ]

    async def records(self, rows: Sequence[Row]) -> list[tuple[Record, list[Event]]]:
        """The records of index rows with their events, as they stand: nothing is decrypted."""
        return [checked(raw, row.stream, row.commit) async for row, raw in in_turns(await fetched(self.tape, rows))]

    def after(self, sizes: dict[int, int], limit: int = 500) -> list[Row]:
        """The next accepted records of all slices for a reader who has had ``sizes[slice]`` of each.

        None while a damaged index is being rebuilt; `changed` returns when it is.
        """
        try:
            return self.index.after(sizes, limit)
        except IndexDamaged:
            self._heal_soon()
            return []

    def _heal_soon(self) -> None:
        healing = asyncio.get_running_loop().create_task(self._lanes.heal(self.index.generation))
        self._healing.add(healing)
        healing.add_done_callback(self._healing.discard)

    async def changed(self, timeout: float = DEADLINE) -> None:
        """Return soon after this process has read something new, or after ``timeout`` seconds.

        Raises what stopped the reading, such as `LogRolledBack`.
        """
        self.tail()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._grown.wait()
        self.tail()

    def tail(self) -> None:
        """Keep reading in the background, so that other processes' commits are seen soon after they stand."""
        stopped = [tail for tail in self._tails if tail.done()]
        if stopped or not self._tails:
            for tail in self._tails:
                tail.cancel()
            self._tails = [asyncio.create_task(self._tail(appender)) for appender in self._lanes.appenders]
            for tail in self._tails:
                tail.add_done_callback(lambda _: self._notify())
        for tail in stopped:
            tail.result()

    def listen(self, listener: Callable[[bytes], None]) -> None:
        """Call ``listener(stream)`` for each commit that is read; an empty name means that any may have grown."""
        self._listeners.append(listener)
        self.index.listeners = self._listeners

    async def _tail(self, appender: Appender) -> None:
        while True:
            with contextlib.suppress(StoreBusyError):
                place = appender.seen.place
                await self.tape.wait(appender.lane, place, 1.0)
                if appender.seen.place > place:  # this process has read on in writing: no need to look as well
                    await asyncio.sleep(_CALM)
                elif await self._lanes.mended(self._lanes.read_on, appender):
                    self._notify()
                elif appender.held:
                    await asyncio.sleep(_CALM)

    def streams(self, prefix: str = "", after: str = "", limit: int = 1_000) -> list[str]:
        """Stream names with a prefix, sorted."""
        try:
            return [name.decode() for name in self.index.streams(prefix.encode(), after.encode(), limit)]
        except IndexDamaged:
            self._heal_soon()
            raise

    async def close(self) -> None:
        """Finish what is on its way, remember a checkpoint, and let go of the stores."""
        if self._closed:
            return
        self._closed = True
        background = [*self._tails, *self._healing, *self._reading_on.tasks]
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self.tape.close)
            stack.push_async_callback(self.blobs.close)
            stack.push_async_callback(self.puts.close)
            stack.callback(self.keys.close)
            stack.callback(self._lanes.close)
            await self._lanes.finish()
            if self.index.sizes():
                self._try_to_remember()


def _check_ids(commit_id: bytes, digest: bytes, correlation: bytes, authority: bytes, cause: Cause | None) -> None:
    """A field of another length would make a record that nobody accepts."""
    fields = (("commit id", commit_id, 16), ("digest", digest, 16), ("correlation", correlation, 16))
    for name, value, size in (
        *fields,
        ("authority", authority, 32),
        ("cause's hash", cause.commit if cause else b"", 32),
    ):
        if len(value) not in (0, size):
            raise PayloadError(f"a {name} has {size} bytes, not {len(value)}")
    if cause and not (
        len(cause.stream) <= MAX_STREAM
        and STREAM.fullmatch(cause.stream)
        and len(cause.commit) == 32
        and 0 <= cause.revision < 1 << 64
        and 0 <= cause.event < 1 << 16
    ):
        raise PayloadError(f"a cause names an event of a stream by stream, revision, index and hash, not {cause}")
