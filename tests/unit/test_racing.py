"""Many who want one stream at the same moment, of one process and of several: each comes to its turn."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import pytest

from agent_party import Agent, Party, artifacts
from agent_party.actors import racing
from agent_party.actors.events import Received, Sent
from agent_party.actors.inbox import leave
from agent_party.actors.packing import pack
from agent_party.eventstore.artifacts import Artifact
from agent_party.eventstore.backends.index_file import Row
from agent_party.eventstore.errors import GrantEndedError
from agent_party.eventstore.log import Log
from agent_party.eventstore.reading import Commit
from agent_party.eventstore.verify import MAX_GRANTS
from tests.cli_kit import Cli
from tests.unit.test_entities import Add, Tally
from tests.unit.world import DEADLINE, Process, World, a_world, until

keeper = Agent("keeper", version="1")


@pytest.fixture
async def parties(cli: Cli) -> AsyncIterator[tuple[Party, ...]]:
    """Three processes' worth of one party."""
    async with contextlib.AsyncExitStack() as stack:
        opened = [Party.open(agents=[keeper], runtime="local", person="ada") for _ in range(3)]
        yield tuple([await stack.enter_async_context(one) for one in opened])


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world() as world:
        yield world


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's share is over before all is written, however slow the machine is."""
    for name, seconds in {"_STILL": 0.5, "_SHARE": 60.0, "_PATIENCE": 60.0, "PATIENCE": 60.0}.items():
        monkeypatch.setattr(racing, name, seconds)


@pytest.mark.usefixtures("patient")
async def test_put_under_one_request_id(parties: tuple[Party, ...]) -> None:
    """Who was not the first lets the first finish."""
    log = parties[0].stack.log
    for number in range(3):
        puts = (party.artifacts.put("page", b"words", request_id=f"r{number}") for party in parties * 4)
        assert len({kept.source for kept in await asyncio.gather(*puts)}) == 1
    await log.refresh()
    assert len(streams := log.streams("artifact/")) == 3
    assert all(taken(log, stream) < 5 * 12 for stream in streams), "each of twelve took it, and let it go"


async def test_put_by_another_while_patience_ran_out(
    parties: tuple[Party, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is let finish, and what it has put is found all the same."""
    mine, others, waited = parties[0].artifacts, parties[1].artifacts, list[str]()

    async def overtaken(stream: str, artifact: Artifact, person: str | None) -> None:
        await others.put("page", b"words", request_id="r")
        raise GrantEndedError(stream)

    async def let_finish(log: Log, stream: str) -> None:
        waited.append(stream)
        await racing.let_finish(log, stream)

    monkeypatch.setattr(racing, "PATIENCE", 0.0)
    monkeypatch.setattr(artifacts, "let_finish", let_finish)
    monkeypatch.setattr(mine, "_append", overtaken)
    made = await mine.put("page", b"words", request_id="r")
    assert [made] == await others.list()
    assert waited == [f"artifact/{made.source}"]


@pytest.mark.usefixtures("patient")
async def test_remember_for_one_agent(parties: tuple[Party, ...]) -> None:
    """Each process writes what it has to while the agent is its own, instead of all taking it from each other."""
    each = 30
    await asyncio.gather(
        *(
            party.runtime.remember("keeper", f"{who} {number}", pack(number, "it"), bytes([who, number]) * 8)
            for who, party in enumerate(parties)
            for number in range(each)
        )
    )
    assert len(await parties[0].agent("keeper").memory()) == each * len(parties)
    assert taken(parties[0].stack.log, "agent/keeper") < each


@pytest.mark.usefixtures("patient")
async def test_commands_for_one_entity(world: World) -> None:
    hosts, each = [(await world.process()).host for _ in range(3)], 30
    replies = await asyncio.gather(
        *(
            host.send(Tally, "t", Add(1), bytes([who, number]) * 8, DEADLINE)
            for who, host in enumerate(hosts)
            for number in range(each)
        )
    )
    assert sorted(reply.state.total for reply in replies) == list(range(1, each * len(hosts) + 1))
    assert taken(world.processes[0].log, "tally/t") < each


def taken(log: Log, stream: str) -> int:
    """How often a stream was taken over."""
    return len(log.index.control_rows(stream.encode()))


async def leave_all(senders: Sequence[Process]) -> list[bytes]:
    """Leave a message by each of them, at once; the ids of all, in order."""
    messages = [Sent(Received("signal", "go", pack(n, "it"), n.to_bytes(16))) for n in range(len(senders))]
    pairs = zip(senders, messages, strict=True)
    await asyncio.gather(*(leave(sender.log, sender.doorman, "task/x", message) for sender, message in pairs))
    return [one.message.id for one in messages]


async def left(process: Process) -> list[bytes]:
    """The ids of the messages that lie there, in order."""
    return sorted(event.message.id for commit in await process.commits("inbox/task/x") for event in commit.events)


async def test_messages_for_one_task(world: World) -> None:
    """By one writer of each process, however many there are at once."""
    many, few = [await world.process() for _ in range(2)]
    sent = await leave_all([many] * (MAX_GRANTS + 50) + [few] * 8)
    assert await left(few) == sent
    controls = few.log.index.control_rows(b"inbox/task/x")
    assert len(controls) < MAX_GRANTS / 4, "two for each that came when nobody else was writing, or had been fenced"


async def test_an_inbox_that_others_have_filled_just_now(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """With as many writers as there may be: whoever comes then makes room, and tries again."""
    process = await world.process()
    issuer = process.doorman.issuer
    genuine, late = issuer._make_room, [True]

    async def make_room(inbox: str) -> None:
        if not late:
            await genuine(inbox)
        late.clear()

    with monkeypatch.context() as before:
        before.setattr(issuer, "_make_room", lambda _: asyncio.sleep(0))
        for _ in range(MAX_GRANTS):
            await process.doorman.writer("inbox/task/x")
    monkeypatch.setattr(issuer, "_make_room", make_room)
    sent = await leave_all([process])
    assert await left(process) == sent
    assert not late


async def test_a_writer_that_was_fenced_meanwhile(world: World) -> None:
    """By another process that made room: all who share it go on with another one."""
    process = await world.process()
    async with process.doorman.shared_writer("inbox/task/x") as writer:
        await process.doorman.release(writer)
        sent = await leave_all([process] * 5)
    assert await left(process) == sent


async def test_messages_that_nobody_here_can_take_are_looked_through_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a process that has not the task's code, and watches the inbox only to see whether the task is cancelled."""
    sender, watcher = [await world.process() for _ in range(2)]
    genuine, opened, count = watcher.log.commits, 0, 60

    async def commits(rows: Sequence[Row], *, lenient: bool = False) -> list[Commit]:
        nonlocal opened
        opened += len(rows)
        return await genuine(rows, lenient=lenient)

    async def looked() -> None:
        await watcher.log.refresh()
        await until(lambda: not watcher.host._supervisor._background)

    async def sent(number: int) -> None:
        message = Received("signal", "go", pack(number, "it"), number.to_bytes(16))
        await leave(sender.log, sender.doorman, "task/x", Sent(message))

    monkeypatch.setattr(watcher.log, "commits", commits)
    for number in range(count):
        await sent(number)
        await looked()
    one_by_one, opened = opened, 0
    for number in range(count, 2 * count):
        await sent(number)
    await looked()
    assert count <= one_by_one <= 4 * count, "or each was read again at each that came after it"
    assert count <= opened <= 4 * count, "or each of those that came at once was a reason to read all"
