"""Agents from their beginning to their end: what people wish of them, signed; what they remember; how they do."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent_party import Agent, Party, Task, TaskHandle
from agent_party.actors import supervisor
from agent_party.actors.agent_events import Moved
from agent_party.actors.errors import InputError, RefusedError, StatementError, UnknownAgentError
from agent_party.actors.statements import Statement
from tests.unit.world import until


class Note(msgspec.Struct):
    """Something to remember."""

    text: str
    stars: int = 0


def clerk(name: str = "clerk") -> tuple[Agent, asyncio.Event]:
    agent, go_on = Agent(name), asyncio.Event()

    @agent.on("work")
    async def work(task: Task, what: str = "") -> str:
        if what == "wait":
            await task.step(go_on.wait)
        if what == "fail":
            raise ValueError("no")
        return str(await task.step(str.upper, what))

    @agent.on("remember")
    async def remember(task: Task) -> list[str]:
        await task.memory.set("note/1", Note("one", 3))
        await task.memory.set("note/2", Note("two", 5))
        await task.memory.set("other", "text")
        best = await task.memory.find(prefix="note/", kind=Note, where=lambda note: note.stars > 3)
        one = await task.memory.get("note/1", kind=Note)
        none = await task.memory.get("nothing", kind=Note)
        notes = await task.memory.find(kind=Note)
        with pytest.raises(InputError, match="is no Note"):
            await task.memory.get("other", kind=Note)
        return [*(note.text for note in best.values()), one.text, str(none), *notes]

    return agent, go_on


def opened(folder: Path, *agents: Agent) -> Party:
    return Party.open(agents=agents, journal=f"sqlite:///{folder}/log.db", runtime="local")


@pytest.fixture(autouse=True)
def keyring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARTY_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("PARTY_JOURNAL", raising=False)


async def phase(party: Party, name: str, wanted: str) -> None:
    async def stands() -> bool:
        rows = {row.name: row.phase for row in await party.stack.registry.agents()}
        return rows.get(name) == wanted

    await until(stands)


async def lacks(party: Party, task: TaskHandle[Any], words: str) -> None:
    host = party.runtime.host  # type: ignore[attr-defined]
    await until(lambda: words in host.waiting_for.get(task.id, ""))


async def test_paused_nothing_new_begins_until_it_is_resumed(tmp_path: Path) -> None:
    agent, go_on = clerk()
    async with opened(tmp_path, agent) as party:
        handle = party.agent("clerk")
        running = await party.using(agent="clerk").ask("work", what="wait")
        await until(lambda: party.runtime.host.effects is not None)  # type: ignore[attr-defined]
        await handle.pause("lunch")
        await phase(party, "clerk", "paused")
        later = await party.using(agent="clerk").ask("work", what="x")
        await lacks(party, later, "agent clerk, which is paused (lunch), to be resumed")
        assert await party.dj.resolve("work") == ""
        go_on.set()
        await handle.resume()
        assert await later.result(120) == "X"
        assert await running.result(120) == "WAIT"
        moves = [line.detail for line in await handle.history() if isinstance(line.detail, Moved)]
        assert [move.phase for move in moves] == ["paused", "running"]
        signed = msgspec.msgpack.decode(moves[0].statement, type=Statement)
        assert (signed.decision, signed.note, signed.person) == ("pause", "lunch", moves[0].by)


async def test_a_paused_agents_running_task_finishes_its_step_and_begins_no_other(tmp_path: Path) -> None:
    agent, go_on = Agent("two"), asyncio.Event()
    calls: list[int] = []

    async def effect(n: int) -> None:
        calls.append(n)
        await go_on.wait()

    @agent.on("steps")
    async def steps(task: Task) -> None:
        for n in range(3):
            await task.step(effect, n)

    async with opened(tmp_path, agent) as party:
        task = await party.ask("steps")
        await until(lambda: calls)
        await party.agent("two").pause()
        await phase(party, "two", "paused")
        await until(lambda: party.runtime.host.lifecycle.is_paused("two"))  # type: ignore[attr-defined]
        go_on.set()

        async def settled() -> bool:
            return [wait.settled is not None for wait in (await task.state()).waits] == [True]

        await until(settled)
        host = party.runtime.host  # type: ignore[attr-defined]
        host.passivation.idle = 0.0

        async def rests() -> bool:
            await host.passivation.sweep()
            return task.id not in host.cells

        await until(rests)
        assert calls == [0]
        await party.agent("two").resume()
        await task.result(120)
        assert calls == [0, 1, 2]


async def test_drained_it_finishes_what_it_has_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "ROUND", 0.2)
    agent, go_on = clerk()
    async with opened(tmp_path, agent) as party:
        handle = party.agent("clerk")
        running = await party.using(agent="clerk").ask("work", what="wait")

        async def begun() -> bool:
            return bool((await running.state()).open)

        await until(begun)
        await handle.drain("closing")
        await phase(party, "clerk", "draining")
        later = await party.using(agent="clerk").ask("work", what="x")
        await lacks(party, later, "agent clerk, which is drained (closing)")
        go_on.set()
        assert await running.result(120) == "WAIT"
        await phase(party, "clerk", "completed")
        assert (await later.state()).status == "requested"
        await handle.resume()
        assert await later.result(120) == "X"


async def test_retired_it_takes_none_and_is_passed_by(tmp_path: Path) -> None:
    (old, _), (new, _) = clerk("a"), clerk("b")
    async with opened(tmp_path, old, new) as party:
        assert await party.dj.resolve("work") == "a"
        await party.agent("a").retire("old")
        await phase(party, "a", "archived")
        assert await party.dj.resolve("work") == "b"
        asked = await party.using(agent="a").ask("work", what="x")
        await lacks(party, asked, "another agent: a is retired (old)")
        assert await (await party.ask("work", what="y")).result(120) == "Y"
        with pytest.raises(StatementError, match="for good"):
            await party.agent("a").resume()
    async with opened(tmp_path, clerk("a")[0]) as party:
        await phase(party, "a", "archived")


async def test_a_wish_waits_for_whoever_owns_the_agent(tmp_path: Path) -> None:
    async with opened(tmp_path, clerk()[0]):
        pass
    async with opened(tmp_path) as elsewhere:
        await elsewhere.agent("clerk").pause()
        with pytest.raises(UnknownAgentError, match="party agent list"):
            await elsewhere.agent("nobody").pause()
        assert (await elsewhere.agent("clerk").state()).phase == "running"
    async with opened(tmp_path, clerk()[0]) as party:
        await phase(party, "clerk", "paused")
        asked = await party.using(agent="clerk").ask("work", what="x")
        await lacks(party, asked, "paused")


async def test_a_wish_that_is_forged_changes_nothing(tmp_path: Path) -> None:
    from agent_party.actors.events import Stated
    from agent_party.actors.statements import sign
    from agent_party.eventstore.commit import SigningKey

    async with opened(tmp_path, clerk()[0]) as party:
        who, _ = party.doorman.person(None)
        key = SigningKey.from_seed(bytes(32))
        identity = party.stack.log.identity.log_id
        forged = Statement(identity, "agent/clerk", -1, b"", "", b"", "retire", who, key.public, 0)
        await party.leave_in_inbox("agent/clerk", sign(forged, key))
        await party.leave_in_inbox("agent/clerk", Stated(b"junk", b"junk"))
        await party.agent("clerk").pause()
        await phase(party, "clerk", "paused")
        state = await party.agent("clerk").state()
        assert (state.phase, state.inbox) == ("paused", 3)


async def test_a_task_of_a_paused_agent_answers_and_nothing_is_written(tmp_path: Path) -> None:
    agent = Agent("counter")

    @agent.on("count")
    async def count(task: Task, start: int) -> int:
        total = [start]
        task.on_query("total", lambda more=0: total[0] + more)
        total[0] += int(await task.signal("first"))
        return total[0] + int(await task.signal("second"))

    async with opened(tmp_path, agent) as party:
        begun = await party.ask(count, start=1)
        await begun.signal("first", 10)

        async def heard() -> bool:
            return len((await begun.state()).waits) == 2

        await until(heard)
        await party.agent("counter").pause("lunch")
        await phase(party, "counter", "paused")
        queued = await party.using(agent="counter").ask(count, start=5)
        await lacks(party, queued, "paused (lunch)")
        await party.runtime.host.leave()  # type: ignore[attr-defined]
        await party.runtime.join([agent])
        heads = [await party.stack.log.state(f"task/{task.id}") for task in (begun, queued)]
        assert await begun.query("total", more=100) == 111
        assert await queued.query("total") == 5
        with pytest.raises(RefusedError, match="takes no query 'sum'; it takes total"):
            await begun.query("sum")
        assert heads == [await party.stack.log.state(f"task/{task.id}") for task in (begun, queued)]
        begun_id = begun.id
    async with opened(tmp_path, clerk()[0]) as party:
        with pytest.raises(RefusedError, match="waits for agent counter with capability count to join: ask again"):
            await party.task(begun_id).query("total")


async def test_memory_is_asked_by_type(tmp_path: Path) -> None:
    async with opened(tmp_path, clerk()[0]) as party:
        task = await party.ask("remember")
        assert await task.result(120) == ["two", "one", "None", "note/1", "note/2"]
        found = await party.agent("clerk").memory(prefix="note/", kind=Note, where=lambda note: note.stars < 4)
        assert found == {"note/1": Note("one", 3)}
        assert set(await party.agent("clerk").memory()) == {"note/1", "note/2", "other"}


async def test_health_says_how_it_does(tmp_path: Path) -> None:
    agent, go_on = clerk()
    async with opened(tmp_path, agent) as party:
        handle = party.agent("clerk")
        for what in ("x", "fail", "y", "z"):
            task = await party.using(agent="clerk").ask("work", what=what)
            async for _ in task.watch(120):
                pass
        await party.using(agent="clerk").ask("work", what="wait")

        async def live() -> bool:
            return (await handle.health()).live == 1

        await until(live)
        health = await handle.health()
        assert (health.phase, health.hosts, health.queued, health.waiting) == ("running", 1, 0, 0)
        assert (health.failed, health.error_rate) == (1, 0.25)
        assert health.last > 0
        go_on.set()
        with pytest.raises(UnknownAgentError):
            await party.agent("nobody").health()
