"""What is kept of the fold of a live stream, and how often: enough to start fast, little enough to cost nothing."""

import random
import sqlite3
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from agent_party.actors.activation import SNAPSHOT_EVERY, Activation, Fold, Folded, load
from agent_party.actors.budgets import Accounted, Spent
from agent_party.actors.events import (
    Advanced,
    Attempted,
    Continued,
    Diverged,
    Escalated,
    Failure,
    Freed,
    Held,
    Opened,
    Requested,
    Settled,
    Signed,
    Started,
    WaitKind,
)
from agent_party.actors.task_state import TASK, TaskState
from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.log import Log
from agent_party.eventstore.reading import Commit
from agent_party.eventstore.snapshots import NOWHERE, Part, Place, Snapshots
from tests.eventstore_kit import Site, notes
from tests.unit.commits_kit import committed

TEXT = "x" * 100


def keep_all(state: list[str], commit: Commit) -> list[str]:
    return [*state, *(event.text for event in commit.events)]


def keep_last(state: list[str], commit: Commit) -> list[str]:
    return [commit.events[-1].text]


class Saved(Snapshots):
    """Remembers at which revision it was given how many bytes."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.saved: list[tuple[int, int]] = []

    def save(self, stream: str, place: Place, program: str, state: bytes, after: Place = NOWHERE) -> bool:
        self.saved.append((place.revision, len(state)))
        return super().save(stream, place, program, state, after)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path, "memory")
    yield site
    await site.close()


async def live(site: Site, evolve: object) -> tuple[Activation[list[str]], Saved]:
    log = await site.open()
    saved = Saved(site.folder / "snapshots.db", log.identity.log_id, log.keys, log.ambient)
    fold: Fold[list[str]] = Fold(list, evolve, list[str], "kept/1")  # type: ignore[arg-type]
    activation = Activation(log, fold, "note/a", saved)
    await activation.start(Issuer(log).writer)
    return activation, saved


async def test_a_small_state_is_kept_every_so_many_commits(site: Site) -> None:
    activation, saved = await live(site, keep_last)
    for _ in range(3 * SNAPSHOT_EVERY):
        await activation.record(notes(TEXT))
    assert [revision for revision, _ in saved.saved] == [SNAPSHOT_EVERY, 2 * SNAPSHOT_EVERY, 3 * SNAPSHOT_EVERY]
    saved.close()


async def test_snapshots_of_a_growing_state_cost_no_more_than_the_log(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_party.actors.activation.SNAPSHOT_EVERY", 10)
    activation, saved = await live(site, keep_all)
    for _ in range(1_000):
        await activation.record(notes(TEXT))
    written = 1_000 * len(TEXT)
    assert sum(size for _, size in saved.saved) < 3 * written
    assert len(saved.saved) < 15
    revision, size = saved.saved[-1]
    assert revision > 400, "what must be read after a crash is no more than was read for the snapshot"
    assert size >= revision * len(TEXT)
    saved.close()


async def test_the_size_is_known_to_the_next_activation(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_party.actors.activation.SNAPSHOT_EVERY", 10)
    first, saved = await live(site, keep_all)
    for _ in range(100):
        await first.record(notes(TEXT))
    first.snapshot()
    saved.close()
    second, again = await live(site, keep_all)
    assert len(second.state) == 100
    for _ in range(50):
        await second.record(notes(TEXT))
    assert again.saved == []
    again.close()


# A task's snapshots hold what has changed


def opening(rng: random.Random, wait: int) -> Opened:
    kind: WaitKind = rng.choice(("step", "child", "approval", "signal"))
    return Opened(wait, kind, f"w{wait}", rng.randbytes(rng.randrange(9)), reserved=Spent(calls=1))


def something(rng: random.Random, state: TaskState) -> Any:
    """An event that may come next."""
    known = rng.randrange(len(state.waits)) if state.waits else None
    if known is None or rng.random() < 0.4:
        first = len(state.waits)
        settled = [Settled(wait, rng.randbytes(5)) for wait in state.open if rng.random() < 0.4]
        return Advanced(settled, [opening(rng, first + n) for n in range(rng.randrange(1, 3))])
    events = [
        Attempted(known, 1, Failure("E", "no"), next=5, spent=Spent(calls=1)),
        Held(known, "why"),
        Freed(known, reserved=Spent(calls=2)),
        Freed(known),
        Signed(known, "ann", b"statement", b"signature"),
        Escalated(known, 9),
        Accounted(known, Spent(calls=1)),
        Diverged(known),
        Continued(b"\x80"),
    ]
    return rng.choices(events, [9] * 7 + [2, 1])[0]


@pytest.mark.parametrize("seed", range(60))
def test_a_task_comes_back_from_the_parts_of_its_snapshots(seed: int) -> None:
    rng, live, parts = random.Random(seed), Folded(TASK, "task/a"), list[Part]()
    live.add(committed(1, [Requested("c", b"\x80"), Started("a", "1", 1)]))
    for number in range(2, 80):
        live.add(committed(number, [something(rng, live.state)]))
        if rng.random() < 0.2:
            parts.append(Part(live.place, packed := live.pack()))
            assert live.was_kept(packed) == (parts[-2].place if len(parts) > 1 else NOWHERE)
            again = Folded(TASK, "task/a")
            again.unpack(parts)
            assert (again.state, again.place, again.recent) == (live.state, live.place, live.recent)


async def a_task(site: Site, revisions: int, size: int = 100) -> tuple[Log, Activation[TaskState], Saved]:
    """A live task of so many commits, each of which settles a step and opens the next."""
    log = await site.open()
    for event in (Advanced, Held):
        log.codec.add(event)
    saved = Saved(site.folder / "snapshots.db", log.identity.log_id, log.keys, log.ambient)
    live = Activation(log, TASK, "task/a", saved)
    await live.start(Issuer(log).writer)
    for _ in range(revisions):
        wait = len(live.state.waits)
        await live.record([Advanced([Settled(wait - 1, bytes(size))] if wait else [], [Opened(wait, "step", "s")])])
    return log, live, saved


def kept_at(saved: Saved) -> list[int]:
    return [revision for revision, _ in saved.saved]


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_party.actors.activation.SNAPSHOT_EVERY", 20)


async def test_a_late_snapshot_of_a_task_costs_no_more_than_an_early_one(site: Site, often: None) -> None:
    _, _, saved = await a_task(site, 600)
    steps = [after - before for before, after in pairwise([0, *kept_at(saved)])]
    each = [size / count for (_, size), count in zip(saved.saved, steps, strict=True)]
    assert steps == [20] * 30
    assert max(each[1:]) < 1.05 * min(each[1:]), "bytes a step, of each snapshot"
    saved.close()


@pytest.mark.parametrize("lost", [0, 1, -1])
async def test_what_follows_a_lost_part_is_not_believed(site: Site, often: None, lost: int) -> None:
    log, live, saved = await a_task(site, 130)
    revision = kept_at(saved)[lost]
    saved._db.execute("DELETE FROM snapshot WHERE revision = ?", (revision,))  # type: ignore[union-attr]
    parts = saved.load("task/a", TASK.program)
    assert [part.place.revision for part in parts] == [r for r in kept_at(saved) if r < revision]
    assert (await load(log, TASK, "task/a", snapshots=saved)).state == live.state
    saved.close()


async def test_a_snapshot_that_cannot_be_kept_is_made_up_for(
    site: Site, often: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, live, saved = await a_task(site, 50)
    with monkeypatch.context() as broken:
        broken.setattr(Saved, "save", lambda *given: False)
        await live.record([Held(0, "why")])
        live.snapshot()
    await live.record([Held(1, "why")])
    live.snapshot()
    assert len(saved.load("task/a", TASK.program)) == 1, "a whole one"
    assert (await load(log, TASK, "task/a", snapshots=saved)).state == live.state
    saved.close()


async def test_two_processes_do_not_mix_their_parts(site: Site, often: None) -> None:
    """One that was slow goes on from an older part than the other: what does not fit together is not used."""
    log, live, saved = await a_task(site, 25)
    slow = Activation(log, TASK, "task/a", saved)
    slow.folded = await load(log, TASK, "task/a", snapshots=saved)
    for _ in range(30):
        wait = len(live.state.waits)
        await live.record([Advanced([Settled(wait - 1)], [Opened(wait, "step", "s")])])
    live.snapshot()
    slow.snapshot()
    await live.record([Held(0, "why")])
    live.snapshot()
    assert [part.place.revision for part in saved.load("task/a", TASK.program)] == [20, 25]
    assert (await load(log, TASK, "task/a", snapshots=saved)).state == live.state
    saved.close()


async def test_the_file_of_an_earlier_program_is_made_anew(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "snapshots.db") as db:
        db.execute("CREATE TABLE snapshot (stream TEXT PRIMARY KEY, revision INTEGER, sealed BLOB)")
        db.execute("INSERT INTO snapshot VALUES ('task/a', 1, x'00')")
    db.close()
    site = Site(tmp_path, "memory")
    _, live, saved = await a_task(site, 3)
    live.snapshot()
    assert [part.place.revision for part in saved.load("task/a", TASK.program)] == [3]
    saved.close()
    await site.close()
