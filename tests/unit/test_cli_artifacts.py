"""`party artifact`: what people put and tasks have kept, into files."""

import asyncio
from pathlib import Path

import pytest

from agent_party import Agent, Party, Task
from agent_party.eventstore import parts
from tests.cli_kit import Cli


@pytest.fixture
def kept(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> tuple[Cli, str]:
    """A task that has kept a page, and a file in parts, twice."""
    monkeypatch.setattr(parts, "PART", 1_000)
    path = cli.folder / "weights"
    keeper = Agent("keeper", version="1")

    @keeper.on("files.keep")
    async def keep(task: Task) -> None:
        await task.artifact("page", "words")
        for content in (b"old", bytes(2_500)):
            await task.step(path.write_bytes, content)
            await task.artifact("weights", path)

    async def ask() -> str:
        async with Party.open(agents=[keeper], runtime="local") as party:
            task = await party.ask(keep)
            await task.result(120)
            return task.id

    return cli, asyncio.run(ask())


def test_list_and_get(kept: tuple[Cli, str]) -> None:
    cli, task = kept
    rows = cli.json("artifact", "list", task)
    assert [(row["name"], row["size"], row["parts"]) for row in rows] == [
        ("page", 5, 0),
        ("weights", 3, 1),
        ("weights", 2_500, 3),
    ]
    told = cli.json("artifact", "get", task, "weights", "-o", "out")
    assert told["size"] == 2_500
    assert Path("out").read_bytes() == bytes(2_500)
    assert Path("out").stat().st_mode & 0o077 == 0
    assert "out: 5 bytes" not in cli.text("artifact", "list", task)


def test_what_is_there_already_is_left(kept: tuple[Cli, str]) -> None:
    cli, task = kept
    Path("out").write_text("mine")
    assert "is there already" in cli.json("artifact", "get", task, "page", "-o", "out", code=2)["message"]
    assert Path("out").read_text() == "mine"
    assert "cannot be written" in cli.json("artifact", "get", task, "page", "-o", "no/where", code=2)["message"]


def test_what_is_not_there(kept: tuple[Cli, str]) -> None:
    cli, task = kept
    assert "artifact list" in cli.json("artifact", "get", task, "none", "-o", "out", code=3)["message"]
    cli.json("artifact", "list", "0000000000000000", code=3)
    assert not Path("out").exists()


def test_half_of_it_is_never_there(kept: tuple[Cli, str]) -> None:
    cli, task = kept
    blob = cli.json("artifact", "list", task)[2]["blob"]
    listed = (cli.folder / ".party" / "blobs" / blob[:2] / blob[2:]).read_bytes()
    found = parts.parsed(listed)
    assert found
    last = found.parts[-1].blob.hex()
    (cli.folder / ".party" / "blobs" / last[:2] / last[2:]).unlink()
    assert last in cli.json("artifact", "get", task, "weights", "-o", "out", code=4)["message"]
    assert [path.name for path in cli.folder.iterdir() if "out" in path.name] == []


def test_put_and_get(cli: Cli) -> None:
    Path("report.txt").write_text("words")
    made = cli.json("artifact", "put", "report.txt", "--person", "ada")
    assert (made["name"], made["size"], made["person"], made["trouble"]) == ("report.txt", 5, "ada", "")
    assert [row["id"] for row in cli.json("artifact", "list")] == [made["id"]]
    assert f"{made['id']}  report.txt  5 bytes  by ada" in cli.text("artifact", "list", "--limit", "1")
    told = cli.json("artifact", "get", made["id"], "-o", "back.txt")
    assert told == {"id": made["id"], "name": "report.txt", "size": 5, "file": "back.txt"}
    assert Path("back.txt").read_text() == "words"
    why = cli.json("graph", "why", made["blob"])
    assert [(edge["kind"], edge["source"]) for edge in why["chain"]] == [("put", "person/ada")]
    again = [cli.json("artifact", "put", "report.txt", "--name", "x", "--request-id", "r")["id"] for _ in range(2)]
    assert again[0] == again[1]
    Path("report.txt").write_text("others")
    assert (
        "another request"
        in cli.json("artifact", "put", "report.txt", "--name", "x", "--request-id", "r", code=2)["message"]
    )


def test_a_task_is_given_it(cli: Cli) -> None:
    Path("report.txt").write_text("words")
    made = cli.json("artifact", "put", "report.txt")
    app = ("--app", "tests.unit.test_artifacts:reader")
    told = cli.json("ask", "files.read", "--artifact", f"file={made['id']}", *app)
    assert told["result"] == 5
    assert (
        "kept nothing" in cli.json("ask", "files.read", "--artifact", f"file={told['task']}", *app, code=2)["message"]
    )
    cli.json("ask", "files.read", "--artifact", "file=0000000000000000", *app, code=3)
    assert "write key=value" in cli.json("ask", "files.read", "--artifact", made["id"], *app, code=2)["message"]


def test_what_cannot_be_put(cli: Cli) -> None:
    for file, said in (("none", "No such file"), (".", "cannot name an artifact")):
        assert said in cli.json("artifact", "put", file, code=2)["message"]
    assert "is no file" in cli.json("artifact", "put", ".", "--name", "x", code=2)["message"]
    assert cli.json("artifact", "list") == []
    assert "nobody has put anything" in cli.text("artifact", "list")
