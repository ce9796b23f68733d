"""Acceptance 7: what people and agents say stands in no byte under ``.party``, write-ahead logs included.

Every place a payload can get to is given its own canary. All files are searched while the party is open, right after
it was closed, and after its process was killed; also for the encodings a text might take on the way.
"""

import base64
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from agent_party import Agent, Decider, Party, PartyError, StepError, Task, event
from agent_party.eventstore import sealing
from tests.unit.world import until

PLACES = (
    "input", "result", "step-input", "step-result", "step-error", "error", "memory", "checkpoint", "progress",
    "shown", "note", "artifact", "large", "child", "entity", "reason", "snapshot", "request",
)  # fmt: skip


def canary(place: str) -> str:
    return f"canary-of-{place}-7f3a"


def forms(place: str) -> list[bytes]:
    """A canary as it might lie there."""
    text = canary(place).encode()
    return [text, text.decode().encode("utf-16-le"), text.hex().encode(), base64.b64encode(text)[:-4]]


def leaks(folder: Path) -> list[str]:
    """Which canaries are found, and where."""
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        name = str(path.relative_to(folder))
        found += [f"{p} in {name}" for p in PLACES if any(form in data or form in name.encode() for form in forms(p))]
    return found


@event("canary.noted")
class Noted(msgspec.Struct, frozen=True):
    text: str


class Notes(Decider[list[str], str, Noted]):
    kind = "notes"
    events = (Noted,)

    def initial(self) -> list[str]:
        return []

    def decide(self, command: str, state: list[str]) -> list[Noted]:
        return [Noted(command)]

    def evolve(self, state: list[str], event: Noted) -> list[str]:
        return [*state, event.text]


agent = Agent("speaker")


def says(text: str) -> str:
    return canary("step-result") if text else ""


def large() -> bytes:
    return canary("large").encode() * 10_000


def fails() -> None:
    raise ValueError(canary("step-error"))


@agent.on("echo")
async def echo(task: Task, text: str) -> str:
    return text


@agent.on("fail")
async def fail(task: Task) -> None:
    raise ValueError(canary("error"))


@agent.on("speak")
async def speak(task: Task, text: str) -> str:
    await task.step(says, canary("step-input"))
    assert len(await task.step(large)) > 64 * 1024
    with pytest.raises(StepError, match=canary("step-error")):
        await task.step(fails)
    task.progress(1, 2, canary("progress"))
    await task.memory.set(canary("memory"), canary("memory"))
    assert await task.memory.get(canary("memory")) == canary("memory")
    await task.checkpoint({"text": canary("checkpoint"), "much": canary("checkpoint") * 10_000})
    await task.artifact(canary("artifact"), canary("artifact") * 10_000)
    assert await task.ask("echo", text=canary("child")) == canary("child")
    answer = await task.approval(canary("shown"), show={"text": canary("shown")})
    assert answer.note == canary("note")
    return canary("result")


async def speak_everywhere(party: Party) -> None:
    """Put every canary where it belongs."""
    task = await party.using(request_id=canary("request")).ask(speak, text=canary("input"))
    await until(lambda: _asks(party, task.id), 300)
    await task.approve(note=canary("note"))
    assert await task.result(300) == canary("result")
    failed = await party.ask(fail)
    with pytest.raises(PartyError, match=canary("error")):
        await failed.result(300)
    notes = party.entity(Notes, "n")
    for _ in range(510):  # enough for a snapshot
        await notes.send(canary("snapshot"))
    await notes.send(canary("entity"))
    waiting = await party.ask(speak, text=canary("input"))
    await until(lambda: _asks(party, waiting.id), 300)
    await waiting.cancel(canary("reason"))
    await until(lambda: _finished(party, waiting.id), 300)
    assert await party.stack.registry.tasks()
    assert await party.stack.registry.agents()


async def _asks(party: Party, task: str) -> bool:
    state = await party.task(task).state()
    return any(state.waits[number].kind == "approval" for number in state.open)


async def _finished(party: Party, task: str) -> bool:
    return (await party.task(task).state()).finished


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PARTY_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / ".party"


STORES = {"log.db", "log.db-wal", "views.db", "views.db-wal", "snapshots.db", "index.db"}


def names(folder: Path) -> set[str]:
    """The files below a folder."""
    return {path.name for path in folder.rglob("*") if path.is_file()}


async def test_no_canary_is_found(folder: Path) -> None:
    async with Party.open(agents=[agent], runtime="local") as party:
        await speak_everywhere(party)
        assert names(folder) >= STORES
        assert len(names(folder / "blobs")) > 4
        assert leaks(folder) == []
    assert leaks(folder) == []
    async with Party.open(agents=[agent], runtime="local") as party:
        assert len(await party.entity(Notes, "n").state()) == 511
        assert leaks(folder) == []


def test_no_canary_is_found_after_a_kill(folder: Path) -> None:
    script = "import asyncio, os, tests.faults.test_canary as t\nasyncio.run(t.speak_and_die())\n"
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    ended = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, timeout=900, check=False
    )
    assert ended.returncode == -9, ended.stderr.decode()
    assert (folder / "log.db-wal").stat().st_size > 0
    assert leaks(folder) == []


async def speak_and_die() -> None:
    async with Party.open(agents=[agent], runtime="local") as party:
        await speak_everywhere(party)
        os.kill(os.getpid(), 9)


# The search itself


async def test_a_planted_leak_is_caught(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Payloads that are not encrypted are found in every place that keeps them."""
    monkeypatch.setattr(sealing, "encrypt", lambda key, plaintext, bound: plaintext + bytes(16))
    monkeypatch.setattr(sealing, "decrypt", lambda key, sealed, bound: sealed[:-16])
    async with Party.open(agents=[agent], runtime="local") as party:
        await speak_everywhere(party)
    found = leaks(folder)
    missed = {place for place in PLACES if not any(leak.startswith(f"{place} in") for leak in found)}
    assert missed == {"request"}, "a request's id is never written: tasks are named by its hash"
    assert any("snapshot in snapshots.db" in leak for leak in found)
    assert any("large in blobs/" in leak for leak in found)


@pytest.mark.parametrize("form", range(4))
def test_a_canary_in_any_form_is_found(tmp_path: Path, form: int) -> None:
    (tmp_path / "file").write_bytes(b"\0" * 99 + forms("note")[form] + b"\0")
    assert leaks(tmp_path) == ["note in file"]
