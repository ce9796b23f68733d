"""The answers of a graph by brute force: the log is folded anew for each question, without the projection's code."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from agent_party.actors.agent_events import Moved, Registered
from agent_party.actors.events import (
    Advanced,
    Cancelled,
    Completed,
    Failed,
    Forked,
    Freed,
    Received,
    Requested,
    Signed,
    Started,
)
from agent_party.actors.people import RoleGranted, RoleWithdrawn
from agent_party.actors.shelf import ArtifactPut
from agent_party.eventstore.reading import Commit
from agent_party.projections.graph import Ref
from agent_party.projections.moments import Moment

Fact = tuple[str, Ref, Ref, str]
"""Kind, source, target, and the commit that made it."""


def before(commits: Iterable[Commit], moment: Moment) -> list[Commit]:
    """The commits that are there at a moment: of each stream, those before the first one that is not."""
    latest: dict[str, int] = defaultdict(int)
    kept = []
    for commit in commits:
        latest[commit.stream] = max(latest[commit.stream], commit.time)
        if moment.holds(commit.slice, commit.position, latest[commit.stream]):
            kept.append(commit)
    return kept


class Fold:
    """What there is after some commits. ``all``: every fact there ever was, with the commit that made it and that ended
    it; ``facts``: those that are there."""

    def __init__(self, commits: Sequence[Commit]) -> None:
        self.facts: dict[tuple[str, Ref, Ref, str], Commit] = {}
        self.all: dict[Fact, list[Commit | None]] = {}
        self.since: dict[Fact, int] = {}
        self.own: dict[Ref, Commit] = {}
        self.ended: dict[Ref, tuple[str, Commit]] = {}
        self.first: dict[str, tuple[str, Commit]] = {}
        self.parent: dict[str, str] = {}
        self.detached: set[str] = set()
        self.asks: set[tuple[str, int]] = set()
        for commit in commits:
            for event in commit.events:
                self.event(commit, event)
        for task, (agent, start) in self.first.items():
            above = self.first.get(self.parent.get(task, ""))
            if above and above[0] != agent:
                self.make(start, "worked-with", Ref("agent", above[0]), Ref("agent", agent), task)

    @property
    def edges(self) -> set[Fact]:
        return {(kind, one, other, commit.hash.hex()) for (kind, one, other, _), commit in self.facts.items()}

    @property
    def nodes(self) -> dict[Ref, str]:
        """All that there is, and how it ended."""
        ends = {end for kind, one, other, _ in self.facts for end in (one, other)}
        return {ref: self.ended[ref][0] if ref in self.ended else "" for ref in {*ends, *self.own}}

    def make(self, commit: Commit, kind: str, one: Ref, other: Ref, key: str = "", since: int = 0) -> None:
        if (kind, one, other, key) in self.facts:
            return
        self.facts[kind, one, other, key] = commit
        fact = (kind, one, other, commit.hash.hex())
        self.all.setdefault(fact, [commit, None])
        self.since.setdefault(fact, since)

    def end(self, commit: Commit, kind: str, **where: Ref) -> None:
        for fact in [fact for fact in self.facts if fact[0] == kind]:
            if where.get("one", fact[1]) == fact[1] and where.get("other", fact[2]) == fact[2]:
                made = self.facts.pop(fact)
                self.all[*fact[:3], made.hash.hex()][1] = commit

    def event(self, commit: Commit, event: Any) -> None:
        kind, _, name = commit.stream.partition("/")
        me = Ref(kind, name)
        if me in self.ended:
            return
        match event:
            case Registered():
                self.own.setdefault(me, commit)
                for fact in [fact for fact in self.facts if fact[0] == "has-capability" and fact[1] == me]:
                    if fact[2].id not in event.capabilities:
                        self.end(commit, "has-capability", one=me, other=fact[2])
                for capability in event.capabilities:
                    self.make(commit, "has-capability", me, Ref("capability", capability))
            case Moved(phase="archived"):
                self.end(commit, "has-capability", one=me)
                self.ended[me] = ("archived", commit)
            case RoleGranted():
                self.make(commit, "member-of", Ref("person", event.person), Ref("role", event.role))
            case RoleWithdrawn():
                self.end(commit, "member-of", one=Ref("person", event.person), other=Ref("role", event.role))
            case ArtifactPut():
                self.make(commit, "put", Ref("person", event.person), Ref("artifact", event.artifact.blob.hex()))
            case _ if kind == "task":
                self.task(commit, event, me)

    def task(self, commit: Commit, event: Any, me: Ref) -> None:
        match event:
            case Requested():
                self.requested(commit, event, me)
            case Started():
                if not any(f[0] == "runs" and f[2] == me and f[1].id == event.agent for f in self.facts):
                    self.end(commit, "runs", other=me)
                    self.make(commit, "runs", Ref("agent", event.agent), me)
                    for fact in [fact for fact in self.facts if fact[0] == "member-of" and fact[1] == me]:
                        self.make(commit, "member-of", Ref("agent", event.agent), fact[2], me.id)
                self.first.setdefault(me.id, (event.agent, commit))
            case Advanced():
                self.advanced(commit, event, me)
            case Signed() if msgspec.msgpack.decode(event.statement)["decision"] == "approve":
                self.make(commit, "approved", Ref("person", event.person), me, f"{commit.revision} {event.wait}")
            case Freed():
                self.make(commit, "approved", Ref("person", event.by), me, f"{commit.revision} {event.wait}")
            case Received():
                self.uses(commit, event.input, me, always=True)
                self.caused(commit, event.source, me)
            case Forked():
                self.make(commit, "caused", Ref("task", event.task), me, str(commit.revision), event.revision)
            case Completed() | Failed() | Cancelled():
                if isinstance(event, Completed):
                    self.uses(commit, event.result, me)
                self.end(commit, "runs", other=me)
                self.end(commit, "depends-on", other=me)
                for fact in [f for f in self.facts if f[0] == "depends-on" and f[1] == me]:
                    if fact[2].kind == "capability":
                        self.end(commit, "depends-on", one=me, other=fact[2])
                self.ended[me] = (type(event).__name__.lower(), commit)

    def requested(self, commit: Commit, event: Requested, me: Ref) -> None:
        self.own.setdefault(me, commit)
        self.make(commit, "depends-on", me, Ref("capability", event.capability))
        if event.parent:
            above = Ref("task", event.parent.task)
            self.parent[me.id] = above.id
            since = commit.cause.revision if commit.cause else 0
            self.make(commit, "delegated-to", above, me, since=since)
            if not event.detached:
                self.make(commit, "depends-on", above, me)
        else:
            self.make(commit, "asked", Ref("person", event.by), me)
        if event.team:
            self.make(commit, "member-of", me, Ref("team", event.team))
        self.uses(commit, event.input, me, always=True)

    def advanced(self, commit: Commit, event: Advanced, me: Ref) -> None:
        for opened in event.opened:
            if opened.kind == "approval":
                self.asks.add((me.id, opened.wait))
            if opened.kind == "step" and opened.name.startswith("model "):
                self.make(commit, "called-model", me, Ref("model", opened.name[6:]))
            elif opened.kind == "step" and opened.name in ("fetch", "parse"):
                self.make(commit, "called-tool", me, Ref("tool", opened.name))
            self.uses(commit, opened.input, me, always=True)
        for settled in event.settled:
            self.uses(commit, settled.value, me)
            self.caused(commit, settled.source, me)
            if (me.id, settled.wait) in self.asks:
                self.asks.discard((me.id, settled.wait))
                answer = msgspec.msgpack.decode(settled.value)
                if answer["approved"]:
                    person = Ref("person", answer["person"])
                    self.make(commit, "approved", person, me, f"{commit.revision} {settled.wait}")

    def caused(self, commit: Commit, source: Any, me: Ref) -> None:
        if source:
            kind, _, name = source.stream.partition("/")
            ref = Ref(kind, name.partition("~")[0] if kind == "agent" else name)
            self.make(commit, "caused", ref, me, f"{commit.revision} {source.revision}", source.revision)

    def uses(self, commit: Commit, packed: bytes, me: Ref, *, always: bool = False) -> None:
        for artifact in _artifacts(msgspec.msgpack.decode(packed)):
            ref = Ref("artifact", artifact["blob"].hex())
            if always or artifact["stream"] != commit.stream:
                self.make(commit, "used", me, ref, str(commit.revision))
            else:
                self.make(commit, "produced", me, ref)


def _artifacts(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict) and "blob" in value:
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _artifacts(inner)


def why(commits: Sequence[Commit], artifact: Ref, whole: Fold | None = None) -> list[tuple[str, str, int]]:
    """Kind, stream and revision of each event from an artifact back to who asked. ``whole``: the fold of all commits,
    for who asks more than once."""
    whole, found = whole or Fold(commits), list[tuple[str, str, int]]()
    made = {fact: pair[0] for fact, pair in whole.all.items()}
    if put := [commit for fact, commit in made.items() if fact[0] == "put" and fact[2] == artifact and commit]:
        return [("put", put[0].stream, put[0].revision)]
    produced = [(fact, commit) for fact, commit in made.items() if fact[0] == "produced" and fact[2] == artifact]
    if not produced:
        return []
    ((_, task, _, _), commit), until = produced[0], 0
    assert commit is not None
    found.append(("produced", commit.stream, commit.revision))
    until = commit.revision
    while True:
        runs = [c for f, c in made.items() if f[0] == "runs" and f[2] == task and c and c.revision <= until]
        if runs:
            last = max(runs, key=lambda one: one.revision)
            found.append(("runs", last.stream, last.revision))
        request = next(commit for commit in commits if commit.stream == f"task/{task.id}")
        if not request.events[0].parent:
            return [*found, ("asked", request.stream, request.revision)]
        found.append(("delegated-to", request.stream, request.revision))
        assert request.cause is not None
        task, until = Ref("task", request.events[0].parent.task), request.cause.revision


def blast(commits: Sequence[Commit], start: Ref, since: Moment | None) -> set[Ref]:
    """All that is downstream, by going over all facts again and again until nothing changes."""
    whole = Fold(commits)
    old = {commit.hash for commit in before(commits, since)} if since else set()
    passing: dict[Ref, int] = {start: 0}
    reached: set[Ref] = set()
    while True:
        was = (dict(passing), set(reached))
        for (kind, one, other, fact_id), (made, ended) in whole.all.items():
            assert made is not None
            new, sent = made.hash not in old, whole.since[kind, one, other, fact_id]
            target: Ref | None = None
            at = made.revision
            if kind == "produced" and one in passing and new and at >= passing[one]:
                target, at = other, 0
            elif kind == "used" and other in passing and new:
                target = one
            elif kind in ("delegated-to", "caused") and one.kind == "task" and one in passing and new:
                target = other if not sent or sent >= passing[one] else None
            elif kind == "runs" and one == start:
                running = ended is None or (since is not None and ended.hash not in old)
                target = other if new or running else None
            if target:
                passing[target] = min(passing.get(target, at), at)
                reached.add(target)
            leaf = other in passing and other.kind == "task"
            if kind == "runs" and leaf and (ended is None or ended.revision >= passing[other]):
                reached.add(one)
            if kind == "asked" and leaf:
                reached.add(one)
            if kind == "approved" and leaf and new and made.revision >= passing[other]:
                reached.add(one)
        if was == (passing, reached):
            return reached - {start}
