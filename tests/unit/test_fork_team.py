"""Forks of teams: one consistent moment of five tasks of three agents, whatever the schedule, the cut and the crash."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from agent_party import Agent, Task
from agent_party.actors import team_fork
from agent_party.actors.cut import violations
from agent_party.actors.doorman import Doorman
from agent_party.actors.errors import InputError, UnknownTaskError
from agent_party.actors.events import Advanced, Completed, Received, Requested
from agent_party.actors.fork import Change, found, requested_of
from agent_party.actors.past import LogPast
from agent_party.actors.team import history_of, team_of
from agent_party.actors.team_fork import At, TeamFork, fork_team
from agent_party.actors.teams import memory_of
from agent_party.eventstore.ambient import System
from agent_party.eventstore.errors import IdReusedError, StoreError
from agent_party.eventstore.log import Log
from agent_party.eventstore.reading import Commit
from agent_party.testing import Faults
from tests.unit.handlers_kit import no_pauses, result, world
from tests.unit.world import Process, World, a_world, until

__all__ = ["no_pauses", "world"]
RESULT = "lead: [left from left-one, right from right-one], heard ['left', 'right'], then 2"


class Skewed(System):
    """A clock that nobody should go by."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)

    def now(self) -> int:
        return super().now() + self._chance.randrange(-50_000, 50_000)


class Party:
    """Three agents. The root asks two others, each asks one more; they tell the root, and remember what they found."""

    def __init__(self, seed: int) -> None:
        self.chance, self.done, self.paces = random.Random(seed), Counter[str](), random.Random(seed + 1)
        self.agents = [Agent("lead"), Agent("scout"), Agent("clerk")]
        self.agents[0].on("plan")(self.plan)
        self.agents[1].on("look")(self.look)
        self.agents[2].on("fetch")(self.fetch)

    async def effect(self, name: str) -> str:
        for _ in range(self.paces.randrange(40)):
            await asyncio.sleep(0)
        self.done[name] += 1
        return name

    async def plan(self, task: Task) -> str:
        await task.step(self.effect, "begin")
        found = await asyncio.gather(*(task.ask("look", where=where, boss=task.id) for where in ("left", "right")))
        heard = sorted([await task.signal("seen") for _ in found])
        seen = await task.memory.get("seen", 0)
        await task.memory.set("seen", seen + len(heard))
        await task.step(self.effect, "end")
        return f"lead: [{', '.join(found)}], heard {heard}, then {await task.memory.get('seen')}"

    async def look(self, task: Task, where: str, boss: str) -> str:
        await task.step(self.effect, f"look {where}")
        await task.tell(boss, "seen", where)
        await task.memory.set(where, True)
        fetched = await task.ask("fetch", what=f"{where}-one")
        await task.step(self.effect, f"looked {where}")
        assert await task.memory.get(where)
        return f"{where} from {fetched}"

    async def fetch(self, task: Task, what: str) -> str:
        before = await task.memory.get("fetched", [])
        await task.memory.set(f"fetched {what}", len(before))
        return await task.step(self.effect, what)


async def forked(process: Process, at: At, new: str = "fork", root: str = "root") -> TeamFork:
    past = LogPast(process.log)
    team = await fork_team(process.log, process.doorman, past, root, task=new, at=at, by="ada", change=Change())
    for member in team.members.values():
        await process.host.place(member, await requested_of(process.log, member))
    return team


def sources(commit: Commit) -> Iterator[tuple[str, int]]:
    """What a commit says it follows from."""
    if commit.cause:
        yield commit.cause.stream.decode(), commit.cause.revision
    for event in commit.events:
        found = [one.source for one in event.settled] if isinstance(event, Advanced) else []
        for source in [*found, event.source if isinstance(event, Received) else None]:
            if source:
                yield source.stream, source.revision


async def received_but_not_sent(process: Process, team: TeamFork) -> list[str]:
    """What is in the cut and follows from something that is not; told from the log, without the code that cuts."""
    wrong = []
    for stream, last in team.cut.items():
        for commit in (await process.commits(stream))[:last]:
            for other, revision in sources(commit):
                if revision > team.cut.get(other, revision):
                    wrong.append(f"{stream}@{commit.revision} follows from {other}@{revision}")
    return wrong


