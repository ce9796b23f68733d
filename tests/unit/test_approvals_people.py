"""Approvals by several people: who may decide, how many must, what each of them signs, and roles."""

from typing import Any

import msgspec
import pytest

from agent_party import Agent, Task
from agent_party.actors.errors import ConfigurationError, InputError
from agent_party.actors.packing import pack_input
from agent_party.actors.people import STREAM, GrantRole, WithdrawRole
from agent_party.actors.statements import Statement, decoded, sign
from tests.unit.approvals_kit import Order, asking, opened, refusals, role, says
from tests.unit.handlers_kit import result, world
from tests.unit.world import World, until

__all__ = ["world"]

# Several people


async def test_four_eyes(world: World) -> None:
    process = await opened(world, asking(need=2, form=Order))
    await says(process, "ada", answer={"amount": 1})
    await says(process, "ada", answer={"amount": 1})
    await says(process, "bob", answer={"amount": 2})
    reasons = [one.reason for one in await refusals(process, 2)]
    assert "ada has signed" in reasons[0]
    assert "otherwise than ada" in reasons[1]
    assert [one.person for one in (await process.state("t")).waits[0].signed] == ["ada"]
    await says(process, "bob", answer={"amount": 1})
    assert result(await process.finished("t")) == [["ada", "bob"], {"amount": 1, "why": ""}]


async def test_two_names_for_one_key_are_not_four_eyes(world: World) -> None:
    process = await opened(world, asking(need=2))
    people = process.world.keyring.folder / "people"
    process.log.keyring.person("ada")
    (people / "bob.key").write_bytes((people / "ada.key").read_bytes())
    (people / "bob.key").chmod(0o600)
    await says(process, "ada")
    await says(process, "bob")
    assert "the key of ada" in (await refusals(process, 1))[0].reason


async def test_signatures_outlive_a_crash_between_them(world: World) -> None:
    agent = asking(by=("ada", "bob", "cai"), need="all")
    process = await opened(world, agent)
    await says(process, "ada")

    async def signed() -> bool:
        return len((await process.state("t")).waits[0].signed) == 1

    await until(signed)
    await world.kill(process)
    person = await world.process()
    await says(person, "bob")
    process = await world.process(agent)
    await says(process, "ada")
    await says(process, "cai")
    assert result(await process.finished("t"))[0] == ["ada", "bob", "cai"]
    assert "ada has signed" in (await refusals(process, 1))[0].reason


async def test_one_rejection_rejects(world: World) -> None:
    process = await opened(world, asking(by=("ada", "bob"), need="all"))
    await says(process, "ada")
    await says(process, "eve", "reject")
    await says(process, "bob", "reject", note="too dark")
    assert result(await process.finished("t")) == "no: bob rejected 'publish': too dark"
    assert (await refusals(process, 1))[0].person == "eve"


async def test_the_wrong_person_changes_nothing_and_other_tasks_go_on(world: World) -> None:
    process = await opened(world, asking(by=("ada",)))
    await process.ask("u", "publish")
    await process.opened("u", "publish")
    await says(process, "eve")
    (refused,) = await refusals(process, 1)
    assert (refused.wait, refused.person, refused.revision) == (0, "eve", 1)
    assert "eve may not decide 'publish': ada may" in refused.reason
    wait = (await process.state("u")).waits[0]
    await process.leave("u", await process.statement("u", 0, terms=wait.terms))
    assert result(await process.finished("u"))[0] == ["ada"]
    assert (await process.state("t")).open == {0}


async def test_the_requester_cannot_decide_where_they_are_kept_apart(world: World) -> None:
    process = await opened(world, asking(apart_from_requester=True))
    await says(process, "ada")  # who asked
    assert "asked for the task" in (await refusals(process, 1))[0].reason
    await says(process, "bob")
    assert result(await process.finished("t"))[0] == ["bob"]


async def test_handed_on(world: World) -> None:
    process = await opened(world, asking(by=("ada",)))
    await says(process, "ada", "delegate", to="bob")
    await says(process, "ada")
    assert "handed it on to bob" in (await refusals(process, 1))[0].reason
    signed = (await process.state("t")).waits[0].signed
    assert [(one.person, one.to) for one in signed] == [("ada", "bob")]
    await says(process, "bob")
    assert result(await process.finished("t"))[0] == ["ada", "bob"]


async def test_only_an_approval_can_be_handed_on_and_only_to_a_person(world: World) -> None:
    process = await opened(world, asking(by=("ada",)))
    await says(process, "ada", "delegate")
    assert "one person's id" in (await refusals(process, 1))[0].reason


# What is signed

CHANGES: list[dict[str, Any]] = [
    {"shown": msgspec.msgpack.encode("crows")},
    {"terms": b""},
    {"terms": msgspec.msgpack.encode({"by": ["eve"]})},
    {"opened": bytes(32)},
    {"name": "other"},
    {"wait": 1},
    {"task": "u"},
    {"log": bytes(32)},
]


