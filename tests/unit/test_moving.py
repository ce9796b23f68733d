"""Moving a log: the same trees, whatever breaks off; and nobody goes on with what was left behind."""

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent_party.eventstore import moving
from agent_party.eventstore.backends.memory import UnconditionalMemoryTape
from agent_party.eventstore.backends.sqlite import SqliteTape
from agent_party.eventstore.commit import SigningKey
from agent_party.eventstore.errors import LogMovedError, LogRolledBack, StoreError, WrongLogError
from agent_party.eventstore.export import export
from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.keyring import Keyring
from agent_party.eventstore.log import Log, Writer
from agent_party.eventstore.moves import mark, marked
from agent_party.eventstore.moving import Moved, move
from agent_party.eventstore.tape import Attempt, Entry, Indefinite, Tape
from agent_party.eventstore.verify import identity
from tests.cli_kit import APP, Cli
from tests.eventstore_kit import JOURNAL, Site, notes

TARGET = "sqlite:////elsewhere/log.db"


class Broken(Exception):
    """The mover dies here."""


class Dying(SqliteTape):
    """A tape that ends its mover before or after the call of this number."""

    def __init__(self, path: Path, at: int, after: bool) -> None:
        super().__init__(path)
        self.left, self.after = at, after

    async def append(self, lane: int, records: Sequence[bytes], after: Entry) -> Attempt:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise Broken
        attempt = await super().append(lane, records, after)
        if self.left == 0:
            raise Broken
        return attempt


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "BATCH", 1)
    monkeypatch.setattr(moving, "PATIENCE", 0.02)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path)
    yield site
    await site.close()


async def filled(site: Site) -> tuple[Log, list[Writer]]:
    log = await site.open()
    writers = [await Issuer(log).writer(f"task/{number}") for number in range(12)]
    for revision in range(4):  # streams of one slice take turns
        for writer in writers:
            await log.append(writer, notes(f"{writer.stream} {revision}"), expected=revision)
    return log, writers


async def moved(site: Site, source: Log, tape: Tape) -> Moved:
    caches = site.folder / f"caches-{random.randrange(1 << 30)}"
    caches.mkdir()
    return await move(source, tape, TARGET, caches=caches, keyring=site.keyring)


async def opened(site: Site, tape: Tape, index: str = "moved.db") -> Log:
    site.keyring.move_pin(site.logs[0].identity, JOURNAL, TARGET)
    from agent_party.eventstore.codec import Codec
    from agent_party.eventstore.founding import open_log
    from tests.eventstore_kit import Note

    log = await open_log(
        tape, site.keyring, journal=TARGET, index=site.folder / index, blobs=site.blobs, codec=Codec([Note])
    )
    site.logs.append(log)
    return log


def roots(log: Log) -> dict[int, tuple[int, bytes]]:
    return {part: (size, log.index.root_at(part, size)) for part, size in log.index.sizes().items() if size}


async def test_everything_is_the_same_and_goes_on_there(site: Site) -> None:
    log, _ = await filled(site)
    before, exported = roots(log), await export(log)
    told = await moved(site, log, tape := SqliteTape(site.folder / "to.db"))
    await tape.close()
    assert (told.commits, told.copied) == (sum(size for size, _ in before.values()),) * 2
    assert told.checkpoint == log.checkpoint().body()
    there = await opened(site, SqliteTape(site.folder / "to.db"))
    assert (roots(there), await export(there)) == (before, exported)
    writer = await Issuer(there).writer("task/0")
    await there.append(writer, notes("more"), expected=4)


async def test_whoever_has_the_old_one_open_is_refused(site: Site) -> None:
    """At once, at the next append; and who opens it is told where to."""
    log, writers = await filled(site)
    other = await site.open("other.db")
    writer = await Issuer(other).writer("task/new")
    await moved(site, log, tape := SqliteTape(site.folder / "to.db"))
    await tape.close()
    for held, who, revision in ((other, writer, 0), (log, writers[0], 4)):
        with pytest.raises(LogMovedError, match="was moved to sqlite:////elsewhere"):
            await held.append(who, notes("late"), expected=revision)
        assert (await held.state(who.stream)).revision == revision
    with pytest.raises(LogMovedError, match="set the journal"):
        await site.open("third.db")


