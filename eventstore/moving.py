"""Moving a log from one tape to another: the same records in the same order in every slice, so the same trees.

    1. all records but the last are copied, while the source is still the log
    2. the source is marked as moved: from then on its tape takes nothing that counts
    3. what is left is copied, and both are compared: every slice's tree, the checkpoint, an export of all of it

Broken off anywhere, it goes on where it was. A target that is not complete is not opened by anyone meanwhile, for it
holds less than the remembered checkpoint. Why this cannot fork a history: `docs/decisions/0018-moving-a-log.md`.
"""

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .appending import Appender
from .backends.index_file import IndexFile
from .errors import CorruptLogError, LogMovedError, StoreBusyError, StoreError, WrongLogError
from .export import export_chunks
from .index import Index
from .keyring import Keyring
from .log import Log
from .moves import Movable
from .tape import Indefinite, Tape
from .verify import CONTROL

BATCH, BATCH_BYTES = 2_000, 4 * 1024 * 1024
"""Records, and their bytes, that are on their way at once. What comes next is sent when they are seen to stand."""
PATIENCE = 5.0
"""Seconds to wait for records to stand before what is missing of them is sent again."""
_TRIES = 20
Progress = Callable[[str, int, int], None]


class Moved(NamedTuple):
    """What a move came to. ``copied``: records that this run copied; ``export``: SHA-256 of an export of all of it."""

    log_id: bytes
    commits: int
    slices: int
    copied: int
    checkpoint: str
    export: str


