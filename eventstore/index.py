"""What reading the tape has taught so far: states, positions, trees. A cache; the tape alone is truth.

Everything the rule needs and every place where a record lies is kept in memory for what is new and in one disposable
SQLite file for the rest, the same file for every tape. Deleted, it is rebuilt by reading. Whoever alters it is found
out: states carry a seal, and a record is checked against its hash when it is fetched.
"""

import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from .backends.index_file import IndexDamaged, IndexFile, Row
from .commit import Built, follows
from .errors import CorruptLogError, StoreError
from .tape import START, Entry
from .tree import TILE, Tree, root_over
from .verify import (
    CONTROL,
    SIGN_TAG,
    SLICE_STREAM,
    ZERO,
    Event,
    Header,
    Identity,
    Malformed,
    Record,
    SliceState,
    StreamState,
    beginning,
    judge,
    parse,
    parse_body,
    signature_holds,
    slice_of,
)

FLUSH_ROWS = 2_000
_STATES = 20_000
_REFUSED = 4_096
"""Refused records whose finding is remembered."""


class Behind(Exception):
    """Another process has read further, and wrote it to the file: `Index.jump` to where it is, and ask again."""


class Held(Exception):
    """A slice's opening stands in this lane, and the seal that it names was not read yet: read on in other lanes."""


class Taken(NamedTuple):
    """A record that was read and judged. ``finding`` is empty if it is accepted; then it has a position."""

    finding: str
    position: int
    record: Record | None
    events: list[Event]


