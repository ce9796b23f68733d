"""`party.artifacts`: what people put is signed, seen in the graph, read by tasks; what goes wrong leaves nothing."""

import asyncio
import os
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import msgspec
import pytest

from agent_party import Agent, Party, Task
from agent_party import artifacts as module
from agent_party.actors.errors import InputError
from agent_party.actors.events import Stated
from agent_party.actors.shelf import ArtifactPut
from agent_party.actors.statements import Statement, sign
from agent_party.artifacts import unchanging
from agent_party.eventstore import parts
from agent_party.eventstore.artifacts import Artifact
from agent_party.eventstore.errors import BlobError, IdReusedError, StoreError
from agent_party.eventstore.sweeping import named_blobs
from tests.cli_kit import Cli

reader = Agent("reader", version="1")


@reader.on("files.read")
async def weigh(task: Task, file: Artifact) -> int:
    """How long a file is that a person put."""
    return sum([len(piece) async for piece in task.pieces(file)])


@pytest.fixture
async def party(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Party]:
    monkeypatch.setattr(parts, "PART", 1_000)
    async with Party.open(agents=[reader], runtime="local", person="ada") as opened:
        yield opened


async def streams(party: Party) -> list[str]:
    await party.stack.log.refresh()
    return party.stack.log.streams("artifact/")


async def test_put_list_get(party: Party, cli: Cli) -> None:
    path = cli.folder / "weights"
    path.write_bytes(content := os.urandom(2_500))
    made = await party.artifacts.put("weights.bin", path)
    page = await party.artifacts.put("page", "wörds", person="bob")
    assert (made.person, made.artifact.size, made.artifact.parts, made.trouble) == ("ada", 2_500, 3, "")
    assert await party.artifacts.list() == sorted([made, page])
    assert await party.artifacts.list(after=min(made, page).source) == [max(made, page)]
    assert len(await party.artifacts.list(limit=1)) == 1
    assert await party.artifacts.get(page.artifact) == "wörds".encode()
    assert b"".join([piece async for piece in party.artifacts.pieces(made.artifact)]) == content
    assert await party.artifacts.find(made.source) == made
    with pytest.raises(InputError, match="has kept nothing named"):
        await party.artifacts.find(made.source, "other")
    assert content[:100] not in b"".join(
        file.read_bytes() for file in (cli.folder / ".party").rglob("*") if file.is_file()
    )


async def test_it_leads_to_the_person(party: Party) -> None:
    made = await party.artifacts.put("page", b"words")
    task = await party.ask(weigh, file=made.artifact)
    assert await task.result(120) == 5
    node = f"artifact/{made.artifact.blob.hex()}"
    why = await party.graph.why(node)
    assert [(e.kind, str(e.source), e.made.stream) for e in why.chain] == [
        ("put", "person/ada", f"artifact/{made.source}")
    ]
    assert why.complete
    reached = {str(one.ref) for one in (await party.graph.blast(node)).reached}
    assert {f"task/{task.id}", "agent/reader"} <= reached
    assert await party.artifacts.list(task.id) == []


async def test_the_same_request_is_the_same_artifact(party: Party) -> None:
    made = await party.artifacts.put("page", b"words", request_id="r1")
    assert await party.artifacts.put("page", b"words", request_id="r1") == made
    for name, content in (("page", b"other"), ("other", b"words")):
        with pytest.raises(IdReusedError):
            await party.artifacts.put(name, content, request_id="r1")
    both = await asyncio.gather(*(party.artifacts.put("two", b"at once", request_id="r2") for _ in range(4)))
    assert len(set(both)) == 1
    assert len(await streams(party)) == 2


