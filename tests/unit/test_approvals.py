"""Approvals: what a person signed is what was shown, and counts once."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from agent_party import Agent, RejectedError, Task
from agent_party.actors.errors import StatementError
from agent_party.actors.events import Progressed, Stated
from agent_party.actors.statements import Approval, Statement, person_of, read, sign
from agent_party.eventstore.commit import SigningKey
from tests.unit.world import Process, a_world, until

SHOWN = {"report": "ravens", "pages": 3}


def agent() -> Agent:
    agent = Agent("writer")

    @agent.on("publish")
    async def publish(task: Task) -> Any:
        try:
            return await task.approval("publish", show=SHOWN)
        except RejectedError as error:
            return f"no: {error}"

    return agent


@pytest.fixture
async def process() -> AsyncIterator[Process]:
    async with a_world() as world:
        process = await world.process(agent())
        await process.ask("t", "publish")
        await process.opened("t", "publish")
        yield process


def outcome(state: Any) -> Any:
    assert state.status == "completed", state
    return msgspec.msgpack.decode(state.result)


async def heard(process: Process, revision: int) -> None:
    """Wait until the task's owner has read its inbox so far."""

    async def far() -> bool:
        return (await process.state("t")).inbox >= revision

    await until(far)


async def test_an_approval_carries_its_proof(process: Process) -> None:
    await process.decide("t", "publish", note="well done")
    found = outcome(await process.finished("t"))
    approval = msgspec.convert(found, Approval)
    assert (approval.approved, approval.person, approval.note) == (True, "ada", "well done")
    stated, key = Stated(approval.statement, approval.signature), process.log.keyring.known_person("ada").public
    statement = read(stated, process.log.identity.log_id, "t", key)
    assert msgspec.msgpack.decode(statement.shown) == SHOWN
    state = await process.state("t")
    opener = next(c for c in await process.commits("task/t") if c.hash == statement.opened)
    assert state.waits[0].revision == opener.revision


async def test_a_rejection(process: Process) -> None:
    await process.decide("t", "publish", "reject", note="not yet")
    assert outcome(await process.finished("t")) == "no: ada rejected 'publish': not yet"


async def test_a_cancellation_is_a_statement_too(process: Process) -> None:
    await process.leave("t", await process.statement("t", -1, "cancel", note="enough"))
    state = await process.finished("t")
    assert state.cancelled is not None
    assert (state.cancelled.by, state.cancelled.reason) == ("ada", "enough")


@pytest.mark.parametrize(
    "changed",
    [
        {"shown": msgspec.msgpack.encode({**SHOWN, "pages": 4})},
        {"opened": b"\x00" * 32},
        {"name": "another"},
        {"wait": 1},
        {"wait": -1},
        {"wait": 99},
        {"task": "another"},
        {"log": b"\x00" * 32},
        {"person": "eve"},
        {"person": "not a person's id"},
    ],
    ids=str,
)
async def test_a_statement_about_anything_else_is_refused(process: Process, changed: dict[str, Any]) -> None:
    stated = await process.statement("t", 0)
    statement = msgspec.msgpack.decode(stated.statement, type=Statement)
    altered = sign(msgspec.structs.replace(statement, **changed), process.log.keyring.person("ada"))
    await process.leave("t", altered)
    await heard(process, 1)
    assert (await process.state("t")).waits[0].settled is None
    await process.decide("t", "publish")
    assert outcome(await process.finished("t"))["approved"]


async def test_a_key_that_is_not_the_persons_is_refused(process: Process) -> None:
    key = SigningKey.from_seed(b"e" * 32)
    stated = await process.statement("t", 0)
    statement = msgspec.msgpack.decode(stated.statement, type=Statement)
    await process.leave("t", sign(msgspec.structs.replace(statement, key=key.public), key))
    await process.leave("t", Stated(stated.statement, bytes(64)))
    await process.leave("t", Stated(b"\xc1 no statement", bytes(64)))
    await heard(process, 3)
    assert (await process.state("t")).waits[0].settled is None


async def test_what_else_lies_in_an_inbox_is_passed_over(process: Process) -> None:
    await process.leave("t", Progressed(1))
    await process.decide("t", "publish")
    assert outcome(await process.finished("t"))["approved"]


async def test_the_first_decision_counts(process: Process) -> None:
    yes, no = await process.statement("t", 0), await process.statement("t", 0, "reject", "bob")
    await process.leave("t", yes, no, yes)
    assert outcome(await process.finished("t"))["person"] == "ada"
    before = len(await process.commits("task/t"))
    await process.leave("t", no)
    await process.leave("t", await process.statement("t", -1, "cancel"))
    await process.host.reconcile()
    assert len(await process.commits("task/t")) == before
    assert (await process.state("t")).status == "completed"


async def test_a_decision_made_while_nobody_ran_the_task() -> None:
    async with a_world() as world:
        first = await world.process(agent())
        await first.ask("t", "publish")
        await first.opened("t", "publish")
        await world.kill(first)
        person = await world.process()
        await person.decide("t", "publish")
        second = await world.process(agent())
        assert outcome(await second.finished("t"))["approved"]
        assert (await second.state("t")).inbox == 1


async def test_two_waits_are_told_apart() -> None:
    both = Agent("writer")

    @both.on("both")
    async def handler(task: Task) -> list[str]:
        return [(await task.approval("publish", show=1)).person, (await task.approval("publish", show=1)).person]

    async with a_world() as world:
        process = await world.process(both)
        await process.ask("t", "both")
        await process.opened("t", "publish")
        stated = await process.statement("t", 0)
        await process.leave("t", stated)

        async def second() -> bool:
            return len((await process.state("t")).waits) == 2

        await until(second)
        await process.leave("t", stated)
        await heard(process, 2)
        statement = msgspec.msgpack.decode(stated.statement, type=Statement)
        moved = msgspec.structs.replace(statement, wait=1)
        await process.leave("t", sign(moved, process.log.keyring.person("ada")))
        await heard(process, 3)
        assert (await process.state("t")).waits[1].settled is None, "an old approval does not open a new one"
        await process.leave("t", await process.statement("t", 1, person="bob"))
        assert outcome(await process.finished("t")) == ["ada", "bob"]


# Statements alone


def test_a_statement_that_is_none() -> None:
    with pytest.raises(StatementError, match="not a statement"):
        person_of(Stated(b"\x81", b""))
    with pytest.raises(StatementError, match="not a statement"):
        read(Stated(b"\x93\x01\x02\x03", b""), b"", "t", b"")


def test_every_flipped_bit_of_a_statement_is_noticed() -> None:
    key = SigningKey.from_seed(b"a" * 32)
    stated = sign(Statement(b"l" * 32, "t", 0, b"o" * 32, "publish", b"\xa1x", "approve", "ada", key.public, 1), key)
    read(stated, b"l" * 32, "t", key.public)
    for bit in range(len(stated.statement) * 8):
        data = bytearray(stated.statement)
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(StatementError):
            read(Stated(bytes(data), stated.signature), b"l" * 32, "t", key.public)