async def test_a_copy_of_the_old_file_is_refused_too(site: Site) -> None:
    """From before it was marked: the keyring remembers that the log went away."""
    log, _ = await filled(site)
    await log.close()
    content = site.file.read_bytes()
    site.logs.clear()
    source = await site.open()
    await moved(site, source, tape := SqliteTape(site.folder / "to.db"))
    await tape.close()
    site.keyring.move_pin(source.identity, JOURNAL, TARGET)
    await source.close()
    for path in site.file.parent.glob("log.db*"):
        path.unlink()
    site.file.write_bytes(content)
    with pytest.raises(LogMovedError, match="elsewhere"):
        await site.open("new.db")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_broken_off_anywhere_it_goes_on(site: Site, after: bool) -> None:
    """A crash at every append of the copy; nobody opens the half of it; done again, it is whole."""
    log, _ = await filled(site)
    before, path = roots(log), site.folder / "to.db"
    crashes, told = 0, None
    for at in range(1, 100):
        tape: SqliteTape = Dying(path, 1, after)
        try:
            told = await moved(site, log, tape)
            break
        except Broken:
            crashes += 1
        finally:
            await tape.close()
        half = SqliteTape(path)
        if await half.identity():
            stands = len(await half.read(0, 0, 1_000))
            if stands < sum(size for size, _ in before.values()):
                with pytest.raises(LogRolledBack, match="rolled back"):
                    await opened(site, half, f"half-{at}.db")
                site.keyring.forget(TARGET)
                site.keyring.forget(JOURNAL)
            else:
                await half.close()
        if not after:
            told = await moved(site, log, tape := SqliteTape(path))
            await tape.close()
            break
    assert crashes == 1 if not after else crashes > 4
    assert told is not None
    assert told.checkpoint == log.checkpoint().body()
    there = await opened(site, SqliteTape(path))
    assert roots(there) == before


async def test_the_source_goes_on_until_the_copy_is_nearly_done(site: Site) -> None:
    """A target that fails does not cost the log its journal."""
    log, writers = await filled(site)
    tape = Dying(site.folder / "to.db", 3, False)
    with pytest.raises(Broken):
        await moved(site, log, tape)
    await tape.close()
    await log.append(writers[0], notes("meanwhile"), expected=4)
    told = await moved(site, log, tape := SqliteTape(site.folder / "to.db"))  # type: ignore[assignment]
    await tape.close()
    there = await opened(site, SqliteTape(site.folder / "to.db"))
    assert (await there.state("task/0")).revision == 5
    assert told.copied < told.commits


