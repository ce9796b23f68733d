"""Harm done to copies of the log, to see that verification notices and says where."""

import random
import sqlite3
from pathlib import Path
from typing import Any, NamedTuple

from ..cluster.wiring import Stack
from ..eventstore.audit import Audit, audit_journal
from ..eventstore.backends.sqlite import SqliteTape
from ..eventstore.datakeys import DataKeys
from ..eventstore.verify import DATA, Identity, parse


class Harm(NamedTuple):
    """One bit flipped: the place, and what verification found."""

    injected_at: dict[str, Any]
    detected_at: dict[str, Any]
    finding: str


async def audit_copy(stack: Stack, log: Path, identity: Identity) -> Audit:
    """Audit a copied log.db with the keyring of the original."""
    tape = SqliteTape(log)
    folder = stack.keyring.log_folder(identity)
    keys = DataKeys(folder / "keys.db", stack.keyring.secret(identity, "wrapping"))
    try:
        return await audit_journal(tape, identity, stack.keyring, keys)
    finally:
        keys.close()
        await tape.close()


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
    audit = await audit_copy(stack, copy, identity)
    return Harm(injected, {name: audit.at.get(name) for name in injected}, audit.finding)


async def cut_the_tail(stack: Stack, folder: Path, identity: Identity, commits: int) -> Audit:
    """Delete the last commits of a copy, which leaves every chain whole."""
    copy = _copy(stack, folder)
    with sqlite3.connect(copy) as db:
        db.execute("DELETE FROM tape WHERE place > (SELECT max(place) FROM tape) - ?", (commits,))
    db.close()
    return await audit_copy(stack, copy, identity)


def _copy(stack: Stack, folder: Path) -> Path:
    folder.mkdir(parents=True)
    source, copy = sqlite3.connect(stack.settings.log_path), sqlite3.connect(folder / "log.db")
    with source, copy:
        source.backup(copy)
    source.close()
    copy.close()
    return folder / "log.db"
