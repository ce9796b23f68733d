"""A whole party over Kafka: the same programs, the same commands, and nothing is done again after a crash."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest

from agent_party import Party, Task
from agent_party.cluster import services as real
from agent_party.cluster.services import Secure
from agent_party.cluster.settings import load
from agent_party.cluster.stores import open_tape
from agent_party.eventstore.backends.kafka_address import address
from agent_party.eventstore.errors import StoreError, StoreReadOnlyError
from benchmarks.measure import connections
from tests.cli_kit import Cli
from tests.eventstore_kit import until
from tests.kafka_kit import Place, name
from tests.services_kit import Services
from tests.unit import party_app

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
async def place(services: Services, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Place]:
    """A folder and a topic of its own for a party."""
    journal = f"{services.journal(name())}?partitions=3"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PARTY_JOURNAL", journal)
    monkeypatch.setenv("PARTY_STATE_DIR", str(tmp_path / "state"))
    place = Place(address(journal))
    yield place
    await place.close()


def hello(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "examples" / "hello.py")],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=600,
        check=True,
    )  # fmt: skip


async def test_hello_twice_is_one_task_and_every_command_reads_it(place: Place, tmp_path: Path) -> None:
    first, second = await asyncio.to_thread(hello, tmp_path), await asyncio.to_thread(hello, tmp_path)
    assert first.stdout == second.stdout == "hash chains has 11 letters\n"
    assert second.stderr == ""
    await asyncio.to_thread(look_around, Cli(tmp_path), place)


def look_around(cli: Cli, place: Place) -> None:
    (task,) = cli.json("task", "list")
    assert (task["status"], task["agent"]) == ("completed", "writer")
    assert cli.json("agent", "show", "writer")["version"] == "1"
    assert "agent.registered" in cli.text("log", "read", "agent/writer")
    assert cli.json("replay", "agent/writer", "--at", "1")
    verified = cli.json("log", "verify")
    assert (verified["ok"], verified["checkpoint"]["status"], verified["finding"]) == (True, "matches", "")
    cli.text("log", "export", "hello.party")
    assert cli.json("log", "verify", "--file", "hello.party")["ok"]
    assert cli.json("log", "root")["journal"] == place.where.shown
    checks = {check["check"]: check for check in cli.json("doctor")["checks"] if check["check"] != "topic"}
    assert checks["brokers"]["status"] == checks["log"]["status"] == "fine"
    assert "1 replica" in cli.text("doctor")


async def test_a_journal_that_is_not_there(place: Place, tmp_path: Path) -> None:
    def ask() -> None:
        cli = Cli(tmp_path)
        assert "there is no log at kafka://" in cli.text("task", "list", code=3)
        assert cli.json("doctor")["ok"]

    await asyncio.to_thread(ask)
    assert await place().client.topic() is None


async def test_a_task_goes_on_after_a_restart_where_it_stood(place: Place) -> None:
    """Steps, an approval by a person, and between them the process is gone."""
    done: list[str] = []

    @party_app.writer.on("text.count_once")
    async def count_once(task: Task, topic: str) -> str:
        await task.step(done.append, f"before {topic}")
        answer = await task.approval("publish", show=topic)
        await task.step(done.append, f"after {topic}")
        return f"{topic} by {answer.person}"

    async with Party.open(agents=[party_app.writer], runtime="local") as party:
        asked = await party.using(request_id="r1").ask(count_once, topic="ravens")
        async for state in asked.watch(timeout=300):
            if any(state.waits[number].kind == "approval" for number in state.open):
                break
    assert done == ["before ravens"]
    async with Party.open(agents=[party_app.writer], runtime="local") as party:
        again = await party.using(request_id="r1").ask(count_once, topic="ravens")
        assert again.id == asked.id
        await again.approve(person="ada")
        assert await again.result(timeout=300) == "ravens by ada"
    assert done == ["before ravens", "after ravens"]


async def test_two_parties_share_a_topic_and_nothing_else(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two machines: another folder for caches, the same keyring."""
    monkeypatch.setenv("PARTY_HOME", str(tmp_path / "one"))
    async with Party.open(agents=[party_app.writer], runtime="local") as one:
        asked = await one.ask(party_app.write, topic="ravens")
        assert await asked.result(timeout=300) == "ravens has 6 letters"
        monkeypatch.setenv("PARTY_HOME", str(tmp_path / "two"))
        async with Party.open(runtime="local") as two:
            assert await two.task(asked.id).result(timeout=300) == "ravens has 6 letters"
    assert {path.parent.parent.name for path in found(tmp_path, "index.db")} == {"one", "two"}


def found(folder: Path, pattern: str) -> list[Path]:
    return [path for path in folder.rglob(pattern) if path.is_file()]


# TLS and SASL/SCRAM


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    """A broker's listener by TLS and SCRAM."""
    with real.start(tmp_path_factory.mktemp("services"), ["kafka"], brokers=1, secure=True) as running:
        yield running.secure


@pytest.fixture
async def secure(listener: Secure) -> AsyncIterator[Secure]:
    """The driver does not wait until connections that it closes have said so to each other: that ends with the test."""
    yield listener
    await until(lambda: not connections(os.getpid(), listener.address), "they are closed")


def url(secure: Secure, user: str = "", password: str = "", **options: str) -> str:
    login = f"{user or secure.user}:{quote(password or secure.password, safe='')}"
    given = urlencode({"ca": str(secure.ca), "partitions": "2"} | options)
    return f"kafka+ssl://{login}@{secure.address}/{name()}?{given}"


async def test_a_party_over_tls_with_a_password(
    secure: Secure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARTY_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("PARTY_HOME", str(tmp_path / "home"))
    async with Party.open(agents=[party_app.writer], journal=url(secure), runtime="local") as party:
        asked = await party.ask(party_app.write, topic="ravens")
        assert await asked.result(timeout=300) == "ravens has 6 letters"
    kept = found(tmp_path, "*")
    assert len(kept) > 5
    assert secure.password.encode() not in b"".join(path.read_bytes() for path in kept)


async def test_a_wrong_password_a_wrong_user_and_a_wrong_mechanism(secure: Secure) -> None:
    for journal in (
        url(secure, password="wrong"),
        url(secure, user="nobody"),
        url(secure, mechanism="SCRAM-SHA-256"),
    ):
        with pytest.raises(StoreReadOnlyError, match="the brokers refuse user") as caught:
            await _identity(journal)
        assert "wrong" not in str(caught.value).replace("wrong password", "")
        assert secure.password not in str(caught.value)


async def test_an_authority_that_did_not_sign_the_brokers_certificate(secure: Secure) -> None:
    journal = url(secure).replace(f"ca={quote(str(secure.ca), safe='')}&", "")
    with pytest.raises(StoreError, match="certificate is not trusted"):
        await _identity(journal)


async def test_certificates_that_are_not_there(secure: Secure) -> None:
    with pytest.raises(StoreError, match="cannot be used"):
        await _identity(url(secure, ca="/nowhere/ca.pem"))


async def _identity(journal: str) -> None:
    tape = open_tape(load({"journal": journal}, {}))
    try:
        await tape.identity()
    finally:
        await tape.close()
