"""Which log is opened: never what the store says, always what the keyring remembers."""

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent_party.eventstore.backends.memory import MemoryTape
from agent_party.eventstore.backends.sqlite import SqliteTape
from agent_party.eventstore.codec import Codec
from agent_party.eventstore.errors import KeyringError, LogRolledBack, StoreCorruptError, WrongKeyError, WrongLogError
from agent_party.eventstore.founding import open_log
from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.keyring import Keyring
from agent_party.eventstore.log import Log
from tests.eventstore_kit import JOURNAL, Site, notes


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path)
    yield site
    await site.close()


async def written(site: Site) -> Log:
    log = await site.open()
    await log.append(await Issuer(log).writer("note/a"), notes("one"), expected=0)
    await log.close()
    return log


async def test_the_same_log_is_opened_again(site: Site) -> None:
    first = await written(site)
    again = await site.open()
    assert again.identity == first.identity
    assert again.index.sizes() == first.index.sizes()


async def test_what_is_not_there_is_not_founded_unasked(site: Site) -> None:
    with pytest.raises(WrongLogError, match="start a party there first"):
        await open_log(
            site.tape(), site.keyring, journal=JOURNAL, index=site.folder / "i.db", blobs=site.blobs, codec=Codec(),
            create=False,
        )  # fmt: skip


async def test_another_partys_log_is_refused(site: Site, tmp_path: Path) -> None:
    """Another keyring: it neither opens the log, nor pins it, nor leaves a trace of it."""
    await written(site)
    stranger = Keyring(tmp_path / "stranger")
    with pytest.raises(WrongLogError, match="another user's or party's, or this is another node: bring the keyring"):
        await open_log(site.tape(), stranger, journal=JOURNAL, index=tmp_path / "i.db", blobs=site.blobs, codec=Codec())
    assert stranger.pinned(JOURNAL) is None
    assert list(stranger.folder.iterdir()) == []


async def test_a_log_in_the_place_of_another_is_refused(site: Site, tmp_path: Path) -> None:
    """Of the same user, even: one was founded here before, and this is not it."""
    await written(site)
    site.file.rename(tmp_path / "kept.db")
    for beside in site.file.parent.glob("log.db-*"):
        beside.unlink()
    other = await open_log(
        site.tape(), site.keyring, journal="another", index=tmp_path / "i.db", blobs=site.blobs, codec=Codec()
    )
    await other.close()
    with pytest.raises(WrongLogError, match="was here before"):
        await site.open()
    site.keyring.forget(JOURNAL)
    assert (await site.open()).identity == other.identity


async def test_a_forgotten_journal_is_adopted_again_by_its_keys(site: Site) -> None:
    first = await written(site)
    site.keyring.forget(JOURNAL)
    assert (await site.open()).identity == first.identity


@pytest.mark.parametrize("also_index", [True, False], ids=["with its index", "without its index"])
async def test_an_emptied_store_is_a_rollback(site: Site, also_index: bool) -> None:
    await written(site)
    for path in site.file.parent.glob("*" if also_index else "log.db*"):
        path.unlink()
    with pytest.raises(LogRolledBack, match="is empty, and"):
        await site.open()


async def test_an_emptied_store_that_was_never_acknowledged_is_founded_again(site: Site) -> None:
    """A crash between pinning and the first commit."""
    first = await written(site)
    shutil.rmtree(site.file.parent)
    (site.keyring.log_folder(first.identity) / "checkpoint").unlink()
    assert (await site.open()).identity == first.identity


async def test_a_crash_before_the_pin_is_made_good(site: Site) -> None:
    tape = site.tape()
    log, _ = site.keyring.found(16)
    await tape.found(log)
    await tape.close()
    assert (await site.open()).identity == log
    assert site.keyring.pinned(JOURNAL) is not None


async def test_an_older_copy_of_the_store_is_a_rollback(site: Site, tmp_path: Path) -> None:
    await written(site)
    shutil.copytree(site.file.parent, tmp_path / "copy")
    log = await site.open()
    await log.append(await Issuer(log).writer("note/b"), notes("more"), expected=0)
    await log.close()
    shutil.rmtree(site.file.parent)
    shutil.copytree(tmp_path / "copy", site.file.parent)
    with pytest.raises(LogRolledBack, match="rolled back, cut or emptied"):
        await site.open()


async def test_the_wrong_root_key_opens_nothing(site: Site) -> None:
    log = await written(site)
    path = site.keyring.log_folder(log.identity) / "root.key"
    path.write_bytes(bytes(32))
    with pytest.raises(WrongKeyError):
        await site.open()
    path.unlink()
    with pytest.raises((KeyringError, WrongLogError)):
        await site.open()


async def test_a_store_that_misstates_its_log_is_damaged(site: Site) -> None:
    await written(site)
    with sqlite3.connect(site.file) as db:
        db.execute("UPDATE party SET slices = 17")
    with pytest.raises(StoreCorruptError, match="does not say which log"):
        await site.open()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_founders_at_once_found_one_log(tmp_path: Path, kind: str) -> None:
    site = Site(tmp_path, kind)
    logs = await asyncio.gather(*(site.open() for _ in range(6)))
    assert len({log.identity for log in logs}) == 1
    for log in logs:
        await log.refresh()
        assert log.index.sizes() == dict.fromkeys(range(16), 1)
    await site.close()


async def test_founding_again_at_once_is_one_log(tmp_path: Path) -> None:
    """The store is gone, the pin is not: several processes found it again."""
    site = Site(tmp_path, "memory")
    first = await site.open()
    identity = first.identity
    await first.close()
    (site.keyring.log_folder(identity) / "checkpoint").unlink()
    site.memory = SlowToFound()
    logs = await asyncio.gather(*(site.open(f"{n}.db") for n in range(4)))
    assert {log.identity for log in logs} == {identity}
    await site.close()


class SlowToFound(MemoryTape):
    """Lets the others come between the look and the founding."""

    async def found(self, log: object) -> None:
        await asyncio.sleep(0)
        await super().found(log)  # type: ignore[arg-type]


async def test_a_tape_that_is_not_opened_is_closed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    await written(site)
    closed: list[SqliteTape] = []
    real = SqliteTape.close

    async def close(self: SqliteTape) -> None:
        closed.append(self)
        await real(self)

    monkeypatch.setattr(SqliteTape, "close", close)
    tape = site.tape()
    with pytest.raises(WrongLogError):
        await open_log(
            tape, Keyring(site.folder / "x"), journal="j", index=site.folder / "i.db", blobs=site.blobs, codec=Codec()
        )
    assert closed == [tape]
