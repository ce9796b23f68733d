"""Text planted in everything an agent handles must stand in no byte under `.party`, write-ahead logs included."""

import contextlib
from pathlib import Path

import pytest

from agent_party import Agent, Party, RejectedError, StepError, Task, TaskFailedError
from agent_party.eventstore.artifacts import Artifact
from agent_party.projections import agents_and_tasks
from agent_party.projections.projection import Put

CANARY = "canary-7f3a"
spy = Agent("spy", description=f"described as {CANARY}")


def echo(text: str, times: int = 1) -> str:
    """What it was given, so often."""
    return text * times


def fail(text: str) -> str:
    """Raises what it was given."""
    raise ValueError(text)


@spy.on("spy.child")
async def child(task: Task, text: str) -> str:
    """Echoes."""
    return await task.step(echo, text)


@spy.on("spy.everything")
async def everything(task: Task, text: str) -> Artifact:
    """Puts the text wherever text can go."""
    await task.step(echo, f"{text} step")
    await task.step(echo, f"{text} large", 10_000)
    with contextlib.suppress(StepError):
        await task.step(fail, f"{text} error")
    await task.ask(child, text=f"{text} child")
    await task.memory.set("remembered", f"{text} memory")
    await task.memory.set(f"{text}-key", 1)
    await task.checkpoint({"state": f"{text} checkpoint"})
    await task.checkpoint({"state": f"{text} large checkpoint" * 10_000})
    task.progress(1, 2, f"{text} progress")
    await task.approval("show", show=f"{text} shown")
    with contextlib.suppress(RejectedError):
        await task.approval("refuse", show=f"{text} refused")
    return await task.artifact(f"{text}.txt", f"{text} artifact" * 10_000)


@spy.on("spy.fails")
async def fails(task: Task, text: str) -> str:
    """Fails with the text."""
    raise RuntimeError(f"{text} {await task.step(echo, text)}")


def leaks(folder: Path, text: str = CANARY) -> list[str]:
    """The files under a folder in which the text stands, in either byte order of its letters."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) >= 4, "there is hardly anything to look at"
    wanted = (text.encode(), text.encode("utf-16-le"), text.encode().hex().encode())
    return [path.name for path in files if any(form in path.read_bytes() for form in wanted)]


async def run(folder: Path) -> list[str]:
    """Do everything; the files that leak while the party is open, and after."""
    text = f"{CANARY}-payload"
    async with Party.open(agents=[spy], runtime="local") as party:
        task = await party.using(request_id=f"{CANARY}-request").ask(everything, text=text)
        for name, approve in (("show", True), ("refuse", False)):
            async for state in task.watch(20):
                if any(state.waits[wait].name == name for wait in state.open):
                    break
                assert not state.finished, state.failure
            await (task.approve if approve else task.reject)(name, note=f"{CANARY} note")
        assert CANARY in (await task.artifact(await task.result(20))).decode()
        with pytest.raises(TaskFailedError, match=CANARY):
            await (await party.ask(fails, text=text)).result(20)
        other = await party.ask("spy.nobody", text=text)
        await other.cancel(f"{CANARY} reason")
        assert len(await party.stack.registry.tasks()) == 4
        found = leaks(folder / ".party")
    return found + leaks(folder / ".party")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PARTY_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def test_nothing_an_agent_handles_stands_in_the_clear(place: Path) -> None:
    assert await run(place) == []


async def test_a_planted_leak_is_found(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A projection that keeps what it should not."""
    kept = agents_and_tasks.AgentsAndTasks.writes

    def leaky(self: agents_and_tasks.AgentsAndTasks, commit: object) -> object:
        yield from kept(self, commit)  # type: ignore[arg-type]
        yield Put("leak", "one", {"events": repr(getattr(commit, "events", ()))})

    monkeypatch.setattr(agents_and_tasks.AgentsAndTasks, "writes", leaky)
    assert any(name.startswith("views.db") for name in await run(place))
