"""The `party` command: what it answers, for people and as JSON, and how it fails. Asking, tasks, agents."""

import asyncio
import io
import json
import sys
from typing import Any

import pytest
from typer.testing import CliRunner

from agent_party.actors import errors as actor_errors
from agent_party.cli import approvals, complete, output, plain
from agent_party.cli.main import app
from agent_party.eventstore import errors as store_errors
from tests.cli_kit import APP, ROOT, Cli, at_a_terminal

# The whole


def test_help_names_the_commands_and_the_exit_codes(cli: Cli) -> None:
    said = " ".join(cli.text("--help").split())
    for word in ("ask", "task", "agent", "log", "replay", "doctor", "demo", "Exit codes", "70 unexpected"):
        assert word in said
    assert cli.text("--version").startswith("party 0.")


def test_every_exit_code_is_documented() -> None:
    said = (ROOT / "docs" / "cli.md").read_text()
    for code in (*sorted({code for _, code in output.CODES} | {0, 70, 130}),):
        assert f"| {code} |" in said


def test_every_command_is_documented_with_an_example(cli: Cli) -> None:
    said = (ROOT / "docs" / "cli.md").read_text()
    groups = {"task": ["list", "show", "watch", "approve", "reject", "cancel"], "agent": ["list", "show"]}
    groups["schedule"] = ["add", "list", "remove"]
    groups["task"] += ["signal", "update", "query", "pause", "resume"]
    groups["task"] += ["fork", "diff", "export", "debug"]
    groups["projection"] = ["list", "status", "run", "rebuild", "pause", "resume", "check", "dead-letters"]
    groups["view"] = ["names", "list", "get", "watch"]
    groups["log"] = ["streams", "read", "verify", "export", "head", "root", "forget"]
    names = [f"{group} {name}" for group, found in groups.items() for name in found]
    for name in [*names, "ask", "replay", "doctor", "demo", "check-histories"]:
        assert f"party {name}" in said, name


@pytest.mark.parametrize(
    "arguments", [("nonsense",), ("task", "show"), ("task", "list", "--limit", "x"), ("--nonsense",)]
)
def test_bad_usage_is_2(cli: Cli, arguments: tuple[str, ...]) -> None:
    assert cli.run(*arguments, code=2).stdout == ""
    told = cli.json(*arguments, code=2)
    assert set(told) == {"error", "message"}


def test_options_may_stand_before_the_command(seen: tuple[Cli, str]) -> None:
    cli, _ = seen
    elsewhere = ["--state-dir", "state", "--journal", f"sqlite:///{cli.folder}/.party/log.db", "--json"]
    assert json.loads(cli.run(*elsewhere, "task", "list").stdout)[0]["capability"] == "text.write"


def test_an_unexpected_error_is_70_and_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr("agent_party.cli.session.give", broken)
    said = cli.run("doctor", code=70).stderr
    assert said.count("\n") == 1
    assert "ZeroDivisionError: a defect" in said
    assert json.loads(cli.run("doctor", "--json", code=70).stdout)["error"] == "ZeroDivisionError"
    assert "Traceback" in CliRunner().invoke(app, ["doctor", "--debug"]).stderr


def test_each_error_class_has_its_code() -> None:
    wanted: dict[type[Exception], int] = {
        actor_errors.UnknownTaskError: 3,
        actor_errors.TaskFailedError: 1,
        actor_errors.RejectedError: 1,
        actor_errors.InputError: 2,
        actor_errors.ConfigurationError: 2,
        actor_errors.SettledError: 2,
        actor_errors.DeadlineError: 5,
        actor_errors.RuntimeUnavailableError: 5,
        store_errors.LogRolledBack: 4,
        store_errors.WrongLogError: 4,
        store_errors.StoreCorruptError: 4,
        store_errors.StoreBusyError: 5,
        store_errors.KeyringPermissionsError: 5,
        store_errors.WrongKeyError: 4,
        store_errors.UnknownEventError: 2,
    }
    for cls, code in wanted.items():
        assert output.code_of(cls.__new__(cls)) == code, cls
    assert output.code_of(ValueError()) == 70


