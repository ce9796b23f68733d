"""`party log`, `replay` and `doctor`: what is shown and proved, and what a log that is not right comes to."""

import asyncio
import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from agent_party import Party
from agent_party.cli import checks
from tests.cli_kit import APP, Cli
from tests.unit import party_app

# The log


def test_streams_and_their_events(seen: tuple[Cli, str]) -> None:
    cli, task = seen
    rows = cli.json("log", "streams", "--prefix", "task/")
    last = cli.json("log", "read", f"task/{task}")[-1]["revision"]
    assert rows == [{"stream": f"task/{task}", "revision": last, "slice": rows[0]["slice"]}]
    assert len(cli.json("log", "streams", "--limit", "2")) == 2
    names = [row["stream"] for row in cli.json("log", "streams")]
    assert cli.json("log", "streams", "--after", names[-2])[0]["stream"] == names[-1]
    events = cli.json("log", "read", f"task/{task}")
    assert events[0]["type"] == "task.requested"
    assert events[0]["data"]["input"] == {"topic": "ravens"}
    assert events[0]["time"].endswith("Z")
    assert {event["revision"] for event in cli.json("log", "read", f"task/{task}", "--from", "2", "--to", "2")} == {2}
    assert cli.json("log", "read", "keys/0")[0]["type"] == "certify"
    assert "grant" in {event["type"] for event in cli.json("log", "read", f"task/{task}", "--control")}
    assert "task.completed" in cli.text("log", "read", f"task/{task}")


def test_slices_and_where_they_lie(cli: Cli) -> None:
    cli.ask()
    rows = cli.json("log", "slices")
    assert [row["slice"] for row in rows] == list(range(16))
    assert {(row["lane"], row["sealed"]) for row in rows} == {(0, False)}
    assert cli.json("log", "slices", "--move", "3", "--to", "0") == rows, "it is there already"
    assert "16 slices and 1 lanes" in cli.json("log", "slices", "--move", "3", "--to", "1", code=2)["message"]
    assert cli.json("log", "slices", "--move", "3", code=2)["error"] == "InputError"
    assert "sealed" not in cli.text("log", "slices")


@pytest.mark.parametrize("arguments", [("log", "read"), ("log", "head"), ("replay",), ("log", "export", "out.party")])
@pytest.mark.parametrize("stream", ["task/nosuchtask", "nonsense", "keys/99"])
def test_an_unknown_stream_is_3(seen: tuple[Cli, str], arguments: tuple[str, ...], stream: str) -> None:
    cli, _ = seen
    assert cli.json(*arguments, stream, code=3)["error"] == "NotFoundError"
    assert not (cli.folder / "out.party").exists()


def test_an_event_of_unknown_code_is_opaque(cli: Cli) -> None:
    count(cli, 5)
    (event,) = cli.json("log", "read", "tally/one")
    assert event["type"] == "tally.counted"
    assert "unknown to this program" in event["opaque"]
    assert cli.json("log", "verify")["ok"]
    assert cli.json("replay", "tally/one")["state"] is None
    assert "name its Decider classes by --app" in cli.text("replay", "tally/one")


def count(cli: Cli, *numbers: int) -> None:
    """Have the tally count."""

    async def send() -> None:
        async with Party.open(runtime="local") as party:
            for number in numbers:
                await party.entity(party_app.Tally, "one").send(number)

    asyncio.run(send())


def test_head_and_root(seen: tuple[Cli, str]) -> None:
    cli, task = seen
    head = cli.json("log", "head")
    assert head["size"] == sum(part["size"] for part in head["slices"]) > 16
    assert head["remembered"]["size"] == head["size"]
    assert "remembered checkpoint" in cli.text("log", "head")
    one = cli.json("log", "head", f"task/{task}")
    last = cli.json("log", "read", f"task/{task}")[-1]["revision"]
    assert (one["revision"], len(one["head"]), one["grants"][0]["role"]) == (last, 64, "owner")
    root = cli.json("log", "root")
    assert root["log"] == head["log"]
    assert root["root"] in cli.text("log", "root")


