"""Harm done to copies of the log, to see that verification notices and says where."""

import random
import sqlite3
from pathlib import Path
from typing import Any, NamedTuple

from ..cluster.wiring import Stack, audit_file
from ..eventstore.audit import Audit
from ..eventstore.verify import DATA, Identity, parse


class Harm(NamedTuple):
    """One bit flipped: the place, and what verification found."""

    injected_at: dict[str, Any]
    detected_at: dict[str, Any]
    finding: str


async def flip_a_bit(stack: Stack, folder: Path, identity: Identity, rng: random.Random) -> Harm:
    """Flip one bit of one event's ciphertext in a copy."""
    copy = _copy(stack, folder)
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
    copy = _copy(stack, folder)
    with sqlite3.connect(copy) as db:
        db.execute("DELETE FROM tape WHERE place > (SELECT max(place) FROM tape) - ?", (commits,))
    db.close()
    return await audit_file(copy, identity, stack.keyring)


def _copy(stack: Stack, folder: Path) -> Path:
    folder.mkdir(parents=True)
    source, copy = sqlite3.connect(stack.settings.log_path), sqlite3.connect(folder / "log.db")
    with source, copy:
        source.backup(copy)
    source.close()
    copy.close()
    return folder / "log.db"