async def test_after_the_mark_only_the_same_target_will_do(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    log, _ = await filled(site)

    async def dies(*given: Any) -> None:
        raise Broken

    monkeypatch.setattr(moving, "_compared", dies)
    with pytest.raises(Broken):
        await moved(site, log, tape := SqliteTape(site.folder / "to.db"))
    await tape.close()
    monkeypatch.undo()
    other = SqliteTape(site.folder / "2.db")
    with pytest.raises(LogMovedError):
        await move(log, other, "sqlite:////2.db", caches=site.folder, keyring=site.keyring)
    await other.close()
    told = await moved(site, log, tape := SqliteTape(site.folder / "to.db"))
    assert told.copied == 0
    await tape.close()


async def test_a_target_that_holds_anything_else_is_refused(site: Site, tmp_path: Path) -> None:
    log, _ = await filled(site)
    other = Site(tmp_path / "other")
    await filled(other)
    await other.close()
    with pytest.raises(WrongLogError, match="move to an empty one"):
        await moved(site, log, tape := SqliteTape(other.file))
    await tape.close()
    assert isinstance(log.tape, SqliteTape)
    assert await log.tape.moved_to() == ""


async def test_a_target_that_somebody_writes_to_is_refused(site: Site) -> None:
    """A copy of the log that has gone on by itself is no beginning of the source."""
    log, writers = await filled(site)
    path = site.folder / "to.db"
    assert isinstance(log.tape, SqliteTape)
    with sqlite3.connect(site.file) as db, sqlite3.connect(path) as copied:
        db.backup(copied)
    copy = await site.open("copy.db", tape=SqliteTape(path))
    await copy.append(await Issuer(copy).writer("task/0"), notes("there"), expected=4)
    await log.append(writers[0], notes("here"), expected=4)
    with pytest.raises(WrongLogError, match="Somebody writes to it"):
        await moved(site, log, tape := SqliteTape(path))
    await tape.close()
    assert await log.tape.moved_to() == ""


@pytest.mark.parametrize("seed", range(5))
async def test_a_target_that_loses_delays_and_doubles(site: Site, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a broker does: records come again, late, or not at all, and the order in each slice is kept."""
    monkeypatch.setattr(moving, "BATCH", 1_000)
    log, _ = await filled(site)
    rng = random.Random(seed)
    fates = ["now", "now", "twice", "never?", "now?", "twice?", "late?"]
    told = await moved(site, log, tape := UnconditionalMemoryTape(lambda raw: rng.choice(fates)))
    assert told.checkpoint == log.checkpoint().body()
    tape.settle()
    there = await opened(site, tape)
    assert roots(there) == roots(log)


async def test_a_target_that_never_takes_anything(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "_TRIES", 3)
    log, writers = await filled(site)
    with pytest.raises(StoreError, match="do not stand in lane 0"):
        await moved(site, log, UnconditionalMemoryTape(lambda raw: "never?"))
    await log.append(writers[0], notes("goes on"), expected=4)


def test_a_mark_is_signed_by_the_root_key() -> None:
    root, stranger = SigningKey.from_seed(bytes(32)), SigningKey.from_seed(bytes(31) + b"1")
    log, other = identity(root.public, 16, bytes(32)), identity(root.public, 16, bytes(31) + b"1")
    raw = mark(log, TARGET, root)
    assert marked(raw, log) == TARGET
    assert marked(raw, other) is None
    assert marked(mark(log, TARGET, stranger), log) is None
    assert marked(raw[:-1] + bytes([raw[-1] ^ 1]), log) is None
    assert marked(raw.replace(b"elsewhere", b"elsewhera"), log) is None
    assert marked(mark(log, "", root), log) is None
    assert marked(b"", log) is None


def test_pins_move(site: Site) -> None:
    keyring = site.keyring
    log, _ = keyring.found(16)
    for _ in range(2):
        keyring.move_pin(log, "a", "b")
    old, new = keyring.pinned("a"), keyring.pinned("b")
    assert old is not None
    assert new is not None
    assert (old.moved, new.moved, new.identity()) == ("b", "", log)
    keyring.move_pin(log, "b", "a")
    back = keyring.pinned("a")
    assert back is not None
    assert back.moved == ""


def test_the_command(cli: Cli) -> None:
    cli.ask()
    target = f"sqlite:///{cli.folder}/to/log.db"
    assert "add --yes" in cli.json("log", "move", target, code=2)["message"]
    dry = cli.json("log", "move", target, "--dry-run")
    assert (dry["lanes"], dry["begun"]) == ([1, 1], False)
    assert not (cli.folder / "to").exists()
    exported = cli.folder / "before"
    cli.run("log", "export", str(exported))
    told = cli.json("log", "move", target, "--yes")
    assert (told["moved"], told["commits"]) == (True, dry["commits"])
    assert "was moved to" in cli.json("task", "list", code=3)["message"]
    assert cli.json("task", "list", "--journal", target)[0]["capability"] == "text.write"
    assert cli.json("log", "verify", "--journal", target)["ok"]
    cli.run("log", "export", "after", "--journal", target)
    assert "already" in cli.json("log", "move", target, "--yes", "--journal", target, code=2)["message"]
    for path in (cli.folder / ".party").glob("log.db*"):
        path.unlink()
    back = cli.json("log", "move", f"sqlite:///{cli.folder}/.party/log.db", "--yes", "--journal", target)
    assert back["checkpoint"].splitlines()[1] == str(back["commits"])
    cli.ask("crows", request="r2")
    assert "was moved to" in cli.json("task", "list", "--journal", target, code=3)["message"]


def test_done_but_for_remembering_it(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mover died when all was copied and compared; somebody goes on at the target before it is called again."""
    cli.ask()
    target = f"sqlite:///{cli.folder}/to/log.db"

    def dies(*given: Any) -> None:
        raise StoreError("the mover dies here")

    with monkeypatch.context() as patched:
        patched.setattr(Keyring, "move_pin", dies)
        cli.json("log", "move", target, "--yes", code=5)
    cli.json("ask", "text.write", "topic=owls", "--request-id", "r2", *APP, "--journal", target)
    assert cli.json("log", "move", target, "--dry-run")["begun"]
    told = cli.json("log", "move", target, "--yes")
    assert (told["moved"], told["copied"]) == (True, 0)
    assert len(cli.json("task", "list", "--journal", target)) == 2
    said = cli.json("task", "list", code=3)["message"]
    assert f"was moved to {target}: set the journal" in said
    assert "to go back, move it on from there to a new journal" in said
    other = f"sqlite:///{cli.folder}/other/log.db"
    assert "was moved to" in cli.json("log", "move", other, "--yes", code=3)["message"]


def test_a_source_that_was_cut_is_not_taken_for_a_moved_one(cli: Cli) -> None:
    cli.ask()
    path = cli.folder / ".party" / "log.db"
    old = path.read_bytes()
    cli.ask("owls", "r2")
    for file in (cli.folder / ".party").glob("*.db*"):
        file.unlink()
    path.write_bytes(old)
    target = f"sqlite:///{cli.folder}/to/log.db"
    assert "restore the newest copy" in cli.json("log", "move", target, "--yes", code=4)["message"].lower()


def test_blobs_are_not_lost_sight_of(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.ask("crow" * 20_000)
    target = f"sqlite:///{cli.folder}/to/log.db"
    told = cli.json("log", "move", target, "--yes", code=2)
    assert "set PARTY_BLOBS=file:///" in told["message"]
    monkeypatch.setenv("PARTY_BLOBS", f"file:///{cli.folder}/.party/blobs")
    assert cli.json("log", "move", target, "--yes")["moved"]
    assert cli.json("blobs", "verify", "--journal", target)["named"]


def test_the_command_while_others_live(cli: Cli, tmp_path: Path) -> None:
    from agent_party.actors.presence import Presence

    cli.ask()
    other = Presence(cli.folder / ".party" / "hosts", bytes(range(16)))
    told = cli.json("log", "move", f"sqlite:///{cli.folder}/to.db", "--yes", code=2)
    assert "1 other processes" in told["message"]
    other.close()
    assert cli.json("log", "move", f"sqlite:///{cli.folder}/to.db", "--yes")["moved"]


async def test_a_tape_that_is_unsure(site: Site) -> None:
    """An append to a SQLite target whose outcome nobody knows: looked at, and only what is missing is sent."""

    class Unsure(SqliteTape):
        failures = 3

        async def append(self, lane: int, records: Sequence[bytes], after: Entry) -> Attempt:
            attempt = await super().append(lane, records, after)
            self.failures -= 1
            if self.failures >= 0:
                raise Indefinite("the disk did not say")
            return attempt

    log, _ = await filled(site)
    told = await moved(site, log, tape := Unsure(site.folder / "to.db"))
    await tape.close()
    assert told.copied == told.commits
    await asyncio.sleep(0)
