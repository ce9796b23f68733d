"""Approvals from outside: a program with a handle, and the command line, while the task's process is gone or not."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import pytest

from agent_party import Party, TaskHandle
from agent_party.actors.approvals import approvals_in
from agent_party.actors.errors import InputError, SettledError, StatementError
from agent_party.actors.forms import schema_of
from agent_party.cli import approvals, filling, output
from tests.cli_kit import Cli, at_a_terminal
from tests.unit.approvals_app import Payment, cashier, loop, pay, see
from tests.unit.world import until

APP = ("--app", "tests.unit.approvals_app:cashier")


@pytest.fixture
async def party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Party]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PARTY_STATE_DIR", str(tmp_path / "state"))
    async with Party.open(agents=[cashier], runtime="local") as party:
        await party.people.grant("boss", "bob")
        yield party


async def opened(asked: Awaitable[TaskHandle[Any]]) -> TaskHandle[Any]:
    task = await asked
    async for state in task.watch(timeout=120):
        if state.open:
            return task
    raise AssertionError("it never asked for approval")


async def refused(attempt: Awaitable[None], error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        await attempt


# A program


async def test_the_signer_is_told_before_anything_is_signed(party: Party) -> None:
    task = await opened(party.ask(pay, to="eve"))
    await refused(task.approve(person="eve"), StatementError, "eve may not decide 'pay': ada or role:boss may")
    await refused(task.approve(person="ada"), InputError, "asks for an answer: amount: a whole number; sure:")
    await refused(task.approve(person="ada", answer={"amount": 0}), InputError, "amount must be at least 1")
    await refused(task.approve(person="ada", answer={"amount": 1, "x": object()}), InputError, "cannot be signed")
    await refused(task.delegate(person="ada", to="bob"), StatementError, "may decide it already")
    assert not (await party.stack.log.state("inbox/" + task.stream)).revision, "nothing of it was left"
    people = party.stack.log.keyring.folder / "people"
    assert not (people / "eve.key").exists(), "no key is made for somebody who may not decide"
    await task.approve(person="ada", answer=Payment(7))

    async def signed() -> bool:
        return len(approvals_in((await task.state()).waits[0].signed)) == 1

    await until(signed)
    await refused(task.approve(person="ada"), StatementError, "ada has signed 'pay' already")
    await refused(task.approve(person="bob", answer=Payment(8)), StatementError, "otherwise than ada did")
    await task.approve(person="bob")  # confirms what ada answered
    assert await task.result(timeout=120) == "7 to eve, True"
    await refused(task.approve(person="bob"), SettledError, "completed already")
    await refused(task.reject(person="bob"), SettledError, "completed already")


async def test_what_others_left_a_moment_ago_counts_with_it(party: Party) -> None:
    task = await opened(party.ask(pay, to="eve"))
    await task.delegate(person="ada", to="cai")
    await task.approve(person="cai", answer={"amount": 7})
    await task.approve(person="bob")
    assert await task.result(timeout=120) == "7 to eve, True"


async def test_roles_by_the_party(party: Party) -> None:
    await party.people.withdraw("boss", "bob")
    task = await opened(party.ask(pay, to="eve"))
    await refused(task.approve(person="bob"), StatementError, "those who have it are nobody")
    await party.people.grant("boss", "bob")
    assert await party.people.roles() == {"boss": ["bob"]}
    await task.reject(person="bob")
    await refused(party.people.withdraw("boss", "eve"), InputError, "eve does not have role boss")


async def test_what_changed_between_showing_and_signing_is_not_signed(party: Party) -> None:
    task = await opened(party.ask(loop, turn=1))
    shown = (await task.state()).waits[0]
    await task.approve(wait=0, shown=shown)

    async def next_turn() -> bool:
        state = await task.state()
        return state.begun == 1 and bool(state.open)

    await until(next_turn)
    await refused(task.approve(wait=0, shown=shown), SettledError, "is not open any more: look at it again")
    assert (await task.state()).begun == 1
    await task.cancel()


# The command line


def waiting(cli: Cli, capability: Any, **given: Any) -> str:
    """A task that waits for people, and whose process is gone."""

    async def ask() -> str:
        async with Party.open(agents=[cashier], runtime="local") as party:
            await party.people.grant("boss", "bob")
            return (await opened(party.ask(capability, **given))).id

    return asyncio.run(ask())


def test_people_sign_while_nobody_runs_the_task(cli: Cli) -> None:
    task = waiting(cli, pay, to="eve")
    shown = cli.json("task", "show", task)["waits"][0]
    terms = shown["terms"]
    assert (terms["by"], terms["need"], terms["signed"]) == (["ada", "role:boss"], 2, [])
    said = cli.text("task", "show", task)
    for words in (
        "may decide: ada, role:boss; needed: 2",
        "expires: 20",
        "amount: a whole number",
        "nobody has signed",
    ):
        assert words in said
    assert "--answer is not JSON" in cli.json("task", "approve", task, "--answer", "{", code=2)["message"]
    told = cli.json("task", "approve", task, "--answer", "{}", "--person", "ada", code=2)
    assert told["error"] == "InputError"
    assert "lacks 'amount'" in told["message"]
    told = cli.json("task", "approve", task, "--answer", '{"amount": 7}', "--person", "eve", code=2)
    assert told["error"] == "StatementError"
    assert cli.json("task", "delegate", task, "cai", "--person", "ada")["to"] == "cai"
    cli.run("task", "approve", task, "--answer", '{"amount": 7, "sure": false}', "--person", "cai")
    assert "in the inbox, not read yet" in cli.text("task", "show", task)
    cli.run("task", "approve", task, "--person", "bob")
    assert cli.json("task", "watch", task, *APP)["result"] == "7 to eve, False"
    wait = cli.json("task", "show", task)["waits"][0]
    assert [(one["decision"], one["person"], one["signature"]) for one in wait["statements"]] == [
        ("delegate", "ada", "holds"),
        ("approve", "cai", "holds"),
    ]
    assert wait["approval"]["person"] == "bob"
    assert wait["approval"]["answer"] == {"amount": 7, "sure": False, "why": ""}
    said = cli.text("task", "show", task)
    for words in ("delegate to cai by ada", "approve by cai", "approve by bob", "answering", "handed on by ada to cai"):
        assert words in said
    assert "task.signed" in json.dumps(cli.json("log", "read", f"task/{task}"))


def test_what_does_not_count_is_shown_with_the_task(cli: Cli) -> None:
    task = waiting(cli, see, to="eve")
    cli.run("keys", "role", "add", "boss", "cai")

    async def forge() -> None:
        from agent_party.actors.statements import Statement, sign

        async with Party.open(runtime="local") as party:
            wait = (await party.task(task).state()).waits[0]
            key = party.doorman.person("eve")[1]
            log = party.stack.log.identity.log_id
            about = (log, task, 0, wait.opened, wait.name, wait.input)
            stated = sign(Statement(*about, "approve", "eve", key.public, 0, "", wait.terms), key)
            await party.leave_in_inbox(f"task/{task}", stated)

    asyncio.run(forge())
    cli.run("task", "approve", task, "--person", "ada")
    assert cli.json("task", "watch", task, *APP)["result"] == "ada"
    (told,) = cli.json("task", "show", task)["refused"]
    assert (told["person"], told["wait"]) == ("eve", 0)
    assert "refused, eve: eve may not decide 'see'" in cli.text("task", "show", task)


def test_roles_on_the_command_line(cli: Cli) -> None:
    waiting(cli, see, to="eve")
    assert cli.json("keys", "role", "add", "editor", "ada")["has"] is True
    assert cli.json("keys", "role", "list") == {"boss": ["bob"], "editor": ["ada"]}
    assert cli.json("keys", "role", "remove", "editor", "ada")["has"] is False
    assert "editor: nobody" in cli.text("keys", "role", "list")
    assert cli.json("keys", "role", "remove", "editor", "ada", code=2)["error"] == "InputError"
    assert cli.json("keys", "role", "add", "Editor", "ada", code=2)["error"] == "InputError"


def test_the_form_is_asked_for_at_a_terminal(cli: Cli) -> None:
    task = waiting(cli, pay, to="eve")

    def answer(shown: bytes) -> bytes:
        return b"0\nx\n7\nno\n\ny\n" if b"amount (a whole number)" in shown else b""

    said = at_a_terminal(["task", "approve", task, "--person", "ada"], answer)
    for words in ("asks for: amount", "amount must be at least 1", "amount must be a whole number", "approve it?"):
        assert words in said
    assert "signed by ada" in said
    (left,) = cli.json("task", "show", task)["left_in_inbox"]
    assert left["decision"] == "approve"


FORM = {
    "type": "object",
    "properties": {"n": {"type": "integer"}, "sure": {"type": "boolean"}, "why": {"type": "string", "default": ""}},
    "required": ["n", "sure"],
}


@pytest.mark.parametrize(
    ("form", "typed", "wanted"),
    [
        (FORM, ["1\n", "yes\n", "5\n"], {"n": 1, "sure": True, "why": "5"}),
        (FORM, ["x\n", "2\n", "n\n", "\n"], {"n": 2, "sure": False}),
        (FORM, ["1\n", ""], filling.LEFT_OUT),
        (FORM, [""], filling.LEFT_OUT),
        ({"type": "array", "items": {"type": "integer"}}, ["1\n", "[1, 2]\n"], [1, 2]),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, ["null\n"], None),
        (schema_of(Payment), ["101\n", "100\n", "\n", "\n"], {"amount": 100}),
    ],
)
def test_filling_in(form: dict[str, Any], typed: list[str], wanted: Any) -> None:
    left = list(typed)

    async def read() -> str:
        return left.pop(0)

    found = asyncio.run(filling.fill_in(form, output.console(io.StringIO()), read))
    assert found == wanted
    assert left == []


def test_yes_cannot_answer_a_form(cli: Cli) -> None:
    task = waiting(cli, pay, to="eve")
    told = cli.json("task", "approve", task, "--yes", "--person", "ada", code=2)
    assert "asks for an answer" in told["message"]


async def test_a_desk_says_what_was_not_signed(party: Party) -> None:
    task = await opened(party.ask(pay, to="eve"))
    shown = io.StringIO()
    desk = approvals.Desk(task, output.console(shown), approve=True, ask=False, person="ada")
    async with asyncio.TaskGroup() as group:
        desk.look(await task.state(), group)
    assert "not signed: approval 'pay' asks for an answer" in shown.getvalue()
    typed = ["y\n", "3\n", "\n", "\n"]

    async def read() -> str:
        return typed.pop(0)

    desk = approvals.Desk(task, output.console(shown), approve=False, ask=True, person="ada", read=read)
    async with asyncio.TaskGroup() as group:
        desk.look(await task.state(), group)
    await task.approve(person="bob")
    assert await task.result(timeout=120) == "3 to eve, True"
