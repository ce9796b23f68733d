"""Appends through `Log.append`, signed and encrypted, beside raw SQLite at the same durability.

Raw means: the same record bytes, inserted and committed on a file with the same settings (write-ahead log,
``synchronous=FULL``, so one fsync for each transaction on either side), from one thread, with nothing else done.
"""

import sqlite3
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from nacl.bindings import crypto_sign

from agent_party.eventstore.commit import SigningKey

from .measure import Clock, Figure, Report, Turn, in_turns, ratios
from .site import PAYLOAD, Site, Stored, raws, site, written
from .syncs import counted

STREAMS = 256
AT_ONCE = (4, 16)


class Raw:
    """A raw SQLite file of rows. What it is given next are the bytes that the log has just appended."""

    def __init__(self, folder: Path) -> None:
        self.db = sqlite3.connect(folder / "raw.db", isolation_level=None)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=FULL")
        self.db.execute("CREATE TABLE tape (place INTEGER PRIMARY KEY, record BLOB NOT NULL) STRICT")
        self.rows = 0

    def commit(self, records: list[bytes], group: int) -> float:
        """Insert the records, so many a transaction. Records a second."""
        with Clock() as clock:
            for first in range(0, len(records), group):
                self.db.execute("BEGIN IMMEDIATE")
                rows = [(None, raw) for raw in records[first : first + group]]
                self.db.executemany("INSERT INTO tape VALUES (?, ?)", rows)
                self.db.execute("COMMIT")
        self.rows += len(records)
        return len(records) / clock.wall

    def parts(self, records: list[bytes], group: int) -> float:
        """What no signed and encrypted append can do without: sign, encrypt, insert. Records a second."""
        key = SigningKey.from_seed(bytes(32))
        with Clock() as clock:
            for raw in records:
                crypto_sign(raw[:64], key.secret)
                AESGCM(raw[:32]).encrypt(bytes(12), raw[-PAYLOAD:], None)
            self.commit(records, group)
        return len(records) / clock.wall

    def verify(self) -> None:
        assert self.db.execute("SELECT count(*) FROM tape").fetchone() == (self.rows,)
        self.db.close()


class Newest:
    """The records that a round of appends put on the tape, for the raw file to write too."""

    def __init__(self, of: Site) -> None:
        self._site, self._place, self.records = of, 0, list[bytes]()

    async def take(self) -> None:
        """Read what was appended since."""
        found: list[Stored] = await raws(self._site.log, self._place)
        self._place, self.records = found[-1].place, [stored.raw for stored in found]


async def one_at_a_time(quick: bool) -> Report:
    """One commit after the other, each acknowledged before the next; then a few writers at once."""
    rounds, commits, event = (2, 16, written()) if quick else (31, 64, written())
    async with site(max(AT_ONCE)) as place:
        raw, newest, used = Raw(place.folder), Newest(place), list[float]()
        await place.append(0, 4, [event])
        await newest.take()

        def ours(streams: int) -> Turn:
            async def turn() -> float:
                with Clock() as clock:
                    await place.append_to_all(streams, commits // streams, [event])
                await newest.take()
                if streams == 1:
                    used.append(clock.used / commits * 1e6)
                return commits / clock.wall

            return turn

        async def rows() -> float:
            return raw.commit((newest.records * commits)[:commits], 1)

        turns = {"raw": rows} | {f"{n}": ours(n) for n in (1, *AT_ONCE)}
        values = await in_turns(rounds, turns)
        raw.verify()
        verified = await place.verify(event)
    part = "one at a time"
    figures = [
        Figure(part, "append / raw one-row commit", "x", ratios(values["1"], values["raw"]), least=0.7),
        Figure(part, "append", "commits/s", values["1"]),
        Figure(part, "raw one-row commit", "commits/s", values["raw"]),
        Figure(part, "append, processor time", "us", used),
        *(Figure(part, f"{n} writers at once / raw", "x", ratios(values[str(n)], values["raw"])) for n in AT_ONCE),
    ]
    return Report(figures + ([] if quick else counted(part)), verified)


async def group_commit(quick: bool) -> Report:
    """Many streams at once: commits of one event, and commits of ten, in groups of up to 256."""
    event, part = written(), "group commit"
    streams, rounds, each = (16, 2, 2) if quick else (STREAMS, 15, 8)
    async with site(streams) as place:
        raw, newest, used = Raw(place.folder), Newest(place), dict[int, list[float]]({1: [], 10: []})
        await place.append_to_all(streams, each, [event])
        await newest.take()

        def ours(events: int, commits: int) -> Turn:
            async def turn() -> float:
                with Clock() as clock:
                    await place.append_to_all(streams, commits, [event] * events)
                await newest.take()
                used[events].append(streams * commits * events / clock.used)
                return streams * commits * events / clock.wall

            return turn

        async def rows() -> float:
            return raw.commit(newest.records, streams)

        async def parts() -> float:
            return raw.parts(newest.records, streams)

        one, ten = ours(1, each), ours(10, max(1, each // 4))
        values = await in_turns(rounds, {"raw": rows, "parts": parts, "1": one, "10": ten})
        raw.verify()
        verified = await place.verify(event)
    return Report(
        [
            Figure(part, "commits of one event", "commits/s", values["1"], least=8_000),
            Figure(part, "the same for each processor second", "commits/s", used[1]),
            Figure(part, "commits of ten events", "events/s", values["10"], least=30_000),
            Figure(part, "the same for each processor second", "events/s", used[10]),
            Figure(part, "commits of one event / sign, encrypt, insert", "x", ratios(values["1"], values["parts"])),
            Figure(part, "sign, encrypt, insert", "commits/s", values["parts"]),
            Figure(part, "raw rows in groups", "rows/s", values["raw"]),
        ],
        verified,
    )
