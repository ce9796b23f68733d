"""A party's log from SQLite to Kafka and back: every tree, the checkpoint and the export the same, at real brokers."""

import contextlib
import hashlib
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent_party import Agent, Party, Task
from agent_party.cluster.moving import move_log, plan_move
from agent_party.cluster.settings import Settings, load
from agent_party.cluster.wiring import Stack, open_stack
from agent_party.eventstore import moving
from agent_party.eventstore.errors import LogMovedError, LogRolledBack
from agent_party.eventstore.export import export
from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.log import Log
from tests.faults.moving_kills import survive
from tests.services_kit import Services

writer = Agent("writer", version="1")


@writer.on("text.write")
async def write(task: Task, topic: str) -> str:
    """A task with a step and, for long topics, a payload beside the log."""
    return f"{topic[:10]} has {await task.step(len, topic)} letters"


class Home:
    """A user's folder and keyring, with a journal on SQLite and a topic of its own."""

    def __init__(self, folder: Path, services: Services) -> None:
        self.folder = folder
        self.sqlite = f"sqlite:///{folder}/log.db"
        self.kafka = services.journal(f"move-{secrets.token_hex(6)}") + "?partitions=3"

    def at(self, journal: str) -> Settings:
        given = {"journal": journal, "state": str(self.folder / "state"), "home": str(self.folder), "runtime": "local"}
        return load({**given, "blobs": f"file:///{self.folder}/blobs"}, {}, self.folder)

    @contextlib.asynccontextmanager
    async def stack(self, journal: str) -> AsyncIterator[Stack]:
        stack = await open_stack(self.at(journal), create=journal == self.sqlite)
        try:
            yield stack
        finally:
            await stack.close()

    async def work(self, journal: str, *topics: str) -> None:
        """Have tasks done by a party whose log lies there."""
        party = Party(self.at(journal), [writer], stay=False)
        await party.start(create=journal == self.sqlite)
        try:
            for topic in topics:
                task = await party.ask(write, topic=topic)
                assert await task.result(300) == f"{topic[:10]} has {len(topic)} letters"
        finally:
            await party.close()


@pytest.fixture
def home(tmp_path: Path, services: Services) -> Home:
    return Home(tmp_path, services)


async def seen(log: Log) -> tuple[dict[int, tuple[int, bytes]], str, str]:
    """Every slice's tree, the checkpoint, the export."""
    await log.refresh()
    roots = {part: (size, log.index.root_at(part, size)) for part, size in log.index.sizes().items() if size}
    return roots, log.checkpoint().body(), hashlib.sha256(await export(log)).hexdigest()


async def test_there_and_back(home: Home) -> None:
    await home.work(home.sqlite, "ravens", "crow" * 20_000)
    async with home.stack(home.sqlite) as stack:
        before = await seen(stack.log)
    plan = await plan_move(home.at(home.sqlite), home.at(home.kafka))
    assert (plan.lanes[0], plan.there) == (1, False)
    told = await move_log(home.at(home.sqlite), home.at(home.kafka))
    assert (told.commits, told.copied) == (plan.commits, plan.commits)
    with pytest.raises(LogMovedError, match="set the journal"):
        await open_stack(home.at(home.sqlite))
    for path in home.folder.glob("log.db*"):
        path.unlink()
    back = await move_log(home.at(home.kafka), home.at(home.sqlite))
    assert (back.export, back.checkpoint) == (told.export, told.checkpoint)
    with pytest.raises(LogMovedError, match="set the journal"):
        await open_stack(home.at(home.kafka))
    async with home.stack(home.sqlite) as stack:
        assert await seen(stack.log) == before
    await home.work(home.sqlite, "owls")


async def test_a_party_goes_on_in_kafka(home: Home) -> None:
    """New tasks there, and back with all of them; what lay in the blobs is read on the way."""
    await home.work(home.sqlite, "crow" * 20_000)
    await move_log(home.at(home.sqlite), home.at(home.kafka))
    await home.work(home.kafka, "owls", "swan" * 20_000)
    async with home.stack(home.kafka) as stack:
        before = await seen(stack.log)
        assert stack.log.tape.lanes == 3
        assert stack.log.identity.slices == 16
    there = home.folder / "second" / "log.db"
    told = await move_log(home.at(home.kafka), home.at(f"sqlite:///{there}"))
    assert told.checkpoint == before[1]
    async with home.stack(f"sqlite:///{there}") as stack:
        assert await seen(stack.log) == before
        large = [c async for name in _each(stack.log.streams("task/")) async for c in stack.log.read(name)]
        assert len(large) > 3


async def _each(names: list[str]) -> AsyncIterator[str]:
    for name in names:
        yield name


async def test_a_writer_that_stayed_on_the_topic(home: Home) -> None:
    """A zombie of the old journal: its record lands behind the mark, so it is told, and nobody takes it for history."""
    await home.work(home.sqlite, "ravens")
    await move_log(home.at(home.sqlite), home.at(home.kafka))
    zombie = await open_stack(home.at(home.kafka))
    holder = await Issuer(zombie.log).writer("task/zombie")
    zombie.presence.close()  # as one on another machine
    target = f"sqlite:///{home.folder}/second/log.db"
    told = await move_log(home.at(home.kafka), home.at(target))
    from agent_party.actors.events import Progressed

    with pytest.raises(LogMovedError, match="was moved to sqlite"):
        await zombie.log.append(holder, [Progressed(1, 2, "late")], expected=0)
    with contextlib.suppress(LogMovedError):
        await zombie.close()
    async with home.stack(target) as stack:
        assert (await stack.log.state("task/zombie")).revision == 0
        assert stack.log.checkpoint().body() == told.checkpoint


@pytest.mark.parametrize("at", [1, 3, 6])
async def test_broken_off_on_the_way_to_kafka(home: Home, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Half of it is opened by nobody; done again it is whole, and nothing of it is there twice."""
    from agent_party.eventstore.backends.kafka import KafkaTape

    monkeypatch.setattr(moving, "BATCH", 1)
    await home.work(home.sqlite, "ravens", "crows", "owls")
    appended, append = 0, KafkaTape.append

    async def dying(self: Any, *given: Any) -> Any:
        nonlocal appended
        appended += 1
        if appended == at:
            raise Broken
        return await append(self, *given)

    with monkeypatch.context() as patched:
        patched.setattr(KafkaTape, "append", dying)
        with pytest.raises(Broken):
            await move_log(home.at(home.sqlite), home.at(home.kafka))
    with pytest.raises(LogRolledBack, match="were there before"):
        await open_stack(home.at(home.kafka), create=False)
    home_keyring(home).forget(home.at(home.kafka).address)
    told = await move_log(home.at(home.sqlite), home.at(home.kafka))
    async with home.stack(home.kafka) as stack:
        assert (await seen(stack.log))[1] == told.checkpoint


class Broken(Exception):
    """The mover dies here."""


def home_keyring(home: Home) -> Any:
    from agent_party.eventstore.keyring import Keyring

    return Keyring(home.folder / "state")


@pytest.mark.parametrize("writing", [False, True], ids=["at rest", "written to"])
async def test_killed_anywhere(tmp_path: Path, services: Services, writing: bool) -> None:
    """A short piece of `tests/campaigns/log_move.py`: movers are killed by SIGKILL, there and back."""
    counts = await survive(tmp_path, services.kafka, 11 + writing, 2, writing=writing)
    assert counts["ways"] == 2
    assert sum(times for what, times in counts.items() if what.startswith("killed")) >= 1
    assert (counts["the same, byte by byte"] == 1) is not writing
    assert bool(counts["acknowledged beside a mover"]) is writing