async def test_a_signature_that_does_not_hold_is_told(party: Party, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of somebody else's key, or over something else: in the list, and refused where a person wants the file."""

    def forged(statement: Statement, key: object) -> Stated:
        return sign(statement, party.doorman.person("mallory")[1])

    party.doorman.person("ada")
    monkeypatch.setattr(module, "sign", forged)
    made = await party.artifacts.put("page", b"words")
    assert "not signed by the key that it names" in made.trouble
    assert [one.trouble for one in await party.artifacts.list()] == [made.trouble]


def test_what_is_signed_is_what_is_named() -> None:
    """One statement: what the graph, the sweep and the reader take from it cannot differ."""
    artifact = Artifact("page", bytes(32), 5, "artifact/x", bytes(16), b"", 1)
    said = {"person": "ada", "shown": msgspec.msgpack.encode(artifact), "time": 1}
    put = ArtifactPut(msgspec.msgpack.encode(said), b"")
    assert (put.artifact, put.person, put.attachments) == (artifact, "ada", [bytes(32)])


async def test_a_part_that_is_exchanged_is_noticed(party: Party, cli: Cli) -> None:
    made = await party.artifacts.put("page", bytes(2_500))
    folder = cli.folder / ".party" / "blobs"
    blob = made.artifact.blob.hex()
    found = parts.parsed((folder / blob[:2] / blob[2:]).read_bytes())
    assert found
    first, second = (folder / one.blob.hex()[:2] / one.blob.hex()[2:] for one in found.parts[:2])
    second.chmod(0o600)
    second.write_bytes(first.read_bytes())
    with pytest.raises(BlobError):
        await party.artifacts.get(made.artifact)


@pytest.mark.parametrize("name", ["", "a/b", "a\nb", "\x1b[31m", "x" * 256])
async def test_names_that_cannot_be(party: Party, name: str) -> None:
    with pytest.raises(InputError, match="cannot name an artifact"):
        await party.artifacts.put(name, b"words")
    assert await streams(party) == []


async def test_what_is_no_file(party: Party, cli: Cli) -> None:
    os.mkfifo(cli.folder / "pipe")
    (cli.folder / "secret").touch(0)
    for path, said in (
        ("none", "No such file"),
        (".", "is no file"),
        ("pipe", "is no file"),
        ("/dev/zero", "is no file"),
    ):
        with pytest.raises(InputError, match=said):
            await party.artifacts.put("page", Path(path))
    assert await streams(party) == []


async def test_too_large(party: Party, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of two TiB, of which nothing is read."""
    with (cli.folder / "huge").open("wb") as file:
        file.truncate(2 << 40)
    with pytest.raises(InputError, match=r"2,199,023,255,552 bytes, over the 1,099,511,627,776"):
        await party.artifacts.put("huge", cli.folder / "huge")
    monkeypatch.setattr(parts, "MAX_PARTS", 2)
    with pytest.raises(BlobError, match="keep it as several"):
        await party.artifacts.put("large", bytes(2_001))
    assert await streams(party) == []


@pytest.mark.parametrize("how", ["grows", "shrinks", "is written over"])
async def test_a_file_that_changes_while_it_is_read(
    party: Party, cli: Cli, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PIECE", 1_000)
    path = cli.folder / "file"
    path.write_bytes(bytes(5_000))
    os.utime(path, (1, 1))
    pieces = 0

    async def changing(path: Path) -> AsyncGenerator[bytes, None]:
        nonlocal pieces
        async for piece in unchanging(path):
            pieces += 1
            if pieces == 2:
                with path.open("r+b") as file:
                    if how == "grows":
                        file.seek(0, os.SEEK_END)
                        file.write(b"1")
                    elif how == "shrinks":
                        file.truncate(3_500)
                    else:
                        file.write(b"1")
            yield piece

    monkeypatch.setattr(module, "unchanging", changing)
    with pytest.raises(InputError, match="changed while it was read"):
        await party.artifacts.put("page", path)
    assert await streams(party) == []


async def test_no_blob_store(cli: Cli) -> None:
    async with Party.open(runtime="local", blobs="s3://none?endpoint=http://127.0.0.1:9") as party:
        with pytest.raises(StoreError):
            await party.artifacts.put("page", b"words")
        assert await streams(party) == []
    with sqlite3.connect(cli.folder / ".party" / "log.db") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_it_is_not_swept(party: Party) -> None:
    """The commit names the blob, and a sweep follows it to the parts."""
    made = await party.artifacts.put("page", bytes(2_500))
    found = await named_blobs(party.stack.log, {})
    assert found.lists == {made.artifact.blob}
    assert len(found.blobs) == 4
