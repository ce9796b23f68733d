"""Verifying a log where it lies: the whole tape from its first place, every record judged, every tree rebuilt.

Which log it must be, and what it was when it was last seen, come from the keyring; the store and its index are never
believed. So a log that `Log.start` refuses, or a copy of one that somebody carried elsewhere, can be looked at too.
"""

import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from . import sealing
from .backends.index_file import IndexFile
from .checkpoints import Checkpoint, remembered
from .datakeys import DataKeys
from .errors import CorruptLogError, EventStoreError, KeyringError, PayloadError
from .index import Held, Index, Taken
from .keyring import Keyring
from .log import Log
from .tape import Entry, Tape
from .verify import (
    AES_GCM,
    CONTROL,
    SIGN_TAG,
    ZERO,
    Event,
    Identity,
    Malformed,
    Record,
    beginning,
    parse_event_header,
    signature_holds,
)

_BATCH = 500
_LOOK_AHEAD = 10_000
MATCHES, ROLLED_BACK, CANNOT_TELL = "matches", "rolled-back", "cannot tell"


class Remembered(msgspec.Struct, frozen=True):
    """What the remembered checkpoint says. ``tail``: commits after it, which nobody but the store vouches for.

    ``details``: what is missing or changed in which slice, or why nothing can be told.
    """

    status: str
    size: int = 0
    tail: int = 0
    details: tuple[str, ...] = ()


class Audit(msgspec.Struct, frozen=True):
    """What was found. ``finding`` is empty if every record holds; ``at`` says where: place, stream, revision, event.

    ``findings`` counts what an unconditional tape holds beside accepted records: ``stale`` and ``foreign`` are
    harmless there, a ``gap`` means that something is missing.
    """

    log: str
    commits: int
    events: int
    streams: int
    slices: int
    finding: str
    at: dict[str, Any]
    detail: str
    checkpoint: Remembered
    findings: dict[str, int]

    @property
    def ok(self) -> bool:
        """Nothing is wrong as far as can be told; whether all is there, ``checkpoint.status`` says."""
        return not self.finding and self.checkpoint.status != ROLLED_BACK

    @property
    def proved(self) -> list[str]:
        """In words, what this audit has shown, and what it could not show."""
        if self.finding:
            return [f"the first {self.commits:,} commits hold; nothing is said of what follows"]
        said = [f"{self.commits:,} commits: chains, grants, signatures and contents hold"]
        if self.checkpoint.status == MATCHES:
            said.append(f"complete up to the remembered checkpoint of {self.checkpoint.size:,} commits")
            said.append(f"not shown: that nothing is missing of the {self.checkpoint.tail:,} or more commits after it")
        elif self.checkpoint.status == CANNOT_TELL:
            said.append("not shown: whether anything was cut off, rolled back or left out, for no checkpoint is known")
        else:
            said.append(
                f"not complete: the remembered checkpoint has {self.checkpoint.size:,} commits, and not all stand"
            )
        return [*said, "not shown: when anything was written; times are their writers' claims"]


async def verify_log(log: Log) -> Audit:
    """Audit an open log, reading its tape anew."""
    return await audit_journal(log.tape, log.identity, log.keyring, log.keys)


async def audit_journal(tape: Tape, identity: Identity, keyring: Keyring, keys: DataKeys | None = None) -> Audit:
    """Audit the log on a tape. ``identity`` comes from the configuration; ``keys`` help to name an altered event.

    Raises nothing for what is wrong with the store, which is what the answer is for; `KeyringError` for the keyring.
    """
    # Read before the tape is: whatever is remembered later holds more than this.
    kept, why = _kept(keyring, identity)
    with tempfile.TemporaryDirectory(prefix="agent-party-audit-") as folder:
        file = IndexFile(Path(folder) / "index.db", os.urandom(32), identity.log_id)
        index = Index(identity, file, accepted_only=False, lanes=tape.lanes)
        try:
            walk = _Walk(tape, identity, index, keys)
            await walk.lanes()
            await walk.look_at_identity()
            return walk.report(kept, why)
        finally:
            index.close()


