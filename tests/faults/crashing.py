"""Writers that are killed or lose their power, and what must stand afterwards.

A writer says what it is about to append, and what was acknowledged, before it goes on. Whatever happens to it: what
was acknowledged stands once, where it was said to stand; nothing stands that nobody was about to append; nothing
stands twice. Its successor takes the streams over and goes on.
"""

import asyncio
import hashlib
import itertools
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from unittest import mock

from agent_party.eventstore import appending
from agent_party.eventstore import log as log_module
from agent_party.eventstore.backends.blob_folder import FolderBlobs
from agent_party.eventstore.errors import EventStoreError, LogRolledBack, UnknownOutcomeError
from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.log import Log
from agent_party.eventstore.verify import Identity
from tests.eventstore_kit import JOURNAL, Site, Truth, judged, notes
from tests.faults.power import Disk

STREAMS = [f"note/s{n}" for n in range(4)]
_DARK = 0.3
"""Seconds for which a writer keeps trying when its disk is gone."""
Say = Callable[[tuple[str, str, int, bytes]], None]
"""Called with ("about", stream, revision, command id), then ("done", stream, revision, commit hash)."""


def command_id(stream: str, revision: int) -> bytes:
    """The same command for the same place, whoever is about to append there."""
    return hashlib.sha256(f"{stream}:{revision}".encode()).digest()[:16]


class Ledger:
    """What the writers of one site said, and the reckoning."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.about: set[bytes] = set()
        self.done: dict[tuple[str, int], bytes] = {}
        self.found: Counter[str] = Counter()

    def hear(self, said: tuple[str, str, int, bytes]) -> None:
        """Note what a writer said."""
        kind, stream, revision, value = said
        if kind == "about":
            self.about.add(value)
            return
        before = self.done.setdefault((stream, revision), value)
        self.found["acknowledged"] += 1
        self.found["duplicated"] += before != value

    def reckon(self, raws: list[bytes], log: Identity) -> Truth:
        """Compare what was said with what stands."""
        truth = judged(log, raws)
        self.found["not accepted"] += len(truth.rejected)
        stands = {}
        for record in truth.accepted:
            if revision := record.header.revision:
                stands[record.header.stream.decode(), revision] = record.commit
                self.found["phantom"] += record.header.commit_id not in self.about
        ids = Counter(record.header.commit_id for record in truth.accepted if record.header.revision)
        self.found["duplicated"] += sum(count - 1 for count in ids.values())
        self.found["lost"] += sum(stands.get(place) != commit for place, commit in self.done.items())
        return truth


def standing(folder: Path) -> tuple[list[bytes], Identity] | None:
    """The tape's records and the pinned identity, read by plain SQLite; None before there is a log."""
    site = Site(folder)
    pinned = site.keyring.pinned(JOURNAL) if (folder / "state").exists() else None
    if pinned is None or not site.file.exists():
        return None
    db = sqlite3.connect(site.file, timeout=30)
    try:
        return [raw for (raw,) in db.execute("SELECT record FROM tape ORDER BY place")], pinned.identity()
    except sqlite3.OperationalError as error:  # cut before the first table
        if "no such table" not in str(error):
            raise
        return None
    finally:
        db.close()


async def write(log: Log, streams: Iterable[str], say: Say, count: int, deadline: float = 30.0) -> None:
    """Take streams over and append to them, group by group, saying so before and after."""

    async def one(stream: str) -> None:
        writer = await Issuer(log).writer(stream)
        revision = (await log.state(stream)).revision
        assert [c.revision async for c in log.read(stream)] == list(range(1, revision + 1))
        for _ in range(count):
            identifier = command_id(stream, revision + 1)
            say(("about", stream, revision + 1, identifier))
            text = "x" * (70_000 if revision % 7 == 3 else 40 * revision % 2_000)
            appended = await log.append(writer, notes(text), expected=revision, commit_id=identifier, deadline=deadline)
            say(("done", stream, appended.revision, appended.commit))
            revision = appended.revision

    async with asyncio.TaskGroup() as group:
        for stream in streams:
            group.create_task(one(stream))


def site_of(folder: Path) -> Site:
    """A site whose blobs are files too."""
    site = Site(folder)
    site.blobs = FolderBlobs(folder / "party" / "blobs")
    return site


# Kills


