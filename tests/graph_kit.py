"""Random histories of tasks, agents and people, as the commits that a log gives; and graphs that were made of them."""

import asyncio
import hashlib
import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec

from agent_party.actors.agent_events import Moved, Registered
from agent_party.actors.events import (
    Advanced,
    Cancelled,
    Completed,
    Failed,
    Failure,
    Freed,
    Opened,
    Parent,
    Received,
    Requested,
    Settled,
    Signed,
    Source,
    Started,
)
from agent_party.actors.people import RoleGranted, RoleWithdrawn
from agent_party.actors.shelf import ArtifactPut
from agent_party.eventstore.artifacts import Artifact
from agent_party.eventstore.reading import Commit
from agent_party.eventstore.verify import Cause
from agent_party.projections.graph import Graph, Place
from agent_party.projections.moments import NOW, Moment
from agent_party.projections.relationships import Relationships
from agent_party.projections.sink import NO_LETTERS, Checkpoint, Letters, Sizes
from tests.sink_kit import moved

SLICES = 4
START = 1_700_000_000_000_000
RELATIONSHIPS = Relationships()


def slice_of(stream: str) -> int:
    """As good as any."""
    return hashlib.sha256(stream.encode()).digest()[0] % SLICES


class History:
    """Commits in the order in which they were made, each with its place in its slice."""

    def __init__(self, seed: int = 0, skew: int = 0) -> None:
        self.random, self.skew = random.Random(seed), skew
        self.commits: list[Commit] = []
        self.revisions: dict[str, int] = defaultdict(int)
        self.sizes: dict[int, int] = defaultdict(int)
        self.clock = START

    def add(self, stream: str, *events: Any, cause: Commit | None = None) -> Commit:
        """The next commit of a stream. Its writer's clock is off by up to ``skew`` microseconds."""
        self.revisions[stream] += 1
        self.clock += 1_000
        part, revision = slice_of(stream), self.revisions[stream]
        time = self.clock + (self.random.randint(-self.skew, self.skew) if self.skew else 0)
        why = Cause(cause.stream.encode(), cause.revision, 0, cause.hash) if cause else None
        commit = Commit(
            stream, revision, hashlib.sha256(f"{stream}@{revision}".encode()).digest(), bytes(16), b"", time, why,
            b"", b"", events, None, part, self.sizes[part],
        )  # fmt: skip
        self.sizes[part] += 1
        self.commits.append(commit)
        return commit

    def artifact(self, stream: str, name: str) -> Artifact:
        """One that is of a stream; every other one lies in parts."""
        blob = hashlib.sha256(f"{stream} {name}".encode()).digest()
        salt, parts = (b"", 3) if blob[0] % 2 else (bytes(32), 0)
        return Artifact(name, blob, len(name), stream, bytes(16), salt, parts)

    def shuffled(self, chance: random.Random) -> list[Commit]:
        """The same commits as somebody may read them: each slice in its order, and the slices anyhow."""
        lanes: dict[int, list[Commit]] = defaultdict(list)
        for commit in self.commits:
            lanes[commit.slice].append(commit)
        order = [part for part, lane in lanes.items() for _ in lane]
        chance.shuffle(order)
        return [lanes[part].pop(0) for part in order]