class Index:
    """Applies the rule to every record in tape order. One for each process and log; not thread-safe.

    ``generation`` grows when the file was found damaged and everything was read again.
    """

    def __init__(self, log: Identity, file: IndexFile, *, accepted_only: bool, lanes: int = 1) -> None:
        self.log, self._file, self._accepted_only, self._lanes = log, file, accepted_only, lanes
        self.generation = 0
        self.listeners: list[Callable[[bytes], None]] = []
        self._rows: list[Row] = []
        self._unwritten: dict[bytes, Row] = {}
        self._news = 0
        self._refused: dict[tuple[bytes, str], str] = {}
        self._tiles: list[tuple[int, int, bytes]] = []
        self._states: dict[bytes, StreamState] = {}
        self._dirty: set[bytes] = set()
        self._types: dict[bytes, tuple[bytes, ...]] = {}
        self.parts: dict[int, tuple[SliceState, Tree]] = {}
        self.seen: dict[int, Entry] = {}
        self.parts, self.seen, self._found = file.load()
        self._unbound = set(self.seen)

    @property
    def findings(self) -> Counter[str]:
        """Why, and how often, what was read was not accepted, from the first place of each lane on."""
        return sum(self._found.values(), Counter[str]())

    def state(self, stream: bytes) -> StreamState:
        """The rule's state of a stream, after everything that was read. May raise `Behind`."""
        state = self._states.get(stream)
        if state is None:
            if len(self._states) >= _STATES:
                self.flush()
                self._states.clear()
                self._types.clear()
            known = self._file.state(stream)
            if known and known[1] >= self.position(slice_of(self.log, stream)):
                raise Behind
            state = self._states[stream] = known[0] if known else beginning(self.log, stream)
        return state

    def types(self, stream: bytes) -> tuple[bytes, ...] | None:
        """The types of the events in a stream's newest data commit, if this process has read that commit lately."""
        return self._types.get(stream)

    def jump(self, lane: int) -> None:
        """Go on in a lane from where the process that has read furthest has written the file."""
        self.flush()
        self._states.clear()
        self._types.clear()
        parts, seen, found = self._file.load()
        if seen.get(lane, START).place <= self.seen.get(lane, START).place:
            raise IndexDamaged("states in the index are newer than what it says was read")
        before = {number: self.lane_of(number) for number in parts}
        ahead = {one: entry for one, entry in seen.items() if entry.place > self.seen.get(one, START).place}
        lanes = ahead.keys() if any(part[0].lane >= 0 for part in parts.values()) else {lane}  # slices may have moved
        self.parts |= {number: part for number, part in parts.items() if before[number] in lanes}
        self.seen |= {one: ahead[one] for one in lanes}
        self._found |= {one: found[one] for one in lanes}
        self._unbound |= lanes
        for listener in self.listeners:
            listener(b"")

    def adopt(self, fresh: "Index") -> None:
        """Become another index, which was read from the tape anew while this one's file was damaged."""
        kept = self.listeners, self.generation + 1
        self._file.close()
        self.__dict__.update(fresh.__dict__)
        self.listeners, self.generation = kept
        for listener in self.listeners:
            listener(b"")

    def is_bound(self, lane: int) -> bool:
        """Whether the bytes of the last entry read of a lane are known, not only their hash."""
        return lane not in self._unbound

    def binds(self, lane: int, entry: Entry) -> bool:
        """Whether an entry is the last one read of a lane; from now on its bytes are known, not only their hash."""
        last = self.seen[lane]
        if last.raw not in (entry.raw, hashlib.sha256(entry.raw).digest()):
            return False
        self.seen[lane] = entry
        self._unbound.discard(lane)
        return True

    def lane_of(self, number: int) -> int:
        """The lane in which a slice goes on, as far as was read: where it began, or where the last seal sent it."""
        lane = self.part(number)[0].lane
        return lane if 0 <= lane < self._lanes else number * self._lanes // self.log.slices

    def position_at(self, lane: int, place: int) -> int | None:
        """The position of the record at a place that was read, or None if it was not accepted."""
        self.flush()
        return self._file.position(lane, place)

    def find(self, stream: bytes, commit: bytes, revision: int | None = None) -> int | None:
        """The position of the commit with this hash on a stream, or None if it was not accepted so far.

        ``revision``: it can only be a control commit, or the data commit of this revision.
        """
        if row := self._unwritten.get(commit):
            return row.position if row.stream == stream else None
        return self._file.find(stream, commit, revision)

    def part(self, number: int) -> tuple[SliceState, Tree]:
        """The rule's state and the tree of a slice."""
        return self.parts.get(number) or (SliceState(), Tree())

    def position(self, number: int) -> int:
        """How many records of a slice are accepted."""
        return self.part(number)[1].size

    def sizes(self) -> dict[int, int]:
        """Accepted records of each slice that has any."""
        return {number: tree.size for number, (_, tree) in self.parts.items()}

    def make_room(self) -> None:
        """Write what is new if that is much. Whoever appends asks first: here a full disk has done no harm yet."""
        if len(self._rows) >= FLUSH_ROWS:
            self.flush()

    def take(self, lane: int, entry: Entry, *, own: bool = False) -> Taken:
        """Judge the next entry of a lane. On a store of accepted records only, another one is `CorruptLogError`.

        `Held`, and nothing was taken, if other lanes must be read first.
        """
        if len(self._rows) >= 2 * FLUSH_ROWS:
            self.flush()
        taken = self._judge(lane, entry, own)
        if taken.finding and self._accepted_only:
            raise CorruptLogError(taken.finding, {"place": entry.place, **self._claims(taken.record)})
        self.seen[lane] = entry
        self._unbound.discard(lane)
        self._news += 1
        if taken.finding:
            self._found.setdefault(lane, Counter())[taken.finding] += 1
            if self._news >= FLUSH_ROWS:  # a flood of what is not accepted is not read again by the next process
                self.flush()
        return taken

    def _judge(self, lane: int, entry: Entry, own: bool) -> Taken:
        try:
            record = parse(entry.raw)
        except Malformed:
            return Taken("malformed", -1, None, [])
        header = record.header
        if self.lane_of(header.slice) != lane and header.slice < self.log.slices:
            return self._elsewhere(record)
        part, tree = self.part(header.slice)
        verdict = judge(self.log, part, self.state(header.stream), record, own=own)
        if verdict.finding:
            return Taken(self._why(verdict.finding, record), -1, record, [])
        self.parts[header.slice] = (verdict.slice, tree)
        row = Row(header.slice, tree.size, lane, entry.place, header.stream, header.revision, record.commit)
        self._accept(row, verdict.stream, tree, tuple([event.type for event in verdict.events]))
        return Taken("", row.position, record, verdict.events)

    def _elsewhere(self, record: Record) -> Taken:
        """A record in another lane than its slice's: not accepted, but an opening may only have been read too soon."""
        header = record.header
        ours = header.kind == CONTROL and header.grant == ZERO and header.log_id == self.log.log_id
        if ours and SLICE_STREAM.fullmatch(header.stream) and slice_of(self.log, header.stream) == header.slice:
            with contextlib.suppress(Malformed):
                ((opening, *_), root) = parse_body(record)
                to_come = opening.type == b"open" and self.find(header.stream, opening.payload, 0) is None
                signed = to_come and root == header.body_root
                if signed and signature_holds(self.log.root, SIGN_TAG + record.commit, record.signature):
                    raise Held
        return Taken("elsewhere", -1, record, [])

    def take_own(self, lane: int, entry: Entry, built: Built, state: StreamState, part: SliceState) -> int | None:
        """Take what this process built on these very states and has read back; its position, or None: judge it.

        The rule is a function of states and bytes. These bytes were built to be accepted on ``state`` and ``part``,
        and came back unchanged; so while both are what they were, its answer is known (see `commit.follows`).
        """
        number, stream = built.slice, built.stream
        now = self.parts.get(number)
        if now is None or now[0] is not part or self._states.get(stream) is not state or entry.raw != built.raw:
            return None
        after = follows(built, state, part)
        if after is None:
            return None
        if len(self._rows) >= 2 * FLUSH_ROWS:
            self.flush()
        tree = now[1]
        row = Row(number, tree.size, lane, entry.place, stream, built.revision, built.commit)
        self.seen[lane] = entry
        self._unbound.discard(lane)
        self._accept(row, after, tree, built.types)
        return row.position

    def _accept(self, row: Row, state: StreamState, tree: Tree, types: tuple[bytes, ...]) -> None:
        self._states[row.stream] = state
        if row.revision:
            self._types[row.stream] = types
        self._dirty.add(row.stream)
        tree.append(row.commit)
        self._rows.append(row)
        self._unwritten[row.commit] = row
        for listener in self.listeners:
            listener(row.stream)
        if tree.size % TILE == 0:
            self._add_tile(row.part, tree.size // TILE - 1)

    def _why(self, finding: str, record: Record) -> str:
        """The finding, classified. What was refused is refused for ever, so replays of it cost no look-up."""
        key = record.commit, finding
        known = self._refused.get(key)
        if known is None:
            if len(self._refused) >= _REFUSED:
                self._refused.clear()
            known = self._refused[key] = self._classified(finding, record)
        return known

    def _classified(self, finding: str, record: Record) -> str:
        """Stale, gap or foreign, where the rule alone cannot say: that takes the stream's whole history."""
        header: Header = record.header
        if finding == "unlinked":
            before = header.revision - 1 if header.kind != CONTROL else None
            known = header.prev == beginning(self.log, header.stream).head
            known = known or self.find(header.stream, header.prev, before) is not None
            return "stale" if known else "gap"
        if finding == "sealed":
            return "stale"
        if finding == "no-grant" and header.kind != CONTROL:
            return "stale" if self.find(header.stream, header.grant, 0) is not None else finding
        return finding

    def _claims(self, record: Record | None) -> dict[str, object]:
        if record is None:
            return {}
        return {"stream": record.header.stream.decode(), "revision": record.header.revision}

    def rows(self, stream: bytes, first: int, last: int) -> list[Row]:
        """The data records of a stream between two revisions, both included."""
        if stream in self._dirty:
            self.flush()
        return self._file.rows(stream, first, last)

    def rows_at(self, places: list[tuple[int, int]]) -> list[Row]:
        """The records at these (slice, position)."""
        self.flush()
        return [row for part, position in places for row in self._file.after({part: position}, {part: position + 1}, 1)]

    def control_rows(self, stream: bytes) -> list[Row]:
        """The control records of a stream, in order."""
        if stream in self._dirty:
            self.flush()
        return self._file.rows(stream, 0, 0)

    def all_rows(self, stream: bytes) -> list[Row]:
        """All records of a stream, control commits too, in order."""
        self.flush()
        return self._file.all_rows(stream)

    def after(self, sizes: dict[int, int], limit: int) -> list[Row]:
        """The next accepted records, in tape order, for a reader that has had ``sizes[slice]`` of each slice."""
        self.flush()
        return self._file.after(sizes, self.sizes(), limit)

    def streams(self, prefix: bytes, after: bytes, limit: int) -> list[bytes]:
        """Stream names with a prefix, sorted, after a name."""
        self.flush()
        return self._file.streams(prefix, after, limit)

    def root_at(self, number: int, size: int) -> bytes:
        """The root of a slice's tree when it had ``size`` leaves."""
        tree = self.part(number)[1]
        if tree.size == size:
            return tree.root()
        self.flush()
        whole = size // TILE
        return root_over(self._file.tiles(number, whole), self._file.leaves(number, whole * TILE, size))

    def flush(self) -> None:
        """Write what is new to the file, if anything was accepted, or much was not."""
        if self._rows or self._news >= FLUSH_ROWS:
            self._write()

    def _write(self) -> None:
        states = {stream: self._states[stream] for stream in self._dirty}
        bound = [lane for lane in self.seen if self.is_bound(lane)]
        seen = {lane: (self.seen[lane], self._found.get(lane, Counter())) for lane in bound}
        self._file.write(self._rows, self._tiles, states, self.parts, seen)
        self._rows, self._tiles, self._dirty, self._unwritten, self._news = [], [], set(), {}, 0

    def close(self) -> None:
        """Flush and close the file. What cannot be written is read again next time."""
        with contextlib.suppress(StoreError):
            if self._rows or self._news:
                self._write()
        self._file.close()

    def _add_tile(self, part: int, number: int) -> None:
        first = number * TILE
        new = [row.commit for row in self._rows if row.part == part and row.position >= first]
        old = self._file.leaves(part, first, first + TILE - len(new)) if len(new) < TILE else []
        self._tiles.append((part, number, root_over([], [*old, *new])))
