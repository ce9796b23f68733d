"""Deciders and the entities that live by them."""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Sequence
from typing import Any, ClassVar

import msgspec
import pytest

from agent_party import ConflictError, Decider, event
from agent_party.actors import entities
from agent_party.actors.activation import SNAPSHOT_EVERY, load
from agent_party.actors.entities import Entities, entity_fold
from agent_party.actors.errors import DeadlineError, InputError, MailboxFullError
from agent_party.eventstore.errors import IdReusedError, PayloadError, UnknownEventError
from tests.unit.world import DEADLINE, Process, World, a_world


@event("test.counted")
class Counted(msgspec.Struct, frozen=True):
    by: int
    name: str = ""


@event("test.other")
class Other(msgspec.Struct, frozen=True):
    pass


class Add(msgspec.Struct, frozen=True):
    by: int


class Subtract(msgspec.Struct, frozen=True):
    by: int


class Names(msgspec.Struct):
    total: int = 0
    seen: dict[int, tuple[str, int]] = {}


class Tally(Decider[Names, Any, Any]):
    kind = "tally"
    events: ClassVar[tuple[type, ...]] = (Counted,)

    def initial(self) -> Names:
        return Names()

    def decide(self, command: Any, state: Names) -> Sequence[Any]:
        match command:
            case Add(by) if by > 0:
                return [Counted(by)]
            case Add(0):
                return []
            case Subtract(by) if by <= state.total:
                return [Counted(-by)]
            case "unknown":
                return [Other()]
            case "unstorable":
                return [Counted(1 << 80)]
        raise ValueError("refused by the rules of the tally")

    def evolve(self, state: Names, event: Any) -> Names:
        return Names(state.total + event.by, {**state.seen, state.total: (event.name, event.by)})


class Keyed(Decider[dict[int, tuple[str, int]], Any, Any]):
    """A state whose type only its base class names."""

    kind = "keyed"
    events: ClassVar[tuple[type, ...]] = (Counted,)

    def initial(self) -> dict[int, tuple[str, int]]:
        return {}

    def decide(self, command: Any, state: dict[int, tuple[str, int]]) -> Sequence[Any]:
        return [Counted(command)]

    def evolve(self, state: dict[int, tuple[str, int]], event: Any) -> dict[int, tuple[str, int]]:
        return {**state, event.by: ("x", event.by)}


class Untyped(Decider[Any, Any, Any]):
    """A state that does not come back from MessagePack as it was."""

    kind = "untyped"
    events: ClassVar[tuple[type, ...]] = (Counted,)

    def initial(self) -> Any:
        return ()

    def decide(self, command: Any, state: Any) -> Sequence[Any]:
        return [Counted(command)]

    def evolve(self, state: Any, event: Any) -> Any:
        return (*state, (event.by, {event.by}))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world() as world:
        yield world


def entity(process: Process) -> Entities:
    return process.host._entities


def number(text: str) -> bytes:
    return text.encode().ljust(16, b"\0")


async def send(process: Process, command: Any, as_: str = "", *, of: Any = Tally, name: str = "t") -> Any:
    return await process.host.send(of, name, command, number(as_) if as_ else os.urandom(16), DEADLINE)


async def test_a_command_is_decided_recorded_and_answered(world: World) -> None:
    process = await world.process()
    reply = await send(process, Add(3))
    assert (reply.state.total, reply.revision, reply.events) == (3, 1, (Counted(3),))
    reply = await send(process, Subtract(1))
    assert (reply.state.total, reply.revision, reply.events) == (2, 2, (Counted(-1),))
    assert [commit.events for commit in await process.commits("tally/t")] == [(Counted(3),), (Counted(-1),)]


async def test_a_command_that_leads_to_nothing_records_nothing(world: World) -> None:
    process = await world.process()
    reply = await send(process, Add(0))
    assert (reply.state.total, reply.revision, reply.events) == (0, 0, ())