async def settled_effects(process: Process, team: TeamFork) -> Counter[str]:
    """The effects whose outcome is in the cut."""
    found: Counter[str] = Counter()
    for old in team.members:
        waits: dict[int, str] = {}
        for commit in (await process.commits(f"task/{old}"))[: team.cut[f"task/{old}"]]:
            for event in commit.events:
                for opened in getattr(event, "opened", []):
                    waits[opened.wait] = opened.name
                for settled in getattr(event, "settled", []):
                    if waits[settled.wait] == "Party.effect":
                        found[settled.value[1:].decode()] += 1
    return found


async def check(seed: int) -> None:
    """One random run: its schedule, the moment of the cut, and whether a process dies while the fork is made."""
    async with a_world() as world:
        party = Party(seed)
        process = await world.process(*party.agents, ambient=Skewed(seed))
        await process.ask("root", "plan")
        assert result(await process.finished("root")) == RESULT
        root = await process.commits("task/root")
        everything = [c.time for name in process.log.streams("task/") for c in await process.commits(name)]
        moments: list[At] = [datetime.fromtimestamp(party.chance.choice(everything) / 1e6, UTC)]
        at = party.chance.choice([*moments, party.chance.randint(1, len(root)), None])
        if isinstance(at, datetime) and at.timestamp() * 1e6 < root[0].time:
            at = 1
        done = lost = Counter(party.done)
        if party.chance.random() < 0.5:
            process, lost = await crashing(world, process, party, at)
        team = await forked(process, at)
        assert await received_but_not_sent(process, team) == []
        if isinstance(at, int):
            assert team.cut["task/root"] == at
        state = await process.finished("fork")
        assert result(state) == RESULT, seed
        await unfinished(process, team)
        settled = await settled_effects(process, team)
        again = {name: (lost[name] - done[name], party.done[name] - lost[name]) for name in done}
        for name, (before, after) in again.items():
            assert before + after == 0 if settled[name] else before + after >= 1, (seed, name, again, settled)
            assert max(before, after) <= 1, (seed, name, again)  # in both: its outcome died with the first process
        await apart(process, team)


async def crashing(world: World, process: Process, party: Party, at: At) -> tuple[Process, Counter[str]]:
    """The process dies at one of the appends of a fork; another one makes it again. And what was done until it died."""
    place = process.life.number, len(process.life.cuts) + party.chance.randint(1, 60)
    process.life.faults = Faults(dies=frozenset({place}))
    making = asyncio.ensure_future(forked(process, at))
    await until(lambda: process.life.gone or making.done())
    made = making.done()
    making.cancel()
    await asyncio.wait([making])
    if made:
        await until(lambda: _ended(process))
    await world.kill(process)
    lost = Counter(party.done)
    other = await world.process(*party.agents, ambient=Skewed(process.life.number))
    if not made and "fork" not in {name.removeprefix("task/") for name in other.log.streams("task/")}:
        before = Counter(party.done)
        await other.host.reconcile()
        assert party.done == before, "a task of the team went on before the fork was whole"
    return other, lost


async def _ended(process: Process) -> bool:
    return process.life.gone or bool(await process.host.end_of("task/fork"))


async def unfinished(process: Process, team: TeamFork) -> None:
    for member in team.members.values():
        assert (await process.finished(member)).status == "completed"


async def apart(process: Process, team: TeamFork) -> None:
    """Nothing of the fork has reached the tasks and memories that were forked."""
    for old, new in team.members.items():
        ended = (await process.commits(f"task/{old}"))[-1]
        assert any(isinstance(event, Completed) for event in ended.events)
        asked = [event for event in (await process.commits(f"task/{new}"))[0].events if isinstance(event, Requested)]
        assert asked[0].team == team.task
    for stream in [stream for stream in team.cut if stream.startswith("agent/")]:
        memory = memory_of(stream.removeprefix("agent/"), team.task)
        assert (await process.commits(f"agent/{memory}"))[0].events[0].agent == stream.removeprefix("agent/")


@pytest.mark.parametrize("seed", range(12))
async def test_a_team_fork_is_consistent_and_comes_to_the_same(seed: int) -> None:
    await check(seed)


