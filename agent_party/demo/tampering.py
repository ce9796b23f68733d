"""Harm done to copies of the log, to see that verification notices and says where.

A copy is a file that holds the accepted records, each slice in its order: the same from every tape.
"""

import asyncio
import random
import sqlite3
from pathlib import Path
from typing import Any, NamedTuple

from ..cluster.wiring import Stack, audit_file
from ..eventstore.audit import Audit
from ..eventstore.backends.sqlite import SqliteTape
from ..eventstore.log import Log
from ..eventstore.tape import START
from ..eventstore.verify import DATA, Identity, parse


class Harm(NamedTuple):
    """One bit flipped: the place, and what verification found."""

    injected_at: dict[str, Any]
    detected_at: dict[str, Any]
    finding: str


async def flip_a_bit(stack: Stack, folder: Path, identity: Identity, rng: random.Random) -> Harm:
    """Flip one bit of one event's ciphertext in a copy."""
    copy = await copied(stack.log, folder)
    with sqlite3.connect(copy) as db:
        data = [place for place, raw in db.execute("SELECT place, record FROM tape") if parse(raw).header.kind == DATA]
        place = rng.choice(data)
        raw = bytearray(db.execute("SELECT record FROM tape WHERE place = ?", (place,)).fetchone()[0])
        header = parse(bytes(raw)).header
        raw[-1] ^= 1 << rng.randrange(8)
        db.execute("UPDATE tape SET record = ? WHERE place = ?", (bytes(raw), place))
    db.close()
    injected = {"stream": header.stream.decode(), "revision": header.revision, "event": header.events - 1}
    audit = await audit_file(copy, identity, stack.keyring)
    return Harm(injected, {name: audit.at.get(name) for name in injected}, audit.finding)


async def cut_the_tail(stack: Stack, folder: Path, identity: Identity, commits: int) -> Audit:
    """Delete the last commits of a copy, which leaves every chain whole."""
    copy = await copied(stack.log, folder)
    with sqlite3.connect(copy) as db:
        db.execute("DELETE FROM tape WHERE place > (SELECT max(place) FROM tape) - ?", (commits,))
    db.close()
    return await audit_file(copy, identity, stack.keyring)


async def copied(log: Log, folder: Path) -> Path:
    """A file of the log as far as it has been read, in a new folder; what the tape holds beside it is left out."""
    await asyncio.to_thread(folder.mkdir, parents=True)
    path, last, had = folder / "log.db", START, dict[int, int]()
    copy = SqliteTape(path)
    try:
        await copy.found(log.identity)
        while rows := log.after(had):
            raws: dict[tuple[int, int], bytes] = {}
            for lane in {row.lane for row in rows}:
                places = [row.place for row in rows if row.lane == lane]
                raws |= {(lane, entry.place): entry.raw for entry in await log.tape.fetch(lane, places)}
            attempt = await copy.append(0, [raws[row.lane, row.place] for row in rows], last)
            last = attempt.entries[-1]
            had |= {row.part: row.position + 1 for row in rows}
    finally:
        await copy.close()
    return path
