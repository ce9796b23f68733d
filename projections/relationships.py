"""The projection behind the graph: what each commit says about who did what with what.

Every fact comes from one stream, and counts at its commit there, so the order in which slices are read changes nothing.
Only who worked with whom takes two: whichever of a task and its parent is read later tells it. Payloads are looked
through for artifacts, and nothing of them is kept.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from ..eventstore.reading import Commit, Opaque
from .graph import FOLD, Also, Edge, End, GraphWrite, Node, Place, Read, Ref

_OWN_STEPS = ("start ", "artifact ", "memory.", "tool ")
"""How the names of steps begin that are no calls of a tool: delegating, keeping, remembering, looking up."""
_MODEL = "model "
_ARTIFACT = frozenset({"name", "blob", "size", "stream", "key_id", "salt"})
_IN_PARTS = _ARTIFACT | {"parts"}
_ENDED = {"task.completed": "completed", "task.failed": "failed", "task.cancelled": "cancelled"}
_DEEP = 64


class _Task(msgspec.Struct, omit_defaults=True):
    """Of a task's stream. ``agent`` and ``run``: who runs it, and the key of that edge; ``began``: slice, position and
    time of its first start, by ``first``; ``asks``: open approvals; ``kids``: those that were read to have begun before
    it was; ``needs``: what it depends on while it lasts."""

    time: int = 0
    agent: str = ""
    run: str = ""
    first: str = ""
    began: Also | None = None
    asks: list[int] = []
    kids: list[tuple[str, str, Place]] = []
    needs: list[str] = []
    parent: str = ""
    waited: bool = False
    team: str = ""
    over: bool = False


class _Agent(msgspec.Struct, omit_defaults=True):
    """Of an agent's stream. ``can``: the key of the edge to each capability."""

    time: int = 0
    can: dict[str, str] = {}
    known: bool = False
    over: bool = False


class _People(msgspec.Struct, omit_defaults=True):
    """Of the roles' stream. ``has``: the key of the edge from each person to each role."""

    time: int = 0
    has: dict[str, dict[str, str]] = {}


class Relationships:
    """Nodes and edges: see `graph.KINDS` and `graph.RELATIONS`."""

    name = "relationships"
    version = 2
    data_only = True
    """Control commits say nothing to it, so they are not even read."""

    async def writes(self, commit: Commit, read: Read) -> Iterable[GraphWrite]:
        kind, _, key = commit.stream.partition("/")
        if not commit.events:
            return []
        if kind == "task":
            return await _OfTask(key, commit, _decoded(await read(commit.stream), _Task)).writes(read)
        if kind == "agent":
            return _of_agent(key, commit, _decoded(await read(commit.stream), _Agent))
        if kind == "artifact":
            return _of_artifact(commit)
        if commit.stream == "people/roles":
            return _of_people(commit, _decoded(await read(commit.stream), _People))
        return []