async def test_what_decide_refuses_is_not_recorded(world: World) -> None:
    process = await world.process()
    await send(process, Add(3))
    with pytest.raises(ValueError, match="rules of the tally"):
        await send(process, Subtract(9), "1")
    assert len(await process.commits("tally/t")) == 1
    assert (await send(process, Subtract(3), "1")).revision == 2, "a refused id is not used up"


@pytest.mark.parametrize(
    ("command", "error"), [("unknown", UnknownEventError), ("unstorable", PayloadError), (object(), PayloadError)]
)
async def test_what_cannot_be_stored_is_refused_and_loses_nothing(
    world: World, command: Any, error: type[Exception]
) -> None:
    process = await world.process()
    await send(process, Add(1))
    with pytest.raises(error):
        await send(process, command)
    assert (await send(process, Add(1))).state.total == 2


async def test_the_same_id_is_answered_again_and_done_once(world: World) -> None:
    process = await world.process()
    first = await send(process, Add(3), "1")
    await send(process, Add(4))
    again = await send(process, Add(3), "1")
    assert again.events == first.events
    assert again.state.total == 7
    assert again.revision == 2


async def test_the_same_id_after_a_restart_is_still_known(world: World) -> None:
    process = await world.process()
    await send(process, Add(3), "1")
    await world.kill(process)
    process = await world.process()
    assert (await send(process, Add(3), "1")).state.total == 3


@pytest.mark.parametrize("other", [Add(4), Subtract(3)])
async def test_an_id_with_another_command_is_refused(world: World, other: Any) -> None:
    """Also with another class of command that has the same fields."""
    process = await world.process()
    await send(process, Add(3), "1")
    with pytest.raises(IdReusedError):
        await send(process, other, "1")


async def test_commands_at_once_are_decided_one_after_the_other(world: World) -> None:
    process = await world.process()
    replies = await asyncio.gather(*(send(process, Add(1)) for _ in range(50)))
    assert sorted(reply.revision for reply in replies) == list(range(1, 51))
    assert all(reply.state.total == reply.revision for reply in replies)


async def test_two_processes_take_an_entity_from_each_other(world: World) -> None:
    one, two = await world.process(), await world.process()
    for n in range(3):
        assert (await send(one, Add(1))).state.total == 2 * n + 1
        assert (await send(two, Add(1))).state.total == 2 * n + 2
    await asyncio.gather(*(send(process, Add(1)) for process in (one, two) for _ in range(5)))
    assert (await send(one, Add(1))).state.total == 17


async def test_state_at_a_revision(world: World) -> None:
    process = await world.process()
    for by in (1, 2, 3):
        await send(process, Add(by))
    totals = [
        (await load(process.log, entity_fold(Tally()), "tally/t", snapshots=None, at=at)).state.total
        for at in (0, 1, 2, 3, 9)
    ]
    assert totals == [0, 1, 3, 6, 6]


async def test_names_must_fit(world: World) -> None:
    process = await world.process()
    for name in ("", "a b", "ä", "x" * 300):
        with pytest.raises(InputError):
            await send(process, Add(1), name=name)


# Limits


async def test_a_full_mailbox_is_an_error_the_caller_sees(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entities, "MAILBOX", 3)
    process = await world.process()
    results = await asyncio.gather(*(send(process, Add(1)) for _ in range(9)), return_exceptions=True)
    refused = [result for result in results if isinstance(result, MailboxFullError)]
    assert len(refused) == 6
    assert (await send(process, Add(1))).state.total == 4
    assert entity(process)._waiting == {}


async def test_a_deadline_and_then_the_same_id_again(world: World) -> None:
    process = await world.process()
    await send(process, Add(1))
    process.die()
    with pytest.raises(DeadlineError, match="ask again"):
        await process.host.send(Tally, "t", Add(5), number("1"), 0.01)
    await world.kill(process)
    other = await world.process()
    await send(other, Add(5), "1")
    assert (await send(other, Add(5), "1")).state.total == 6