class Life(History):
    """A random history in which what happens could have happened."""

    def __init__(self, seed: int, steps: int = 80, skew: int = 20_000) -> None:
        super().__init__(seed, skew)
        self.tasks: dict[str, dict[str, Any]] = {}
        self.made: list[Artifact] = []
        self.shelf: list[Artifact] = []
        self.people, self.agents = ["ada", "bob"], ["writer", "editor", "checker"]
        for agent in self.agents:
            self.add(f"agent/{agent}", Registered("1", {"text.write": {}, f"{agent}.own": {}}))
        for _ in range(steps):
            self.random.choice([self.ask, self.start, *[self.work] * 6, self.end, self.elsewhere, self.put])()

    def _some(self, *, begun: bool = True) -> str | None:
        fit = [task for task, one in self.tasks.items() if not one["over"] and (one["agent"] is not None) == begun]
        return self.random.choice(fit) if fit else None

    def _known(self, task: str) -> dict[str, Any]:
        """An input, with an artifact that the task can know in it, or none."""
        known = self.tasks[task]["knows"]
        return {"text": "secret", "file": [self.random.choice(known)]} if known and self.random.random() < 0.6 else {}

    def _request(self, task: str, given: Any, cause: Commit | None = None, **more: Any) -> None:
        capability = self.random.choice(["text.write", "text.edit"])
        self.add(f"task/{task}", Requested(capability, msgspec.msgpack.encode(given), **more), cause=cause)
        self.tasks[task] = {"agent": None, "over": False, "waits": 0, "knows": [*given.get("file", [])], "open": {}}

    def put(self) -> None:
        artifact = self.artifact(f"artifact/a{len(self.shelf)}", "page")
        said = {"person": self.random.choice(self.people), "shown": msgspec.msgpack.encode(artifact)}
        self.add(artifact.stream, ArtifactPut(msgspec.msgpack.encode(said), bytes(64)))
        self.shelf.append(artifact)
        self.made.append(artifact)

    def ask(self) -> None:
        team = f"team{self.random.randint(1, 2)}" if self.random.random() < 0.2 else ""
        given = {"file": [self.random.choice(self.shelf)]} if self.shelf and self.random.random() < 0.5 else {}
        self._request(f"t{len(self.tasks)}", given, by=self.random.choice(self.people), team=team)

    def start(self) -> None:
        task = self._some(begun=False) or (self._some() if self.random.random() < 0.3 else None)
        if task:
            agent = self.random.choice(self.agents)
            self.tasks[task]["agent"] = agent
            self.add(f"task/{task}", Started(agent, "1", 1))

    def work(self) -> None:
        if task := self._some():
            how = self.random.choice(
                [self._step, self._keep, self._delegate, self._signal, self._approve, self._settle]
            )
            how(task, self.tasks[task])

    def _step(self, task: str, one: dict[str, Any]) -> None:
        name = self.random.choice(["model gpt", "model it's `odd`", "fetch", "parse", "memory.get x", "start other"])
        wait, given = one["waits"], msgspec.msgpack.encode(self._known(task))
        one["waits"] += 1
        self.add(f"task/{task}", Advanced(opened=[Opened(wait, "step", name, given)]))
        settled = Settled(wait, source=Source(f"agent/{self.random.choice(self.agents)}~x", 1))
        self.add(f"task/{task}", Advanced(settled=[settled if name.startswith("memory") else Settled(wait)]))

    def _keep(self, task: str, one: dict[str, Any]) -> None:
        artifact = self.artifact(f"task/{task}", str(one["waits"]))
        self.add(f"task/{task}", Advanced(opened=[Opened(one["waits"], "step", "artifact x")]))
        value = msgspec.msgpack.encode(artifact)
        self.add(f"task/{task}", Advanced(settled=[Settled(one["waits"], value, attachments=[artifact.blob])]))
        one["waits"] += 1
        one["knows"].append(artifact)
        self.made.append(artifact)

    def _delegate(self, task: str, one: dict[str, Any]) -> None:
        wait, child = one["waits"], f"t{len(self.tasks)}"
        one["waits"] += 1
        given, detached = self._known(task), self.random.random() < 0.2
        packed = msgspec.msgpack.encode(given)
        opening = self.add(f"task/{task}", Advanced(opened=[Opened(wait, "child", "text.write", packed)]))
        self._request(child, given, opening, by="ada", parent=Parent(task, wait), detached=detached)
        one["open"][wait] = child

    def _signal(self, task: str, one: dict[str, Any]) -> None:
        other = self._some()
        if other and other != task:
            given = self._known(task)
            wait = one["waits"]
            one["waits"] += 1
            opened = self.add(f"task/{task}", Advanced(opened=[Opened(wait, "signal", "word")]))
            source = Source(f"task/{task}", opened.revision)
            packed = msgspec.msgpack.encode(given)
            self.add(f"task/{other}", Received("signal", "word", packed, bytes(16), source=source))
            self.tasks[other]["knows"] += given.get("file", [])

    def _approve(self, task: str, one: dict[str, Any]) -> None:
        wait, person, kind = one["waits"], self.random.choice(self.people), self.random.randint(0, 3)
        one["waits"] += 1
        self.add(f"task/{task}", Advanced(opened=[Opened(wait, "approval", "go", b"\xa6secret")]))
        answer = {"approved": kind != 0, "person": person, "note": "", "statement": b"", "signature": b""}
        said = msgspec.msgpack.encode({"decision": self.random.choice(["approve", "reject"])})
        if kind == 2:
            self.add(f"task/{task}", Signed(wait, person, said, b""))
        elif kind == 3:
            self.add(f"task/{task}", Freed(wait, person))
        self.add(f"task/{task}", Advanced(settled=[Settled(wait, msgspec.msgpack.encode(answer))]))

    def _settle(self, task: str, one: dict[str, Any]) -> None:
        ended = {wait: child for wait, child in one["open"].items() if self.tasks[child]["over"]}
        if ended:
            wait, child = sorted(ended.items())[0]
            del one["open"][wait]
            files = self.tasks[child]["knows"][:1]
            source = Source(f"task/{child}", self.revisions[f"task/{child}"])
            settled = Settled(wait, msgspec.msgpack.encode({"file": files}), source=source)
            self.add(f"task/{task}", Advanced(settled=[settled]))
            one["knows"] += files

    def end(self) -> None:
        if task := self._some():
            ends = [Completed(msgspec.msgpack.encode(self._known(task))), Failed(Failure("E", "x")), Cancelled("ada")]
            self.add(f"task/{task}", self.random.choice(ends))
            self.tasks[task]["over"] = True

    def elsewhere(self) -> None:
        person, agent = self.random.choice(self.people), self.random.choice(self.agents)
        can: dict[str, Any] = {"text.write": {}} if self.random.random() < 0.5 else {"text.edit": {}, "other": {}}
        match self.random.randint(0, 5):
            case 0 | 1:
                self.add("people/roles", RoleGranted("editor", person, "ada"))
            case 2:
                self.add("people/roles", RoleWithdrawn("editor", person, "ada"))
            case 3 | 4:
                self.add(f"agent/{agent}", Registered("2", can))
            case 5 if self.random.random() < 0.2:
                self.add(f"agent/{agent}", Moved("archived"))