def test_issuing_keys_are_rotated_and_revoked(cli: Cli) -> None:
    cli.ask()
    (first,) = cli.json("keys", "list")
    assert (first["slices"], first["in_use"]) == (16, True)
    second = cli.json("keys", "rotate")["key"]
    assert [row["in_use"] for row in cli.json("keys", "list")] == [False, True]
    assert cli.json("keys", "revoke", first["key"]) == {"revoked": first["key"]}
    assert [row["key"] for row in cli.json("keys", "list")] == [second]
    assert cli.json("keys", "revoke", second) == {"revoked": second}
    (third,) = cli.json("keys", "list")
    assert (third["in_use"], third["key"] not in (first["key"], second)) == (True, True)
    assert cli.json("keys", "revoke", first["key"], code=3)["error"] == "NotFoundError"
    assert cli.json("log", "verify")["finding"] == ""
    cli.ask()


def test_an_export_is_checked_by_the_program_and_by_the_file_alone(cli: Cli) -> None:
    cli.ask()
    told = cli.json("log", "export", "out.party")
    assert told["bytes"] == (cli.folder / "out.party").stat().st_size
    assert told["root"] in told["check"]
    checked = cli.json("log", "verify", "--file", "out.party", "--root", told["root"])
    assert (checked["ok"], checked["finding"], checked["log"]) == (True, "", told["log"])
    assert any("not shown" in proof for proof in checked["proved"])
    assert "holds" in cli.text("log", "verify", "--file", "out.party")
    alone = [sys.executable, *told["check"].split()[1:]]
    assert json.loads(subprocess.run(alone, check=True, capture_output=True, cwd=cli.folder).stdout)["finding"] == ""
    assert cli.json("log", "export", "out.party", code=2)["error"] == "ConfigurationError"
    cli.run("log", "export", "out.party", "agent/writer", "--force")
    assert cli.json("log", "verify", "--file", "out.party")["streams"] == 2
    cli.run("log", "export", "no/such/folder/out.party", code=2)


def test_an_export_that_does_not_hold_is_1(cli: Cli) -> None:
    cli.ask()
    cli.run("log", "export", "out.party")
    bad = bytearray((cli.folder / "out.party").read_bytes())
    bad[len(bad) // 2] ^= 1
    (cli.folder / "out.party").write_bytes(bad)
    told = cli.json("log", "verify", "--file", "out.party", code=1)
    assert not told["ok"]
    assert told["finding"]
    assert "does NOT hold" in cli.text("log", "verify", "--file", "out.party", code=1)
    assert cli.json("log", "verify", "--file", "out.party", "--root", "00" * 32, code=1)["finding"] == "wrong-root"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--file", "gone.party"), 3),
        (("--file", "out.party", "--root", "xyz"), 2),
        (("--root", "00" * 32), 2),
        (("--file", "out.party", "--copy", ".party"), 2),
        (("--copy", "gone"), 3),
    ],
)
def test_verify_needs_something_to_check(seen: tuple[Cli, str], arguments: tuple[str, ...], code: int) -> None:
    cli, _ = seen
    cli.run("log", "verify", *arguments, code=code)


def test_verify_says_what_it_proved(seen: tuple[Cli, str]) -> None:
    cli, _ = seen
    told = cli.json("log", "verify")
    assert told["ok"]
    assert told["checkpoint"]["status"] == "matches"
    assert any("complete up to the remembered checkpoint" in proof for proof in told["proved"])
    assert "not shown: when anything was written" in cli.text("log", "verify")


def test_verify_cannot_tell_without_a_checkpoint(cli: Cli) -> None:
    cli.ask()
    for kept in cli.state.glob("logs/*/checkpoint"):
        kept.unlink()
    assert cli.json("log", "verify")["checkpoint"]["status"] == "cannot tell"


def test_a_copy_is_checked_and_left_as_it_is(cli: Cli) -> None:
    task = cli.ask()
    copied = shutil.copytree(cli.folder / ".party", cli.folder / "copy")
    flip(copied / "log.db", f"task/{task}")
    before = sorted((path.name, path.read_bytes()) for path in copied.glob("log.db*"))
    told = cli.json("log", "verify", "--copy", "copy", code=1)
    assert (told["ok"], told["at"]["stream"]) == (False, f"task/{task}")
    assert "finding" in cli.text("log", "verify", "--copy", "copy/log.db", code=1)
    assert sorted((path.name, path.read_bytes()) for path in copied.glob("log.db*")) == before
    assert cli.json("log", "verify")["ok"]