@pytest.mark.parametrize("changed", CHANGES, ids=str)
async def test_what_was_shown_otherwise_is_refused(world: World, changed: dict[str, Any]) -> None:
    process = await opened(world, asking(by=("ada",), expires=3_600))
    stated = await process.statement("t", 0, terms=(await process.state("t")).waits[0].terms)
    altered = msgspec.structs.replace(decoded(stated.statement), **changed)
    await process.leave("t", sign(altered, process.log.keyring.person("ada")))
    assert (await refusals(process, 1))[0].person == "ada"
    assert (await process.state("t")).waits[0].settled is None


async def test_an_answer_changed_after_signing_is_refused(world: World) -> None:
    process = await opened(world, asking(form=Order))
    wait = (await process.state("t")).waits[0]
    stated = await process.statement("t", 0, terms=wait.terms, answer=pack_input({"amount": 1}, "it"))
    forged = msgspec.structs.replace(decoded(stated.statement), answer=pack_input({"amount": 9}, "it"))
    await process.leave("t", msgspec.structs.replace(stated, statement=msgspec.msgpack.encode(forged)))
    assert "not signed by the key" in (await refusals(process, 1))[0].reason


async def test_an_approval_is_not_good_for_another_of_the_same_name(world: World) -> None:
    agent = Agent("writer")

    @agent.on("publish")
    async def publish(task: Task) -> Any:
        first = await task.approval("publish", show=1, by=("ada",))
        second = await task.approval("publish", show=1, by=("ada",))
        return first.statement != second.statement

    process = await opened(world, agent)
    stated = await process.statement("t", 0, terms=(await process.state("t")).waits[0].terms)
    await process.leave("t", stated)

    async def two() -> bool:
        return len((await process.state("t")).waits) == 2

    await until(two)
    await process.leave("t", stated)
    assert "decided already" in (await refusals(process, 1))[0].reason
    await says(process, "ada", number=1)
    assert result(await process.finished("t")) is True


def test_a_statement_of_before_there_were_terms_is_read() -> None:
    class Old(msgspec.Struct):
        log: bytes = b""
        task: str = "t"
        wait: int = 0
        opened: bytes = b""
        name: str = ""
        shown: bytes = b""
        decision: str = "approve"
        person: str = "ada"
        key: bytes = b""
        time: int = 0
        note: str = ""

    old = decoded(msgspec.msgpack.encode(Old()))
    assert isinstance(old, Statement)
    assert (old.terms, old.answer, old.to) == (b"", b"", "")


# Roles


async def test_a_role_counts_at_the_moment_of_judgement(world: World) -> None:
    process = await world.process(asking(by=("role:editor",), need=2))
    for person in ("ada", "bob", "cai"):
        await role(process, GrantRole("editor", person, "root"))
    await process.ask("t", "publish")
    await process.opened("t", "publish")
    await says(process, "ada")
    await says(process, "eve")
    assert "those who have it are ada, bob, cai" in (await refusals(process, 1))[0].reason
    await role(process, WithdrawRole("editor", "ada", "root"))
    await role(process, WithdrawRole("editor", "bob", "root"))
    await says(process, "bob")
    assert "those who have it are cai" in (await refusals(process, 2))[1].reason
    await says(process, "cai")
    assert result(await process.finished("t"))[0] == ["ada", "cai"], "what ada signed while an editor stays"


async def test_a_role_granted_by_another_process_counts_at_once(world: World) -> None:
    process, other = await world.process(asking(by=("role:editor",))), await world.process()
    await role(process, GrantRole("editor", "bob", "root"))
    await process.ask("t", "publish")
    await process.opened("t", "publish")
    await role(other, GrantRole("editor", "ada", "root"))
    await role(other, WithdrawRole("editor", "bob", "root"))
    await says(other, "bob")
    assert (await refusals(process, 1))[0].person == "bob"
    await says(other, "ada")
    assert result(await process.finished("t"))[0] == ["ada"]


async def test_an_unknown_role_fails_its_task_again_after_a_crash(world: World) -> None:
    agent, caught = Agent("writer"), list[str]()

    @agent.on("publish")
    async def publish(task: Task) -> str:
        try:
            await task.approval("publish", by=("role:editr",))
        except ConfigurationError as error:
            caught.append(str(error))
        await task.approval("then")
        return caught[-1]

    process = await world.process(agent)
    await process.ask("t", "publish")
    await process.opened("t", "then")
    await world.kill(process)
    process = await world.process()
    await role(process, GrantRole("editr", "ada", "root"))
    process = await world.process(agent)
    await says(process, "ada", number=1)
    assert "nobody ever had role editr" in result(await process.finished("t"))
    assert len(caught) > 1, "the record decides, whoever has the role by now"


async def test_roles_are_granted_and_withdrawn(world: World) -> None:
    process = await world.process()
    await role(process, GrantRole("editor", "ada", "root"))
    await role(process, GrantRole("editor", "ada", "root"))
    assert await process.doorman.roles() == {"editor": ["ada"]}
    assert len(await process.commits(STREAM)) == 1
    await role(process, WithdrawRole("editor", "ada", "root"))
    assert await process.doorman.roles() == {"editor": []}
    for command in (WithdrawRole("editor", "ada", "root"), WithdrawRole("x", "ada", "root")):
        with pytest.raises(InputError, match="does not have role"):
            await role(process, command)
    for name, person in (("Editor", "ada"), ("editor", "role:x")):
        with pytest.raises(InputError, match="lower-case"):
            await role(process, GrantRole(name, person, "root"))
