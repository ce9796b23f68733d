"""A task taken from its log in a file: checked, gone over elsewhere with nothing called, and forked there."""

import asyncio
import json
import stat
from pathlib import Path

import pytest

from agent_party import Party
from agent_party.actors.bundle import MAGIC, Bundle
from agent_party.actors.errors import InputError
from agent_party.eventstore.errors import CorruptLogError
from agent_party.timetravel import debug
from tests.cli_kit import Cli
from tests.unit import fork_app
from tests.unit.fork_app import done

OLD = ("--app", "tests.unit.fork_app:old")
NEW = ("--app", "tests.unit.fork_app:new")
OTHER = ("--app", "tests.unit.fork_app:other")
GONE = ("--app", "tests.unit.fork_app:gone")


@pytest.fixture
def failed(cli: Cli) -> str:
    """A task that failed, and nothing more of its effects counted."""
    told = cli.json("ask", "text.write", "topic=ravens", *OLD, code=1)
    done.clear()
    return str(told["task"])


@pytest.fixture
def elsewhere(cli: Cli, failed: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another folder, with another keyring, and the exported file in it."""
    told = cli.json("task", "export", failed, "-o", "failed.party", "--team")
    assert "readable payloads" in told["warning"]
    folder = tmp_path_factory.mktemp("laptop")
    file = folder / "histories" / "failed.party"
    file.parent.mkdir()
    (cli.folder / "failed.party").rename(file)
    monkeypatch.setenv("PARTY_STATE_DIR", str(folder / "state"))
    monkeypatch.chdir(folder)
    return file


def test_a_file_is_for_its_owner_and_is_not_written_over(cli: Cli, failed: str) -> None:
    cli.json("task", "export", failed, "-o", "out.party")
    path = cli.folder / "out.party"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    assert "is there already" in cli.json("task", "export", failed, "-o", "out.party", code=2)["message"]
    assert path.read_bytes() == before
    assert cli.json("task", "export", "nobody", "-o", "x.party", code=3)["error"] == "UnknownTaskError"


def test_a_failure_is_gone_over_with_nothing_called_and_nothing_written(cli: Cli, elsewhere: Path) -> None:
    told = cli.json("task", "debug", str(elsewhere), *OLD)
    assert not done
    assert [path.name for path in elsewhere.parent.parent.iterdir()] == ["histories"]
    assert told["error"]["kind"] == "ZeroDivisionError"
    trace = "\n".join(told["error"]["traceback"])
    assert "fork_app.py" in trace
    assert "letters = 6" in trace
    assert (told["reached"], told["differs"], [wait["name"] for wait in told["waits"]]) == (2, None, ["count", "facts"])
    text = cli.text("task", "debug", str(elsewhere), *OLD)
    assert "is it yours?" in text
    assert "ZeroDivisionError" in text
    root = told["root"]
    assert cli.json("task", "debug", str(elsewhere), *OLD, "--root", root)["root_checked"] is True
    assert cli.json("task", "debug", str(elsewhere), *OLD, "--root", "00" * 32, code=4)["error"] == "CorruptLogError"


def test_it_is_gone_over_to_a_revision_or_a_wait(cli: Cli, elsewhere: Path) -> None:
    told = cli.json("task", "debug", str(elsewhere), *OLD, "--wait", "1")
    assert (told["reached"], told["ended"], told["waits"][1]["open"]) == (2, False, True)
    assert cli.json("task", "debug", str(elsewhere), *OLD, "--at", "1")["ended"] is False
    assert "has no wait 9" in cli.json("task", "debug", str(elsewhere), *OLD, "--wait", "9", code=2)["message"]
    assert "has no revision 99" in cli.json("task", "debug", str(elsewhere), *OLD, "--at", "99", code=2)["message"]


def test_where_code_and_record_differ_is_told_by_number_and_name(cli: Cli, elsewhere: Path) -> None:
    told = cli.json("task", "debug", str(elsewhere), *OTHER, code=1)
    assert told["wait"] == 1
    assert "wait 1 is recorded as child 'facts', and the handler now asks for step 'measure'" in told["differs"]
    checked = cli.json("check-histories", "histories", *OTHER, code=1)
    row = next(row for row in checked["histories"] if row["task"] == told["task"])
    assert (row["fits"], row["wait"], row["kind"], row["name"]) == (False, 1, "child", "facts")
    assert cli.json("check-histories", "histories", *NEW)["differ"] == 0
    gone = cli.json("check-histories", "histories", *GONE, code=1)
    assert any("with capability text.write to join" in row["why"] for row in gone["histories"])
    assert not done


def test_a_fork_from_the_file_names_its_parent_and_finishes_here(cli: Cli, elsewhere: Path) -> None:
    bundle = Bundle.read(elsewhere)
    told = cli.json("task", "fork", str(elsewhere), "--input", '{"by": 2}', *OLD)
    assert told["result"] == "ravens: 6/2, RAVENS"
    assert dict(done) == {}
    assert told["log"] == bundle.log_id.hex()
    commits = asyncio.run(bundle.commits(f"task/{bundle.task}"))
    assert told["commit"] == commits[told["revision"] - 1].hash.hex()
    assert cli.json("log", "root")["log"] != told["log"]
    early = cli.json("task", "fork", f"{elsewhere}@1", "--input", '{"by": 3}', *OLD)
    assert early["result"] == "ravens: 6/3, RAVENS"
    assert dict(done) == {"count": 1, "find": 1}


def test_a_team_is_forked_from_the_file(cli: Cli, elsewhere: Path) -> None:
    told = cli.json("task", "fork", str(elsewhere), "--team", "--input", '{"by": 2}', *OLD)
    assert told["result"] == "ravens: 6/2, RAVENS"
    assert len(told["members"]) == 2
    assert not done


def test_forks_and_differences_on_one_log(cli: Cli, failed: str) -> None:
    told = cli.json("task", "fork", failed, "--input", '{"by": 2}', "--request-id", "f1", *OLD)
    again = cli.json("task", "fork", failed, "--input", '{"by": 2}', "--request-id", "f1", *OLD)
    assert (told["task"], told["result"]) == (again["task"], "ravens: 6/2, RAVENS")
    diff = cli.json("task", "diff", failed, told["task"])
    assert [row["how"] for row in diff["waits"]] == ["same", "same"]
    assert {change["path"] for change in diff["state"]} >= {"input.by", "ended"}
    half = cli.json("task", "diff", f"{failed}@2", failed)
    assert half["waits"][-1]["how"] in ("only other", "other outcome")
    assert "only other" in cli.text("task", "diff", f"{failed}@1", failed)
    for place, code in ((f"{failed}@99", 2), ("nobody", 3), (f"{failed}@x", 2)):
        cli.json("task", "fork", place, code=code)
    cli.json("task", "fork", failed, "--model", "main", code=2)
    cli.json("task", "fork", failed, "--input", "[1]", code=2)
    assert cli.json("replay", f"task/{told['task']}", "--at", "1")["state"]["forked"]["task"] == failed


def test_a_file_that_was_altered_is_not_believed(elsewhere: Path, tmp_path: Path) -> None:
    data = elsewhere.read_bytes()
    for place in range(len(MAGIC) + 40, 2_000, 97):
        changed = tmp_path / "changed"
        changed.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises((CorruptLogError, InputError)):
            Bundle.read(changed)
    with pytest.raises(InputError, match="no bundle"):
        Bundle.read(Path(__file__))


def test_in_python_it_is_there_for_a_debugger(elsewhere: Path) -> None:
    told = debug(elsewhere, [fork_app.old])
    assert told.error is not None
    frame = told.error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    assert frame is not None
    assert frame.tb_frame.f_locals["letters"] == 6
    assert not done


def test_a_query_is_answered_by_a_task_that_has_finished(cli: Cli) -> None:
    async def ask() -> object:
        async with Party.open(agents=[fork_app.old], runtime="local") as party:
            task = await party.ask(fork_app.write, topic="owls", by=2)
            assert await task.result() == "owls: 4/2, OWLS"
            done.clear()
            return await task.query("letters")

    assert asyncio.run(ask()) == 4
    assert not done
    assert json.dumps(cli.json("task", "list")[0]["status"]) == '"completed"'