def test_the_demo_is_found_only_when_it_is_asked_for(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[bool] = []

    def demo(yes: bool = False, as_json: bool = False) -> None:
        told.append(yes)
        if not yes:
            raise actor_errors.InputError("say --yes")

    module = type(sys)("agent_party.cli.demo")
    module.demo = demo  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "agent_party.cli.demo", module)
    cli.run("demo", "--yes")
    assert "say --yes" in cli.run("demo", code=2).stderr
    cli.run("demo", "--nonsense", code=2)
    assert told == [True, False]


# Asking


def test_ask_prints_the_result(cli: Cli) -> None:
    assert cli.run("ask", "text.write", "topic=hash chains", *APP).stdout == "hash chains has 11 letters\n"


def test_the_same_request_id_is_the_same_task(cli: Cli) -> None:
    assert cli.ask() == cli.ask()
    assert len(cli.json("task", "list")) == 1
    assert cli.json("ask", "text.write", "topic=crows", "--request-id", "r1", *APP, code=2)["error"] == "IdReusedError"


def test_values_are_read_as_the_capability_declares_them(cli: Cli) -> None:
    told = cli.json("ask", "text.write", "topic=1984", "times=2", *APP)
    assert told["result"] == "1984 has 4 letters 1984 has 4 letters"
    told = cli.json("ask", "text.write", "times=2", "--input", '{"topic": "42", "times": 1}', *APP)
    assert told["result"] == "42 has 2 letters 42 has 2 letters"
    assert cli.run("ask", "text.write", "--input", "-", *APP, given='{"topic": "a"}').stdout == "a has 1 letters\n"


@pytest.mark.parametrize(
    "given", [("topic",), ("--input", "{"), ("--input", "[1]"), ("colour=red",), ("--within", "-1")]
)
def test_bad_input_is_2_and_nothing_is_recorded(cli: Cli, given: tuple[str, ...]) -> None:
    cli.run("ask", "text.write", *given, *APP, code=2)
    if (cli.folder / ".party").exists():
        assert cli.json("task", "list") == []


def test_an_app_that_cannot_be_imported_is_2(cli: Cli) -> None:
    (cli.folder / "runs_itself.py").write_text("raise RuntimeError('it runs itself')\n")
    told = cli.json("ask", "text.write", "topic=a", "--app", "runs_itself:app", code=2)
    assert "importing runs_itself fails with RuntimeError: it runs itself" in told["message"]


@pytest.mark.parametrize("found", ["nonsense", "no.such.module:x", "tests.unit.party_app:nothing", "json:loads"])
def test_an_app_that_is_not_there_is_2(cli: Cli, found: str) -> None:
    assert cli.json("ask", "text.write", "topic=a", "--app", found, code=2)["error"] == "ConfigurationError"


def test_a_task_that_fails_is_1_and_names_it(cli: Cli) -> None:
    told = cli.json("ask", "text.fail", *APP, code=1)
    assert told["error"] == "TaskFailedError"
    assert "ValueError: no such luck" in told["message"]
    shown = cli.json("task", "show", told["task"])
    assert (shown["status"], shown["failure"]["kind"]) == ("failed", "ValueError")
    assert cli.json("task", "watch", told["task"], code=1)["task"] == told["task"]


def test_code_that_has_not_joined(cli: Cli) -> None:
    told = cli.json("ask", "text.write", "topic=ravens", "--timeout", "0.05", code=5)
    assert told["error"] == "DeadlineError"
    assert "an agent with capability text.write to join" in told["message"]
    task = cli.json("task", "list")[0]["id"]
    assert cli.json("task", "show", task)["waiting_for"] == "an agent with capability text.write to join"
    assert cli.json("task", "watch", task, *APP)["result"] == "ravens has 6 letters"


def test_without_waiting_the_task_is_left_on_the_log(cli: Cli) -> None:
    told = cli.json("ask", "text.write", "topic=ravens", "--no-wait")
    assert told["status"] == "requested"
    assert cli.json("task", "watch", told["task"], *APP)["status"] == "completed"