async def test_a_team_is_forked_once_and_the_fork_of_a_fork_stands_alone(world: World) -> None:
    party = Party(1)
    process = await world.process(*party.agents)
    await process.ask("root", "plan")
    await process.finished("root")
    team = await forked(process, 4)
    assert result(await process.finished("fork")) == RESULT
    assert await forked(process, 4) == team
    with pytest.raises(IdReusedError):
        await forked(process, 5)
    again = await forked(process, None, "again", "fork")
    assert result(await process.finished("again")) == RESULT
    assert len(again.members) == 5
    assert not set(again.members.values()) & set(team.members.values())
    with pytest.raises(InputError, match="no revision 99"):
        await forked(process, 99, "x")
    with pytest.raises(InputError, match="was not there yet"):
        await forked(process, datetime(2000, 1, 1, tzinfo=UTC), "x")
    with pytest.raises(UnknownTaskError):
        await forked(process, None, "x", "nobody")


async def test_a_forks_memory_is_its_own_also_for_an_agent_that_joins_later(world: World) -> None:
    agent, other = Agent("a"), Agent("b")

    @agent.on("keep")
    async def keep(task: Task) -> list[Any]:
        await task.memory.set("k", 1)
        await task.signal("go")
        return [await task.memory.get("k"), await task.ask("more")]

    @other.on("more")
    async def more(task: Task) -> Any:
        await task.memory.set("k", (await task.memory.get("k", 0)) + 1)
        return await task.memory.get("k")

    from tests.unit.test_messages import message

    process = await world.process(agent, other)
    await process.ask("first", "more")
    await process.finished("first")
    await process.ask("t", "keep")
    await process.opened("t", "go")
    await forked(process, None, "f", "t")
    await process.ask("over", "keep")
    for task in ("over", "t", "f"):
        await process.host.deliver(task, message("signal", "go", 1))
        await process.finished(task)
    assert result(await process.state("t")) == [1, 3]
    assert result(await process.state("f")) == [1, 4]
    assert (await process.host.recall("b", "k"), await process.host.recall(memory_of("b", "f"), "k")) == (
        b"\x03",
        b"\x04",
    )


async def test_what_was_on_its_way_at_the_cut_is_on_its_way_in_the_fork(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = Agent("a")

    @agent.on("say")
    async def say(task: Task, boss: str) -> str:
        await task.tell(boss, "word", "ravens")
        return await task.step(str.upper, "said")

    @agent.on("hear")
    async def hear(task: Task) -> list[Any]:
        return [await task.ask("say", boss=task.id), await task.signal("word")]

    process = await world.process(agent)
    await process.ask("root", "hear")
    assert result(await process.finished("root")) == ["SAID", "ravens"]
    team = await team_of(LogPast(process.log), "root")
    (child,) = set(team.tasks) - {"root"}
    cut = {stream: len(commits) for stream, commits in team.streams.items()}
    cut["task/root"] = _before(team.tasks["root"], lambda event: isinstance(event, Received))
    cut[f"task/{child}"] = _before(team.tasks[child], lambda event: isinstance(event, Completed))
    assert violations(history_of(team), cut) == []
    monkeypatch.setattr(team_fork, "moment", lambda team, at: cut)
    await forked(process, None)
    assert result(await process.finished("fork")) == ["SAID", "ravens"]


def _before(commits: list[Commit], what: Callable[[Any], bool]) -> int:
    """The last revision before an event."""
    return next(commit.revision for commit in commits if any(what(event) for event in commit.events)) - 1


async def test_nothing_of_a_fork_goes_on_before_all_of_it_is_there(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    party = Party(3)
    process = await world.process(*party.agents)
    await process.ask("root", "plan")
    await process.finished("root")

    async def stopping(log: Log, doorman: Doorman, fold: Any, stream: str, *rest: Any) -> None:
        if stream == "task/fork":
            raise StoreError("the disk is full")
        await found(log, doorman, fold, stream, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(team_fork, "found", stopping)
        with pytest.raises(StoreError):
            await forked(process, 4)
    before = Counter(party.done)
    await process.host.reconcile()
    unfinished = [row.id for row in await process.registry.tasks(unfinished=True)]
    assert unfinished
    await until(lambda: set(unfinished) <= set(process.host.waiting_for))
    assert {process.host.waiting_for[task] for task in unfinished} == {"the rest of team fork fork"}
    assert party.done == before
    await forked(process, 4)
    assert result(await process.finished("fork")) == RESULT