def flip(path: Path, stream: str) -> None:
    """Flip one bit in the body of the last record of a stream."""
    with sqlite3.connect(path) as db:
        rows = db.execute("SELECT place, record FROM tape ORDER BY place DESC").fetchall()
        place, record = next((place, bytearray(raw)) for place, raw in rows if stream.encode() in raw)
        record[-1] ^= 1
        db.execute("UPDATE tape SET record = ? WHERE place = ?", (bytes(record), place))
    db.close()


def test_a_damaged_log_is_4_and_verification_is_1(cli: Cli) -> None:
    task = cli.ask()
    flip(cli.folder / ".party" / "log.db", f"task/{task}")
    assert cli.json("log", "verify", code=1)["at"]["stream"] == f"task/{task}"
    assert cli.json("log", "read", f"task/{task}", code=4)["error"] == "CorruptLogError"
    assert "party log verify" in cli.run("task", "show", task, code=4).stderr


def test_a_log_that_was_rolled_back_is_4_until_it_is_accepted(cli: Cli) -> None:
    cli.ask("ravens", "r1")
    old = shutil.copytree(cli.folder / ".party", cli.folder / "old")
    cli.ask("crows", "r2")
    shutil.rmtree(cli.folder / ".party")
    old.rename(cli.folder / ".party")
    assert cli.json("task", "list", code=4)["error"] == "LogRolledBack"
    told = cli.json("log", "verify", code=1)
    assert (told["ok"], told["finding"], told["checkpoint"]["status"]) == (False, "", "rolled-back")
    assert "rolled-back" in cli.text("log", "verify", code=1)
    assert cli.json("doctor", code=1)["ok"] is False
    forgotten = cli.json("log", "forget", "--yes")
    assert Path(forgotten["set_aside"]).name == "checkpoint.forgotten-1"
    assert len(cli.json("task", "list")) == 1


def test_a_log_that_was_emptied_is_4_until_it_is_forgotten(cli: Cli) -> None:
    cli.ask()
    shutil.rmtree(cli.folder / ".party")
    assert cli.json("log", "verify", code=1)["checkpoint"]["status"] == "rolled-back"
    assert not (cli.folder / ".party").exists()
    told = cli.json("task", "list", code=4)
    assert told["error"] == "LogRolledBack"
    assert "party log forget" in told["message"]
    assert cli.json("log", "forget", code=2)["error"] == "InputError"
    address = f"sqlite:///{cli.folder}/.party/log.db"
    assert cli.json("log", "forget", address, "--yes")["set_aside"] is None
    assert cli.json("task", "list", code=3)["error"] == "NotFoundError"
    cli.ask()
    assert cli.json("log", "forget", "sqlite:///elsewhere/log.db", "--yes", code=3)["error"] == "NotFoundError"


def test_the_log_of_another_party_is_4(cli: Cli) -> None:
    cli.ask()
    other = ("--state-dir", "other-state")
    assert cli.json("task", "list", *other, code=4)["error"] == "WrongLogError"
    assert cli.json("log", "verify", *other, code=4)["error"] == "WrongLogError"
    there = f"sqlite:///{cli.folder}/there/log.db"
    cli.run("ask", "text.write", "topic=a", "--journal", there, *APP)
    shutil.copytree(cli.folder / "there", cli.folder / ".party", dirs_exist_ok=True)
    assert cli.json("task", "list", code=4)["error"] == "WrongLogError"
    assert cli.json("log", "verify", code=1)["finding"] in ("wrong-log", "wrong-slice")


@pytest.mark.parametrize(
    "arguments",
    [
        *(("task", "list"), ("task", "show", "x"), ("agent", "list"), ("agent", "show", "x"), ("log", "streams")),
        *(("log", "read", "task/x"), ("log", "verify"), ("log", "export", "f"), ("log", "head"), ("log", "root")),
        *(("log", "forget", "--yes"), ("replay", "task/x"), ("task", "watch", "x"), ("task", "approve", "x")),
    ],
)
def test_where_there_is_no_log_it_is_3_and_none_is_made(cli: Cli, arguments: tuple[str, ...]) -> None:
    assert cli.json(*arguments, code=3)["error"] == "NotFoundError"
    assert not (cli.folder / ".party").exists()