def until_killed(folder: Path, pipe: Connection) -> None:
    """What a writing process does, until it is killed."""

    async def work() -> None:
        log = await site_of(folder).open()
        await write(log, STREAMS, pipe.send, 1_000_000)

    asyncio.run(work())


def kill_writers(folder: Path, kills: int, order: random.Random) -> Counter[str]:
    """Start a writer, kill it at a random moment, look; again and again on the same log."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    ledger = Ledger(folder)
    for _ in range(kills):
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=until_killed, args=(folder, there))
        process.start()
        there.close()
        _hear_and_kill(here, process.pid or 0, ledger, order)
        process.join()
        assert process.exitcode == -signal.SIGKILL, f"the writer ended by itself: {process.exitcode}"
        ledger.found["kills"] += 1
        if stood := standing(folder):
            ledger.reckon(*stood)
    asyncio.run(_look_through_the_log(folder))
    return ledger.found


def _hear_and_kill(pipe: Connection, pid: int, ledger: Ledger, order: random.Random) -> None:
    """Kill after some number of messages and a moment more; hear what was said until then."""
    messages, moment = order.choice([0, order.randrange(60)]), order.random() * order.choice([0.002, 0.02, 0.2])
    heard = 0
    while heard < messages:
        ledger.hear(pipe.recv())
        heard += 1
    deadline = time.monotonic() + moment
    while (left := deadline - time.monotonic()) > 0:
        if pipe.poll(left):
            ledger.hear(pipe.recv())
    os.kill(pid, signal.SIGKILL)
    try:
        while True:
            ledger.hear(pipe.recv())
    except EOFError:
        pipe.close()


async def _look_through_the_log(folder: Path) -> None:
    """The index that all of them left behind says the same as a new one."""
    site = site_of(folder)
    shared, fresh = await site.open(), await site.open("fresh.db")
    assert shared.checkpoint() == fresh.checkpoint()
    for stream in STREAMS:
        assert [c async for c in shared.read(stream)] == [c async for c in fresh.read(stream)]
    await site.close()


# Power cuts


def cut_power(folder: Path, cuts: int, order: random.Random, *, synchronous: str | None = None) -> Counter[str]:
    """Write on a disk, cut its power at a random operation, look at what it holds; go on from there."""
    here, ledger = folder / "cut-0", Ledger(folder)
    for number in itertools.count(1):
        disk = Disk(here, order.randrange(1, order.choice([60, 300, 1_500])), synchronous=synchronous)
        impatient = mock.patch.object(appending, "PATIENCE", 0.01), mock.patch.object(log_module, "DEADLINE", _DARK)
        with impatient[0], impatient[1], disk.mounted():
            asyncio.run(_write_until_dark(here, ledger))
        there = folder / f"cut-{number}"
        if here.exists():
            shutil.copytree(here, there, ignore=shutil.ignore_patterns("*.db", "*.db-*"))
        disk.write_image(there, order if number % 2 and not synchronous else None)
        ledger.found["cuts"] += disk.dead  # else it was done before; then the power goes now, uncounted
        if stood := standing(there):
            ledger.reckon(*stood)
        elif ledger.done:
            ledger.found["lost"] += len(ledger.done)
        if ledger.found["lost"]:
            ledger.found["noticed"] += _is_rolled_back(there)
            return ledger.found
        shutil.rmtree(here, ignore_errors=True)
        here = there
        if ledger.found["cuts"] >= cuts:
            break
    asyncio.run(_look_through_the_log(here))
    return ledger.found


async def _write_until_dark(folder: Path, ledger: Ledger) -> None:
    site = site_of(folder)
    try:
        log = await site.open()
        await write(log, STREAMS, ledger.hear, 12, _DARK)
        log.remember()
    except LogRolledBack:
        ledger.found["lost"] += 1  # of what was remembered
    except (EventStoreError, sqlite3.Error):
        pass
    except BaseExceptionGroup as group:
        strange = group.split((EventStoreError, UnknownOutcomeError))[1]
        if strange:
            raise strange from None
    finally:
        await site.close()


def _is_rolled_back(folder: Path) -> bool:
    async def look() -> bool:
        site = site_of(folder)
        try:
            await site.open()
        except LogRolledBack:
            return True
        finally:
            await site.close()
        return False

    return asyncio.run(look())