class _Walk:
    """One pass over a tape."""

    def __init__(self, tape: Tape, log: Identity, index: Index, keys: DataKeys | None) -> None:
        self._tape, self._log, self._index, self._keys = tape, log, index, keys
        self._commits = self._events = self._streams = 0
        self._slices: set[int] = set()
        self._finding, self._detail, self._stopped = "", "", False
        self._at: dict[str, Any] = {}
        self._findings: Counter[str] = Counter()

    async def lanes(self) -> None:
        """Judge every lane to its end, those that are held up by another as far as they go each time."""
        places = dict.fromkeys(range(self._tape.lanes), 0)
        held = list(places)
        while held and not self._stopped:
            before = dict(places)
            held = [lane for lane in held if await self._is_held(lane, places)]
            if held and places == before:
                self._stopped, self._finding = True, "gap"
                self._at = {"lane": held[0], "place": places[held[0]] + 1}
                self._detail = "a slice is opened here, and the seal that it names is not to be found"

    async def _is_held(self, lane: int, places: dict[int, int]) -> bool:
        """Judge a lane; whether another must be read first."""
        try:
            await self._judge(lane, places)
        except Held:
            return True
        return False

    async def _judge(self, lane: int, places: dict[int, int]) -> None:
        """Judge a lane to its end; on a tape of accepted records only, to the first that is not."""
        after, limit, trouble = places[lane], _BATCH, None
        while not self._stopped:
            try:
                entries = await self._tape.read(lane, after, limit)
            except EventStoreError as error:
                if limit > 1:  # what stands before the damage is looked at first, record by record
                    limit, trouble = 1, error
                    continue
                self._damaged(error, after + 1)
                return
            if not entries:
                if trouble:
                    self._damaged(trouble, after + 1)
                return
            for entry in entries:
                if not await self._take(lane, entry):
                    return
                after = places[lane] = entry.place

    async def _take(self, lane: int, entry: Entry) -> bool:
        """Judge one entry; whether to go on."""
        taken = self._index.take(lane, entry)
        if not taken.finding and taken.record:
            header = taken.record.header
            self._commits, self._events = self._commits + 1, self._events + len(taken.events)
            self._streams += header.prev == beginning(self._log, header.stream).head
            self._slices.add(header.slice)
            return True
        if self._tape.conditional:
            self._stopped = True
            self._finding, self._at = taken.finding, await self._place(lane, entry, taken)
            return False
        kind = taken.finding if taken.finding in ("stale", "gap") else "foreign"
        self._findings[kind] += 1
        if kind == "gap" and not self._finding:
            self._finding, self._at = "gap", {"place": entry.place, **_claims(taken.record)}
        return True

    def _damaged(self, error: EventStoreError, place: int) -> None:
        self._stopped, self._at = True, {"place": place}
        if isinstance(error, CorruptLogError):
            self._finding, self._at = error.finding, self._at | error.at
        else:
            self._finding, self._detail = "damaged-store", str(error)

    async def look_at_identity(self) -> None:
        """Compare what the store says it is with what it must be; an empty one says nothing, and need not."""
        held, said = None, "the store does not say which log it holds"
        try:
            held = await self._tape.identity()
        except EventStoreError as error:
            said = str(error)
        else:
            if held is None and not self._commits:
                return
            said = f"the store says it holds log {held.log_id.hex()}" if held else said
        if held != self._log and not self._finding:
            self._finding, self._at, self._detail = "wrong-log", {"table": "party"}, said

    async def _place(self, lane: int, entry: Entry, taken: Taken) -> dict[str, Any]:
        """Where the finding is, as exactly as can be said: an altered record's own claims may be what was altered."""
        record = taken.record
        at = {"place": entry.place, **_claims(record)}
        if record is None or not self._is_intact(record):
            at |= await self._missed(lane, entry.place)
        if record and taken.finding in ("malformed", "body-mismatch"):
            event = altered_event(record, self._keys)
            if event is not None:
                at["event"] = event
        return at

    def _is_intact(self, record: Record) -> bool:
        header = record.header
        held = self._index.state(header.stream).grants.get(header.grant, (0, b""))[1]
        if header.kind == CONTROL:
            held = self._index.part(header.slice)[0].issuers.get(header.grant, b"")
            held = self._log.root if header.grant == ZERO else held
        return bool(held) and signature_holds(held, SIGN_TAG + record.commit, record.signature)

    async def _missed(self, lane: int, place: int) -> dict[str, Any]:
        """The stream and revision of an altered record, from the first intact one that was to follow it."""
        try:
            entries = await self._tape.read(lane, place, _LOOK_AHEAD)
        except EventStoreError:
            return {}
        for entry in entries:
            taken = self._index.take(lane, entry)
            if taken.finding == "gap" and taken.record:
                header, revision = taken.record.header, self._index.state(taken.record.header.stream).revision
                skipped = header.kind == CONTROL or header.revision > revision + 1
                return {"stream": header.stream.decode(), "revision": revision + 1 if skipped else 0}
            if taken.finding:
                break
        return {}

    def report(self, kept: Checkpoint | None, why: str) -> Audit:
        """The answer."""
        return Audit(
            log=self._log.log_id.hex(),
            commits=self._commits,
            events=self._events,
            streams=self._streams,
            slices=len(self._slices),
            finding=self._finding,
            at=self._at,
            detail=self._detail,
            checkpoint=self._compared(kept, why),
            findings=dict(self._findings),
        )

    def _compared(self, kept: Checkpoint | None, why: str) -> Remembered:
        if kept is None:
            return Remembered(CANNOT_TELL, details=(why,))
        if self._stopped:
            return Remembered(CANNOT_TELL, kept.size, details=("the log could not be read to its end",))
        lost: list[str] = []
        for number, (size, root) in sorted(kept.slices.items()):
            if (now := self._index.position(number)) < size:
                lost.append(f"slice {number} has {now} commits, {size} were there before")
            elif self._index.root_at(number, size) != root:
                lost.append(f"the first {size} commits of slice {number} are not the ones seen before")
        if lost:
            return Remembered(ROLLED_BACK, kept.size, details=tuple(lost))
        return Remembered(MATCHES, kept.size, self._commits - kept.size)