def moments(life: Life, chance: random.Random, many: int) -> list[Moment]:
    """Now, the beginning, and random ones of each form."""
    found = [NOW, Moment({})]
    for _ in range(many):
        commit = chance.choice(life.commits)
        sizes = {part: chance.randint(0, size) for part, size in life.sizes.items()}
        found += [
            Moment(sizes),
            Moment({}, chance.randint(START, life.clock)),
            Moment({commit.slice: commit.position + 1}, commit.time),
        ]
    return found


async def project(graph: Graph, commits: Sequence[Commit], batch: int = 50) -> Checkpoint:
    """Carry commits into a graph, as a worker does."""
    checkpoint = await graph.checkpoint(RELATIONSHIPS)
    for start in range(0, len(commits), batch):
        ahead, writes = graph.ahead(RELATIONSHIPS, checkpoint), list[Any]()
        after = dict(checkpoint.sizes)
        some = commits[start : start + batch]
        await ahead.expect([one.stream for one in some] + [one.cause.stream.decode() for one in some if one.cause])
        for commit in some:
            writes += ahead.add(await RELATIONSHIPS.writes(commit, ahead.read))
            after[commit.slice] = commit.position + 1
        moved = await graph.apply(RELATIONSHIPS, checkpoint, after, writes)
        assert moved is not None
        checkpoint = moved
        await asyncio.sleep(0)
    return checkpoint


def place(number: int = 0, part: int = 0) -> Place:
    """One of a made-up task's events."""
    return Place(part, number, 1_000 + number, "task/t", number + 1, f"{number:064x}", "task.advanced")


async def add(graph: Graph, *writes: Any, sizes: Sizes | None = None, letters: Letters = NO_LETTERS) -> Checkpoint:
    """Apply writes after what stands."""
    return await moved(graph, RELATIONSHIPS, writes, sizes, letters)


async def by_hand(url: str, *texts: str) -> list[list[Any]]:
    """What somebody does to a Neo4j that is not the party; the rows of the last text."""
    import neo4j

    login, _, address = url.rpartition("@")
    name, _, password = login.partition("://")[2].partition(":")
    rows: list[list[Any]] = []
    async with neo4j.AsyncGraphDatabase.driver(f"bolt://{address}", auth=(name, password)) as driver:
        for text in texts:
            async with driver.session() as session:
                rows = [list(row.values()) async for row in await session.run(text)]
    return rows


async def emptied(url: str) -> None:
    """Neo4j's one database, with nothing in it."""
    await by_hand(url, "MATCH (n) CALL (n) { DETACH DELETE n } IN TRANSACTIONS OF 5000 ROWS")
