"""Who was refused an append has the next turn, and one that does not take its turn holds nobody up."""

import asyncio
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_party.eventstore.backends import sqlite, turnstile
from agent_party.eventstore.backends.sqlite import SqliteTape
from agent_party.eventstore.backends.turnstile import PATIENCE, Turnstile
from agent_party.eventstore.tape import START, Entry
from tests.unit.world import until


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Turnstile, Turnstile]]:
    """The turnstiles of two writers of one file."""
    mine, other = Turnstile(tmp_path / "turn"), Turnstile(tmp_path / "turn")
    yield mine, other
    mine.close()
    other.close()


@pytest.fixture
def tape(tmp_path: Path) -> SqliteTape:
    return SqliteTape(tmp_path / "log.db")


def test_who_holds_it_passes_and_the_others_do_not(two: tuple[Turnstile, Turnstile]) -> None:
    mine, other = two
    assert mine.open()
    assert other.open()
    mine.hold()
    assert mine.open()
    assert not other.open()
    other.hold()
    assert not other.held
    mine.let_go()
    assert other.open()


def test_a_holder_that_is_gone_lets_go(two: tuple[Turnstile, Turnstile]) -> None:
    mine, other = two
    mine.hold()
    mine.close()
    assert other.open()


def test_one_that_stands_still_is_passed_over_for_longer_each_time(
    two: tuple[Turnstile, Turnstile], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    mine, other = two
    mine.hold()
    ignored = []
    for _ in range(12):
        began = now[0]
        other.take()
        assert now[0] - began == pytest.approx(PATIENCE, abs=0.002)
        waited = now[0]
        while other.open():
            now[0] += 0.01
        ignored.append(now[0] - waited)
    assert ignored == pytest.approx(sorted(ignored))
    assert ignored[0] == pytest.approx(2 * PATIENCE, abs=0.011)
    assert ignored[-1] == pytest.approx(turnstile.IGNORED, abs=0.011)
    mine.let_go()
    assert other.open()
    mine.hold()
    other.take()
    began = now[0]
    while other.open():
        now[0] += 0.01
    assert now[0] - began == pytest.approx(2 * PATIENCE, abs=0.011), "who let go once is waited for again"


def test_where_no_file_can_be_there_are_no_turns(tmp_path: Path) -> None:
    nowhere = Turnstile(tmp_path / "no folder" / "turn")
    nowhere.hold()
    assert not nowhere.held
    assert nowhere.open()
    nowhere.close()


async def refused(busy: SqliteTape, slow: SqliteTape, at_once: bool) -> Entry:
    """Have one tape's append refused because the other's was faster. The last entry."""
    attempt = await busy.append(0, [b"first"], START)
    tried = slow.append_at_once(0, [b"mine"], START) if at_once else await slow.append(0, [b"mine"], START)
    assert tried is not None
    assert not tried.placed
    return attempt.entries[-1]


@pytest.mark.parametrize("at_once", [True, False])
async def test_who_was_refused_is_next(tape: SqliteTape, at_once: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (turnstile, sqlite):  # however slow the machine is
        monkeypatch.setattr(module, "PATIENCE", 60.0)
    slow = SqliteTape(tape.path)
    last = await refused(tape, slow, at_once)
    assert tape.append_at_once(0, [b"second"], last) is None
    busy = asyncio.create_task(tape.append(0, [b"second"], last))
    mine = await slow.append(0, [b"mine"], last)
    assert mine.placed, "a process that appends without a pause was served before one that was refused"
    assert (await busy).entries == mine.entries
    assert tape.append_at_once(0, [b"second"], mine.entries[-1]) is not None
    await tape.close()
    await slow.close()


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_turn_that_is_not_taken_ends(tape: SqliteTape, at_once: bool) -> None:
    slow = SqliteTape(tape.path)
    last = await refused(tape, slow, at_once)
    await until(lambda: tape.append_at_once(0, [b"second"], last))
    await tape.close()
    await slow.close()


async def test_one_that_stands_still_is_not_waited_for(tape: SqliteTape) -> None:
    stopped = Turnstile(tape.path.with_name("log.db-turn"))
    stopped.hold()
    tape._turns._ignoring = turnstile.IGNORED  # so that a slow machine is not too late
    last = (await tape.append(0, [b"first"], START)).entries[-1]
    assert tape.append_at_once(0, [b"second"], last) is not None
    stopped.close()
    await tape.close()


async def test_a_turn_locks_the_file_once(tape: SqliteTape, monkeypatch: pytest.MonkeyPatch) -> None:
    done, flock = list[int](), fcntl.flock

    def counted(file: int, operation: int) -> None:
        done.append(operation)
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", counted)
    assert (await tape.append(0, [b"first"], START)).placed
    assert done == [fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_UN]
    await tape.close()