class _OfTask:
    """What one commit of a task's stream says."""

    def __init__(self, task: str, commit: Commit, state: _Task) -> None:
        self.task, self.ref, self.commit, self.state = task, Ref("task", task), commit, state
        state.time = max(state.time, commit.time)
        self.found: list[GraphWrite] = []
        self.place = Place(0, 0, 0, "", 0, "", "")

    async def writes(self, read: Read) -> list[GraphWrite]:
        for event in self.commit.events:
            if not isinstance(event, Opaque) and not self.state.over:
                name = type(event).__event__.name.decode()
                self.place = _place(self.commit, name, self.state.time)
                self._event(name, event)
                if name == "task.started":
                    await self._began(event.agent, read)
        self.found.append(_fold(self.commit.stream, self.state))
        return self.found

    def _event(self, name: str, event: Any) -> None:
        match name:
            case "task.requested":
                self._requested(event)
            case "task.started":
                self._started(event)
            case "task.advanced":
                for opened in event.opened:
                    self._opened(opened)
                for settled in event.settled:
                    self._settled(settled)
            case "task.signed":
                if _said(event.statement) == "approve":
                    self._approved(event.person, event.wait)
            case "task.freed":
                if event.by:
                    self._approved(event.by, event.wait)
            case "task.received":
                self._artifacts("used", event.input)
                if event.source:
                    self._caused(event.source.stream, event.source.revision)
            case "task.forked":
                self._caused(f"task/{event.task}", event.revision)
            case "task.completed" | "task.failed" | "task.cancelled":
                if name == "task.completed":
                    self._artifacts("", event.result)
                self._ended(_ENDED[name])

    def _edge(self, kind: str, source: Ref, target: Ref, key: str = "", **more: Any) -> None:
        self.found.append(Edge(kind, source, target, key, self.place, **more))

    def _requested(self, event: Any) -> None:
        self.found.append(Node(*self.ref, made=self.place, fields={"capability": event.capability}))
        self._edge("depends-on", self.ref, Ref("capability", event.capability))
        self.state.needs.append(event.capability)
        if event.parent:
            parent = Ref("task", event.parent.task)
            cause = self.commit.cause
            self._edge("delegated-to", parent, self.ref, since=cause.revision if cause else 0)
            self.state.parent, self.state.waited = parent.id, not event.detached
            if self.state.waited:
                self._edge("depends-on", parent, self.ref)
        elif event.by:
            self._edge("asked", Ref("person", event.by), self.ref)
        if event.team:
            self.state.team = event.team
            self._edge("member-of", self.ref, Ref("team", event.team))
        self._artifacts("used", event.input)

    def _started(self, event: Any) -> None:
        state = self.state
        if state.agent == event.agent:
            return
        self._stop_running()
        state.agent, state.run = event.agent, str(self.commit.revision)
        self._edge("runs", Ref("agent", event.agent), self.ref, state.run, version=event.version)
        if state.team:
            self._edge("member-of", Ref("agent", event.agent), Ref("team", state.team), self.task)

    async def _began(self, agent: str, read: Read) -> None:
        """Who works with whom: by the first agents of a task and of its parent."""
        state = self.state
        if state.began:
            return
        state.first, state.began = agent, self.place[:3]
        for child, other, place in state.kids:
            self._worked(agent, other, child, place, state.began)
        state.kids = []
        if not state.parent or state.parent == self.task:
            return
        stream = f"task/{state.parent}"
        above = _decoded(await read(stream), _Task)
        if above.began:
            self._worked(above.first, agent, self.task, self.place, above.began)
        else:
            above.kids = sorted([*above.kids, (self.task, agent, self.place)])
            self.found.append(_fold(stream, above))

    def _worked(self, one: str, other: str, child: str, made: Place, also: Also) -> None:
        if one != other:
            ends = Ref("agent", one), Ref("agent", other)
            self.found.append(Edge("worked-with", *ends, child, made, also))

    def _stop_running(self) -> None:
        if self.state.run:
            self.found.append(End("runs", Ref("agent", self.state.agent), self.ref, self.state.run, self.place))
            self.state.agent = self.state.run = ""

    def _opened(self, opened: Any) -> None:
        if opened.kind == "approval":
            self.state.asks.append(opened.wait)
        elif opened.kind == "step":
            if opened.name.startswith(_MODEL):
                self._edge("called-model", self.ref, Ref("model", opened.name.removeprefix(_MODEL)))
            elif not opened.name.startswith(_OWN_STEPS):
                self._edge("called-tool", self.ref, Ref("tool", opened.name))
        self._artifacts("used", opened.input)

    def _settled(self, settled: Any) -> None:
        self._artifacts("", settled.value)
        if settled.source:
            self._caused(settled.source.stream, settled.source.revision)
        if settled.wait in self.state.asks:
            self.state.asks.remove(settled.wait)
            answer = None if settled.failure else _unpacked(settled.value)
            if isinstance(answer, dict) and answer.get("approved") is True and answer.get("person"):
                self._approved(str(answer["person"]), settled.wait)

    def _approved(self, person: str, wait: int) -> None:
        self._edge("approved", Ref("person", person), self.ref, f"{self.commit.revision}.{wait}")

    def _caused(self, stream: str, revision: int) -> None:
        kind, _, key = stream.partition("/")
        if kind == "agent":
            key = key.partition("~")[0]  # the memory of a team fork is that agent's
        if kind in ("task", "agent") and key and (kind, key) != self.ref:
            self._edge("caused", Ref(kind, key), self.ref, f"{self.commit.revision}.{revision}", since=revision)

    def _artifacts(self, how: str, packed: bytes) -> None:
        """Those that a payload names. Without ``how``, this task's own are produced and others' used."""
        for blob, size, stream in _artifacts_in(packed):
            kind = how or ("produced" if stream == self.commit.stream else "used")
            self.found.append(Node("artifact", blob, fields={"size": size}))
            key = str(self.commit.revision) if kind == "used" else ""
            self._edge(kind, self.ref, Ref("artifact", blob), key)

    def _ended(self, status: str) -> None:
        self._stop_running()
        for capability in self.state.needs:
            self.found.append(End("depends-on", self.ref, Ref("capability", capability), "", self.place))
        if self.state.waited:
            self.found.append(End("depends-on", Ref("task", self.state.parent), self.ref, "", self.place))
        self.found.append(Node(*self.ref, ended=self.place, fields={"status": status}))
        self.state.over, self.state.asks, self.state.needs = True, [], []