def test_yes_signs_every_approval(cli: Cli) -> None:
    assert cli.json("ask", "text.publish", "topic=ravens", "--yes", *APP)["result"] == "ravens: no remark"


def test_a_person_at_the_terminal_sees_what_they_sign(cli: Cli) -> None:
    said = at_a_terminal(
        ["ask", "text.publish", "topic=ravens", "--app", "tests.unit.party_app:app"],
        lambda shown: b"perhaps\ny\n" if b"sign it?" in shown else b"",
    )
    assert "a text about ravens \\x1b[31m" in said
    assert "ravens: no remark" in said


# Tasks and agents


def test_tasks_are_listed_the_newest_first(cli: Cli) -> None:
    first, second = cli.ask("ravens", "r1"), cli.ask("crows", "r2")
    rows = cli.json("task", "list")
    assert [row["id"] for row in rows] == [second, first]
    assert set(rows[0]) == {
        *(
            "id",
            "capability",
            "agent",
            "status",
            "steps",
            "open",
            "created",
            "updated",
            "parent",
            "done",
            "total",
            "due",
        )
    }
    assert [row["id"] for row in cli.json("task", "list", "--limit", "1")] == [second]
    assert cli.json("task", "list", "--status", "failed") == []
    assert first in cli.text("task", "list")
    assert "no tasks" in cli.text("task", "list", "--status", "failed")


def test_task_show_tells_the_waits_with_their_times(seen: tuple[Cli, str]) -> None:
    cli, task = seen
    shown = cli.json("task", "show", task)
    assert (shown["status"], shown["result"], shown["input"]) == (
        "completed",
        "ravens has 6 letters",
        {"topic": "ravens"},
    )
    (wait,) = shown["waits"]
    assert (wait["kind"], wait["name"], wait["value"], wait["status"]) == ("step", "len", 6, "done")
    assert wait["opened"] <= wait["settled"]
    assert wait["seconds"] >= 0
    said = cli.text("task", "show", shown["id"])
    assert "ravens has 6 letters" in said
    assert "step" in said


def test_an_approval_from_another_process_is_signed_over_what_was_shown(cli: Cli) -> None:
    task = cli.open_approval()
    assert "nobody has signed yet" in cli.text("task", "show", task)
    told = cli.json("task", "approve", task, "--name", "publish", "--note", "fine", "--person", "ada")
    assert (told["decision"], told["person"], told["shown"]) == ("approve", "ada", "a text about ravens \x1b[31m")
    left = cli.json("task", "show", task)["left_in_inbox"]
    assert [(one["decision"], one["person"], one["note"]) for one in left] == [("approve", "ada", "fine")]
    assert cli.json("task", "watch", task, *APP)["result"] == "ravens: fine"
    approval = cli.json("task", "show", task)["waits"][0]["approval"]
    assert (approval["decision"], approval["person"], approval["note"]) == ("approve", "ada", "fine")
    assert (approval["shown"], approval["signature"]) == ("a text about ravens \x1b[31m", "holds")
    said = cli.text("task", "show", task)
    assert "approve by ada" in said
    assert "\x1b" not in said
    (cli.state / "people" / "ada.key").unlink()
    assert "not shown to hold" in cli.json("task", "show", task)["waits"][0]["approval"]["signature"]


def test_a_rejection_ends_the_task(cli: Cli) -> None:
    task = cli.open_approval()
    assert "signed by" in cli.text("task", "reject", task, "--note", "too long")
    told = cli.json("task", "watch", task, *APP, code=1)
    assert "rejected 'publish': too long" in told["message"]


def test_a_decision_that_nobody_asks_for_is_2(cli: Cli) -> None:
    task = cli.ask()
    for decision in ("approve", "reject", "cancel"):
        assert cli.json("task", decision, task, code=2)["error"] == "SettledError"
    assert cli.json("task", "approve", cli.open_approval(), "--name", "other", code=2)["error"] == "SettledError"


