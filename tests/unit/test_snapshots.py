"""How often the fold of a live stream is kept: often enough to start fast, seldom enough not to cost too much."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent_party.actors.activation import SNAPSHOT_EVERY, Activation, Fold
from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.reading import Commit
from agent_party.eventstore.snapshots import Snapshots
from tests.eventstore_kit import Site, notes

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

    def save(self, stream: str, revision: int, head: bytes, program: str, state: bytes) -> None:
        self.saved.append((revision, len(state)))
        super().save(stream, revision, head, program, state)


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