async def test_a_command_that_times_out_is_its_own_error(world: World) -> None:
    class Slow(Tally):
        kind = "slow"

        def decide(self, command: Any, state: Names) -> Sequence[Any]:
            raise TimeoutError("mine")

    process = await world.process()
    with pytest.raises(TimeoutError, match="mine"):
        await send(process, Add(1), of=Slow)


async def test_live_entities_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entities, "LIVE", 4)
    process = await world.process()
    for n in range(12):
        await send(process, Add(1), name=f"t{n % 6}")
    assert len(entity(process)._live) <= 4
    assert (await send(process, Add(1), name="t0")).state.total == 3
    assert len(process.host._locks) == 0


# Snapshots


async def with_snapshot(world: World, of: Any, name: str, commands: int = SNAPSHOT_EVERY) -> Process:
    process = await world.process()
    for n in range(commands):
        await send(process, Add(1) if of is Tally else n, of=of, name=name)
    await world.kill(process)
    return await world.process()


async def folded(process: Process, of: Any, name: str) -> tuple[Any, int]:
    """State, and how many commits were read for it."""
    read, count = process.log.read, 0

    def counting(*args: Any, **kwargs: Any) -> Any:
        async def commits() -> AsyncIterator[Any]:
            nonlocal count
            async for commit in read(*args, **kwargs):
                count += 1
                yield commit

        return commits()

    process.log.read = counting  # type: ignore[method-assign]
    process.log.codec.add(Counted)
    state = (await load(process.log, entity_fold(of()), f"{of.kind}/{name}", snapshots=process.snapshots)).state
    return state, count


async def test_a_snapshot_saves_reading(world: World) -> None:
    process = await with_snapshot(world, Tally, "t")
    state, count = await folded(process, Tally, "t")
    assert state.total == SNAPSHOT_EVERY
    assert state.seen[7] == ("", 1)
    assert count == 1, "only the snapshot's own commit is looked at"


async def test_a_snapshot_has_the_type_that_the_decider_names(world: World) -> None:
    process = await with_snapshot(world, Keyed, "k")
    state, count = await folded(process, Keyed, "k")
    assert state[7] == ("x", 7)
    assert count == 1


async def test_a_state_that_would_come_back_different_is_not_kept(world: World) -> None:
    process = await with_snapshot(world, Untyped, "u")
    state, count = await folded(process, Untyped, "u")
    assert state[7] == (7, {7})
    assert count == SNAPSHOT_EVERY


@pytest.mark.parametrize("column", ["sealed", "salt", "head", "revision", "program"])
async def test_an_altered_snapshot_is_not_used(world: World, column: str) -> None:
    process = await with_snapshot(world, Tally, "t")
    new = {"revision": "3", "program": "'other/1'"}.get(column, "randomblob(32)")
    with sqlite3.connect(world.folder / "snapshots.db") as db:
        db.execute(f"UPDATE snapshot SET {column} = {new}")
    db.close()
    state, count = await folded(process, Tally, "t")
    assert state.total == SNAPSHOT_EVERY
    assert count >= SNAPSHOT_EVERY


async def test_a_snapshot_of_another_version_of_the_program_is_not_used(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = await with_snapshot(world, Tally, "t")
    monkeypatch.setattr(Tally, "state_version", 2)
    _, count = await folded(process, Tally, "t")
    assert count == SNAPSHOT_EVERY


async def test_a_writer_that_is_always_too_late_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    process = await world.process()
    await send(process, Add(1))
    activation = entity(process)._live["tally/t"]

    async def late(*args: Any) -> Any:
        raise ConflictError("tally/t", 1, 2)

    monkeypatch.setattr(activation, "_append", late)
    with pytest.raises(ConflictError):
        await send(process, Add(1))
