"""``party.views`` and `party view`, `party projection`."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from agent_party import Agent, Party, Task
from agent_party.actors.errors import ConfigurationError
from agent_party.eventstore.reading import Commit
from agent_party.projections.contexts import RESULT_LASTS
from agent_party.projections.projection import Add, Read, Write
from agent_party.views import Change

agent = Agent("worker", version="1")


@agent.on("work")
async def work(task: Task, what: str) -> str:
    """Waits, if that is asked for."""
    if what == "wait":
        task.progress(1, 3)
        await task.approval("go on")
    return what


@pytest.fixture
async def party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Party]:
    monkeypatch.setenv("PARTY_STATE_DIR", str(tmp_path / "state"))
    async with Party.open(agents=[agent], journal=f"sqlite:///{tmp_path}/party/log.db", runtime="local") as party:
        yield party


async def test_what_runs_now_is_listed_and_counted(party: Party) -> None:
    done, waits = await party.ask("work", what="done"), await party.ask("work", what="wait")
    await done.result()
    async for change in party.views.watch("active"):
        if change.fields and change.fields["status"] == "waiting":
            break
    ((key, fields),) = await party.views.scan("active")
    assert (key, fields["capability"], fields["done"], fields["total"]) == (f"worker/{waits.id}", "work", 1, 3)
    assert await party.views.count() == {"status/completed": 1, "status/waiting": 1}
    assert await party.views.count("agent/worker/") == {"agent/worker/completed": 1, "agent/worker/waiting": 1}
    assert [key for key, _ in await party.views.scan("tasks-by-capability", "work/")] == sorted(
        [f"work/{done.id}", f"work/{waits.id}"]
    )
    await waits.approve("go on", person="ada")
    await waits.result()
    assert await party.views.scan("active") == []
    assert await party.views.count() == {"status/completed": 2}


async def test_sessions_and_config_say_who_is_here(party: Party) -> None:
    await party.people.grant("editor", "ada")
    await party.people.grant("editor", "bob")
    await party.people.withdraw("editor", "ada")
    ((key, session),) = await party.views.scan("session")
    assert key == f"worker/{session['host']}"
    assert (session["agent"], "ended" in session) == ("worker", False)
    config = dict(await party.views.scan("config"))
    assert config["role/editor"] == {"people": ["bob"]}
    assert (config["agent/worker"]["version"], config["agent/worker"]["capabilities"]) == ("1", ["work"])


async def test_a_result_expires_for_readers_and_stays_for_the_hash(
    party: Party, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = await party.ask("work", what="done")
    await task.result()
    found = await party.views.get("result", task.id)
    assert found is not None
    assert (found["status"], found["stream"], found["expires"]) == (
        "completed",
        f"task/{task.id}",
        found["ended"] + RESULT_LASTS,
    )
    (worker,) = await party.views._of("result")
    digest = await worker.sink.digest(worker.projection)
    later = found["expires"]
    monkeypatch.setattr(party.views, "_now", lambda: later)
    assert await party.views.get("result", task.id) is None
    assert await party.views.scan("result") == []
    assert await party.stack.views.get("result", task.id) == found
    assert await worker.rebuild() == digest


async def test_a_watcher_sees_what_is_there_and_then_every_change(party: Party) -> None:
    seen, watching = list[Change](), asyncio.Event()

    async def watch() -> None:
        async for change in party.views.watch("tasks-by-status"):
            seen.append(change)
            watching.set()
            if change.fields is None:
                return

    first = await party.ask("work", what="done")
    await first.result()
    following = asyncio.ensure_future(watch())
    await watching.wait()
    assert seen[0].key == f"completed/{first.id}"
    second = await party.ask("work", what="wait")
    await party.views.scan("active")
    async for change in party.views.watch("active"):
        if change.fields and change.fields["status"] == "waiting":
            break
    await second.approve("go on", person="ada")
    await asyncio.wait_for(following, 120)
    assert seen[-1] == Change("tasks-by-status", f"waiting/{second.id}", None) or seen[-1].fields is None


class Streams:
    """One of this program's own."""

    name, version = "own-streams", 1

    async def writes(self, commit: Commit, read: Read) -> Iterable[Write]:
        return [Add("own", commit.stream.partition("/")[0], "n", 1)]


async def test_a_program_adds_a_projection_of_its_own(party: Party) -> None:
    worker = party.views.add(Streams(), "own")
    await worker.catch_up()
    assert dict(await party.views.scan("own"))["agent"]["n"] >= 2
    assert party.views.names()["own"] == "own-streams"
    for name, views in (("results", ("mine",)), ("mine", ("task",)), ("mine", ("own",)), ("mine", ())):
        projection = Streams()
        projection.name = name
        with pytest.raises(ConfigurationError, match="names of your own"):
            party.views.add(projection, *views)


async def test_a_view_that_is_none_is_refused(party: Party) -> None:
    with pytest.raises(ConfigurationError, match="there is no view nothing: there are active"):
        await party.views.get("nothing", "x")
    with pytest.raises(ConfigurationError, match="limit"):
        await party.views.scan("task", limit=0)