class Copy:
    """The target of a move, as far as it has come. ``secret``: what seals its index, which is the mover's own."""

    def __init__(self, source: Log, tape: Tape, path: Path, secret: bytes) -> None:
        self._source, self._tape, identity = source, tape, source.identity
        file = IndexFile(path, secret, identity.log_id)
        self.index = Index(identity, file, accepted_only=tape.conditional, lanes=tape.lanes)
        self._appenders = [Appender(lane, tape, self.index, _no_blob) for lane in range(tape.lanes)]
        self.copied = 0

    async def look(self) -> None:
        """Read what is there already; `WrongLogError` if it is not a beginning of the source."""
        for appender in self._appenders:
            await appender.bind()
            await appender.catch_up()
        while [appender for appender in self._appenders if appender.held]:
            before = self.index.sizes()
            for appender in self._appenders:
                await appender.catch_up()
            if self.index.sizes() == before:
                break
        self.compare()

    def compare(self) -> None:
        """`WrongLogError` unless every slice is a beginning of the source's."""
        for part, size in self.index.sizes().items():
            there = self._source.index.position(part)
            if size > there or self._source.index.root_at(part, size) != self.index.root_at(part, size):
                raise WrongLogError(
                    f"the target holds other records of this log than the source: {size} in slice {part}, where the "
                    f"source has {there}. Somebody writes to it, or did: move to an empty one"
                )

    async def fill(self, sizes: dict[int, int], progress: Progress) -> None:
        """Copy up to these sizes of the slices, each in its order, nothing before what precedes it stands."""
        total, before = sum(sizes.values()), sum(self.index.sizes().values())
        while left := {part: size for part, size in sizes.items() if self.index.position(part) < size}:
            rounds: dict[int, list[tuple[int, list[bytes]]]] = {}
            for part, size in left.items():
                most = max(1, BATCH // len(left)), BATCH_BYTES // len(left)
                rounds.setdefault(self.index.lane_of(part), []).append((part, await self._next(part, size, *most)))
            await _all([self._place(lane, asked) for lane, asked in rounds.items()])
            if any(self.index.position(part) > sizes[part] for part in sizes):
                self.compare()
            progress("copied", min(total, sum(self.index.sizes().values())), total)
        self.compare()
        self.copied += sum(self.index.sizes().values()) - before

    async def _next(self, part: int, size: int, records: int, most: int) -> list[bytes]:
        """The next records of a slice, so many of them and of their bytes, but at least one.

        A tape that is not conditional may lose one of them and take those behind it. So there they are data commits of
        one stream, of which none is accepted without the one before it; else the order in the slice would be another.
        """
        others = {number: known for number, known in self._source.index.sizes().items() if number != part}
        position = self.index.position(part)
        rows = self._source.after({**others, part: position}, min(records, size - position))
        if [row.position for row in rows] != list(range(position, position + len(rows))) or not rows:
            raise StoreBusyError("the source's index is being rebuilt: begin again when that is done")
        if not self._tape.conditional:
            rows = rows[: next((n for n, row in enumerate(rows) if row.stream != rows[0].stream), len(rows))]
        raws: list[bytes] = []
        for record, events in await self._source.records(rows):
            control = record.header.kind == CONTROL
            if raws and (sum(map(len, raws)) + len(record.raw) > most or (control and not self._tape.conditional)):
                break
            raws.append(record.raw)
            if control and (not self._tape.conditional or events[0].type == b"seal"):  # what follows a seal may lie
                break  # in another lane
        return raws

    async def _place(self, lane: int, asked: list[tuple[int, list[bytes]]]) -> None:
        """Have records stand next in their slices; what is lost on the way is sent again."""
        appender, starts = self._appenders[lane], {part: self.index.position(part) for part, _ in asked}
        goals = {part: starts[part] + len(raws) for part, raws in asked}
        for _ in range(_TRIES):
            left = [raw for part, raws in asked for raw in raws[self.index.position(part) - starts[part] :]]
            if not left:
                return
            async with appender.lock:
                try:
                    attempt = await self._tape.append(lane, left, appender.seen)
                except Indefinite:
                    attempt = None
                if attempt:
                    await appender.take(attempt.entries, {})
                await self._until(appender, goals)
        raise StoreError(f"records do not stand in lane {lane} of the target, however often they are sent: look at it")

    async def _until(self, appender: Appender, goals: dict[int, int]) -> None:
        clock = asyncio.get_running_loop().time
        until = clock() + PATIENCE
        while True:
            await appender.catch_up()
            done = all(self.index.position(part) >= goal for part, goal in goals.items())
            if done or (left := until - clock()) <= 0 or self._tape.conditional:
                return
            await self._tape.wait(appender.lane, appender.seen.place, min(left, 1.0))

    def close(self) -> None:
        """Let go of the index."""
        self.index.close()


async def move(
    source: Log, tape: Tape, target: str, *, caches: Path, keyring: Keyring, progress: Progress = lambda *_: None
) -> Moved:
    """Move an open log to a tape whose address is ``target``; what is left of a run that broke off is done.

    ``caches``: a folder for what is thrown away afterwards. The keyring's pins are the caller's. Raises
    `WrongLogError` for a target that holds anything else, `LogMovedError` if the log went elsewhere before.
    """
    assert isinstance(source.tape, Movable)
    source.tape.to_the_mark = True
    if (went := await source.tape.moved_to()) and went != target:
        raise LogMovedError("the log", went)
    held = await tape.identity()
    if held is None:
        await tape.found(source.identity)
    elif held != source.identity:
        raise WrongLogError(f"{target} holds log {held.log_id.hex()[:16]}: move to an empty one")
    await source.refresh()
    source.remember()  # from here on, a target that holds less is refused by everyone
    copy = Copy(source, tape, caches / "copy.db", keyring.secret(source.identity, "index"))
    try:
        await copy.look()
        await copy.fill(_all_but_one(source), progress)
        await source.tape.mark_moved(source.identity, target, keyring.root(source.identity))
        await source.refresh()
        source.remember()
        await copy.fill(source.index.sizes(), progress)
        copied = copy.copied
    finally:
        copy.close()
    return await _compared(source, tape, caches / "compared.db", keyring, copied, progress)


def _all_but_one(source: Log) -> dict[int, int]:
    """Sizes by which the target is not yet as complete as the remembered checkpoint."""
    sizes = source.index.sizes()
    last = max(part for part, size in sizes.items() if size)
    return {**sizes, last: sizes[last] - 1}


async def _compared(source: Log, tape: Tape, index: Path, keyring: Keyring, copied: int, progress: Progress) -> Moved:
    """Read the target as anyone would, and compare it with the source."""
    target = Log(source.identity, tape, keyring, index=index, blobs=source.blobs, codec=source.codec)
    try:
        await target.start()
        checkpoint = source.checkpoint().body()
        if target.checkpoint().body() != checkpoint:
            raise CorruptLogError("the target's trees are not the source's", {"log": source.identity.log_id.hex()[:16]})
        exports = [await _export(log, said, progress) for log, said in ((source, "source"), (target, "target"))]
        if exports[0] != exports[1]:
            raise CorruptLogError("the target's export is not the source's", {"log": source.identity.log_id.hex()[:16]})
    finally:
        target.keys.close()
        target._lanes.close()
    return _told(source, copied, exports[0])


async def summed(log: Log, *, progress: Progress = lambda *_: None) -> Moved:
    """What a move that was done before came to, as the log is now."""
    return _told(log, 0, await _export(log, "target", progress))


def _told(log: Log, copied: int, export: str) -> Moved:
    sizes = log.index.sizes()
    return Moved(log.identity.log_id, sum(sizes.values()), len(sizes), copied, log.checkpoint().body(), export)


async def _export(log: Log, said: str, progress: Progress) -> str:
    digest, size = hashlib.sha256(), 0
    async for chunk in export_chunks(log):
        digest.update(chunk)
        size += len(chunk)
        progress(f"compared, bytes of the {said}", size, 0)
    return digest.hexdigest()


async def _all(works: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Do all of it at once; where one fails, nothing of the others goes on."""
    running = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*running)
    finally:
        for one in running:
            one.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _no_blob(content: bytes) -> None:
    raise StoreError("a move puts no blobs")