def test_a_journal_of_an_unknown_kind_is_2(cli: Cli) -> None:
    assert cli.json("task", "list", "--journal", "mongodb://x/y", code=2)["error"] == "ConfigurationError"


# Replay


def test_replay_shows_state_events_and_difference(seen: tuple[Cli, str]) -> None:
    cli, task = seen
    last = cli.json("replay", f"task/{task}")
    newest = cli.json("log", "read", f"task/{task}")[-1]["revision"]
    assert (last["revision"], last["last"], last["state"]["status"]) == (newest, newest, "completed")
    assert last["state"]["result"] == "ravens has 6 letters"
    assert {"path": "status", "before": "running", "after": "completed"} in last["diff"]
    first = cli.json("replay", f"task/{task}", "--at", "1")
    assert first["state"]["status"] == "requested"
    assert {"path": "status", "before": "", "after": "requested"} in first["diff"]
    said = cli.text("replay", f"task/{task}")
    assert 'status: "running" → "completed"' in said
    assert cli.json("replay", "agent/writer", "--at", "1")["state"]["registered"]["version"] == "1"
    assert cli.json("replay", f"task/{task}", "--at", str(newest + 1), code=3)["error"] == "NotFoundError"


def test_replay_folds_an_entity_with_its_decider(cli: Cli) -> None:
    count(cli, 5, 7)
    for found in ("app", "deciders"):
        told = cli.json("replay", "tally/one", "--app", f"tests.unit.party_app:{found}")
        assert (told["state"], told["diff"]) == (12, [{"path": "", "before": 5, "after": 12}])
    (cli.folder / "party.toml").write_text('app = "tests.unit.party_app:deciders"\n')
    assert cli.json("replay", "tally/one", "--at", "1")["state"] == 5


# Doctor


def test_doctor_finds_everything_fine(cli: Cli) -> None:
    before = cli.json("doctor")
    assert {check["check"]: check["status"] for check in before["checks"]}["log"] == "note"
    cli.ask()
    told = cli.json("doctor", *APP)
    assert told["ok"]
    found = {check["check"]: check for check in told["checks"]}
    assert set(found) >= {"python", "settings", "code", "disk", "journal", "keyring", "log", "index", "checkpoint"}
    assert set(found) >= {"keys.db", "views", "blobs", "runtime", "extras"}
    assert set(told["checks"][0]) == {"check", "status", "detail", "advice"}
    assert "all fine" in cli.text("doctor")


def test_doctor_finds_keys_that_others_may_read(cli: Cli) -> None:
    cli.ask()
    (key,) = cli.state.glob("people/*.key")
    key.chmod(0o644)
    assert f"chmod 600 {key}" in cli.text("doctor", code=1)


def test_doctor_finds_a_locked_log_a_missing_ignore_file_and_a_bad_setting(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.ask()
    (cli.folder / ".party" / ".gitignore").unlink()
    assert ".gitignore" in cli.text("doctor", code=1)
    monkeypatch.setenv("PARTY_HOSTS", "many")
    told = cli.json("doctor", code=1)
    assert [check["check"] for check in told["checks"] if check["status"] == "problem"] == ["settings"]


def test_single_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks.python((3, 10, 2)).status == "problem"
    mounts = tmp_path / "mounts"
    mounts.write_text(f"disk / ext4 rw 0 0\nserver:/x {tmp_path} nfs4 rw 0 0\n")
    assert checks.file_system(tmp_path / "a" / "b", mounts) == "nfs4"
    assert checks.file_system(Path("/"), mounts) == "ext4"
    assert checks.file_system(Path("/"), tmp_path / "gone") == ""
    from agent_party.cluster.settings import Settings

    monkeypatch.setattr(checks, "_version", lambda name: "")
    (finding,) = checks.runtime(Settings(journal="sqlite:////x", runtime="ray"))
    assert (finding.status, finding.advice) == ("problem", "pip install 'agent-party-runtime[ray]'")