def test_a_cancelled_task(cli: Cli) -> None:
    task = cli.open_approval()
    assert cli.json("task", "cancel", task, "--reason", "enough")["decision"] == "cancel"
    assert cli.json("task", "watch", task, *APP, code=1)["error"] == "TaskCancelledError"
    assert "enough" in cli.text("task", "show", task)


@pytest.mark.parametrize("command", ["show", "watch", "approve", "reject", "cancel"])
def test_an_unknown_task_is_3(seen: tuple[Cli, str], command: str) -> None:
    cli, _ = seen
    told = cli.json("task", command, "nosuchtask", code=3)
    assert told["error"] == "UnknownTaskError"
    assert "party task list" in cli.run("task", command, "nosuchtask", code=3).stderr


def test_a_task_name_outside_the_grammar_is_2(seen: tuple[Cli, str]) -> None:
    cli, _ = seen
    assert cli.json("task", "show", "../x y", code=2)["error"] == "InputError"


def test_agents_are_listed_and_shown(seen: tuple[Cli, str]) -> None:
    cli, _ = seen
    (row,) = cli.json("agent", "list")
    assert (row["name"], row["version"], row["hosts"]) == ("writer", "1", 0)
    assert "text.write" in row["capabilities"]
    assert "writer" in cli.text("agent", "list")
    shown = cli.json("agent", "show", "writer")
    assert (shown["description"], shown["hosts"], shown["memory"]) == ("writes", {}, {})
    assert '{"topic": "string", "times": "integer"}' in cli.text("agent", "show", "writer")
    assert "party agent list" in cli.run("agent", "show", "nobody", code=3).stderr


# Parts


def test_completion_knows_tasks_agents_and_capabilities(cli: Cli) -> None:
    assert complete.tasks("") == []
    task = cli.ask()
    cli.run("task", "list")
    assert complete.tasks(task[:3]) == [task]
    assert complete.agents("") == ["writer"]
    assert complete.capabilities("text.w") == ["text.write"]
    assert complete.streams("agent/") == ["agent/writer"]


def test_what_could_steer_a_terminal_is_shown_escaped() -> None:
    assert output.safe("plain text\n\t") == "plain text\n\t"
    assert output.safe("a\x1b[2Jb\u202ec\x9b") == "a\\x1b[2Jb\\u202ec\\x9b"


def test_values_of_every_kind_have_a_plain_form() -> None:
    value = {1: float("nan"), "b": b"\x01", "s": {2, 1}, "t": (1, None), "x": 1 << 70}
    assert plain.plain(value) == {"1": "nan", "b": "01", "s": [1, 2], "t": [1, None], "x": 1 << 70}
    assert json.loads(output.line(value))["1"] == "nan"
    nested: Any = []
    for _ in range(500):
        nested = [nested]
    assert "\\u2026" in output.line(nested)
    assert plain.opened(b"\xc1") == "c1"
    assert plain.iso(0) == "1970-01-01T00:00:00.000000Z"
    assert plain.iso(1 << 63) == f"{1 << 63} µs since 1970"


def test_changes_between_plain_values() -> None:
    before, after = {"a": [1, 2], "b": 1, "c": 1}, {"a": [1, 3, 4], "b": True, "d": None}
    assert list(plain.changes(before, after)) == [
        {"path": "a[1]", "before": 2, "after": 3},
        {"path": "a[2]", "after": 4},
        {"path": "b", "before": 1, "after": True},
        {"path": "c", "before": 1},
        {"path": "d", "after": None},
    ]


@pytest.mark.parametrize(("typed", "wanted"), [(["y\n"], True), (["what\n", "No\n"], False), ([""], None)])
def test_a_question_is_asked_until_it_is_answered(typed: list[str], wanted: bool | None) -> None:
    async def read() -> str:
        return typed.pop(0)

    shown = io.StringIO()
    assert asyncio.run(approvals.yes("sign it?", output.console(shown), read)) is wanted
    assert "sign it? [y/n]" in shown.getvalue()