def _of_agent(agent: str, commit: Commit, state: _Agent) -> list[GraphWrite]:
    found: list[GraphWrite] = []
    state.time, ref = max(state.time, commit.time), Ref("agent", agent)
    for event in commit.events:
        if isinstance(event, Opaque) or state.over:
            continue
        name = type(event).__event__.name.decode()
        place = _place(commit, name, state.time)
        can: Any = None
        if name == "agent.registered":
            can = event.capabilities
            if not state.known:
                found.append(Node(*ref, made=place))
                state.known = True
        elif name == "agent.moved" and event.phase == "archived":
            can = ()
            found.append(Node(*ref, ended=place, fields={"status": "archived"}))
            state.over = True
        if can is None:
            continue
        for capability in sorted(state.can.keys() - set(can)):
            key = state.can.pop(capability)
            found.append(End("has-capability", ref, Ref("capability", capability), key, place))
        for capability in sorted(set(can) - state.can.keys()):
            state.can[capability] = str(commit.revision)
            found.append(Edge("has-capability", ref, Ref("capability", capability), state.can[capability], place))
    return [*found, _fold(commit.stream, state)]


def _of_artifact(commit: Commit) -> list[GraphWrite]:
    """Of a stream with one commit, so that its own time is the latest."""
    found: list[GraphWrite] = []
    for event in commit.events:
        if not isinstance(event, Opaque) and isinstance(said := _unpacked(event.statement), dict):
            place = _place(commit, type(event).__event__.name.decode(), commit.time)
            for blob, size, _ in _artifacts_in(said.get("shown", b"")):
                found.append(Node("artifact", blob, fields={"size": size}))
                found.append(Edge("put", Ref("person", str(said.get("person"))), Ref("artifact", blob), "", place))
    return found


def _of_people(commit: Commit, state: _People) -> list[GraphWrite]:
    found: list[GraphWrite] = []
    state.time = max(state.time, commit.time)
    for event in commit.events:
        if isinstance(event, Opaque):
            continue
        name = type(event).__event__.name.decode()
        place = _place(commit, name, state.time)
        ends, has = (Ref("person", event.person), Ref("role", event.role)), state.has.setdefault(event.person, {})
        if name == "people.granted" and event.role not in has:
            has[event.role] = str(commit.revision)
            found.append(Edge("member-of", *ends, has[event.role], place))
        elif name == "people.withdrawn" and event.role in has:
            found.append(End("member-of", *ends, has.pop(event.role), place))
    return [*found, _fold(commit.stream, state)]


def _place(commit: Commit, event: str, time: int) -> Place:
    return Place(commit.slice, commit.position, time, commit.stream, commit.revision, commit.hash.hex(), event)


def _fold(stream: str, state: msgspec.Struct) -> Node:
    return Node(FOLD, stream, fields={"state": msgspec.json.encode(state).decode()})


def _decoded(text: str, kind: Any) -> Any:
    return msgspec.json.decode(text, type=kind) if text else kind()


def _unpacked(packed: bytes) -> Any:
    try:
        return msgspec.msgpack.decode(packed)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _said(statement: bytes) -> str:
    """What a signed statement decides."""
    said = _unpacked(statement)
    return str(said.get("decision", "")) if isinstance(said, dict) else ""


def _artifacts_in(packed: bytes) -> Iterator[tuple[str, int, str]]:
    """Blob, size and stream of each artifact that a payload names."""
    if b"key_id" in packed and b"salt" in packed:  # nearly all payloads are done with here
        yield from _walked(_unpacked(packed), 0)


def _walked(value: Any, depth: int) -> Iterator[tuple[str, int, str]]:
    if isinstance(value, dict):
        if value.keys() in (_ARTIFACT, _IN_PARTS) and isinstance(value["blob"], bytes) and len(value["blob"]) == 32:
            yield value["blob"].hex(), int(value["size"]), str(value["stream"])
            return
        inner: Iterable[Any] = value.values()
    elif isinstance(value, list):
        inner = value
    else:
        return
    if depth < _DEEP:
        for one in inner:
            yield from _walked(one, depth + 1)