def altered_event(record: Record, keys: DataKeys | None) -> int | None:
    """Which event's bytes are not what they were, or None if that cannot be told.

    An event that does not decode, or that its data key does not open, was altered; so was the only one whose key is
    not known, and the only event of a commit that does not hold. Large events lie in the blobs, and the record has
    their hash only.
    """
    body, at, doubtful = record.body, 0, list[int]()
    for number in range(record.header.events):
        try:
            start = at + 2 + int.from_bytes(body[at : at + 2])
            event = parse_event_header(body[at + 2 : start])
        except Malformed:
            return number
        at = start + (32 if event.in_blobs else event.length)
        opens = None if event.in_blobs or not keys else _opens(record, number, event, body[start:at], keys)
        if opens is False or at > len(body):
            return number
        if opens is None:
            doubtful.append(number)
    return doubtful[0] if len(doubtful) == 1 else 0 if record.header.events == 1 else None


def _opens(record: Record, number: int, event: Event, content: bytes, keys: DataKeys) -> bool | None:
    """Whether this event's key opens it; None where there is no key to try."""
    if event.suite != AES_GCM:
        return None
    header = record.header
    try:
        extracted = sealing.hkdf_extract(header.salt, keys.of_id(event.key_id).secret)
        secret = sealing.event_key(extracted, number)
        place = sealing.Place(header.log_id, header.stream, header.revision, number, event.type, event.schema)
        sealing.decrypt(secret, content, sealing.associated(place, event.key_id))
    except PayloadError:
        return False
    except KeyringError:
        return None
    return sealing.commitment(secret) == event.commitment


def _claims(record: Record | None) -> dict[str, Any]:
    return {"stream": record.header.stream.decode(), "revision": record.header.revision} if record else {}


def _kept(keyring: Keyring, log: Identity) -> tuple[Checkpoint | None, str]:
    """The remembered checkpoint, or why there is none."""
    public = keyring.checkpoint_key(log).public
    try:
        return remembered(
            keyring.log_folder(log) / "checkpoint", log, public
        ), "no checkpoint of this log is remembered"
    except KeyringError as error:
        return None, str(error)
