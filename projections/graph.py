"""The contract of a graph: who did what with what, each fact with the position that made it.

Nodes and edges are facts of one commit each. An edge is made once and, at most, ended once; nothing is ever deleted, so
that the graph can be asked as of any moment (see `moments`). A node that no stream of its own tells about, such as a
model or a person, is there as long as an edge that touches it is. It holds ids, names and hashes, and no payload.

What is asked is written once, in `questions`, for every store: a store gives nodes and edges.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from .moments import Moment
from .sink import Sink

KINDS = ("agent", "artifact", "capability", "model", "person", "policy", "role", "task", "team", "tool")
"""Kinds of nodes. Their labels in Cypher are the same with a capital letter."""
FOLD = "fold"
"""A kind that nobody asks for: what the projection remembers of a stream, under the stream's name."""
RELATIONS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "approved": (("person", "task"),),
    "asked": (("person", "task"),),
    "called-model": (("task", "model"),),
    "called-tool": (("task", "tool"),),
    "caused": (("task", "task"), ("agent", "task")),
    "delegated-to": (("task", "task"),),
    "depends-on": (("task", "task"), ("task", "capability")),
    "has-capability": (("agent", "capability"),),
    "member-of": (("agent", "team"), ("task", "team"), ("person", "role")),
    "produced": (("task", "artifact"),),
    "put": (("person", "artifact"),),
    "runs": (("agent", "task"),),
    "used": (("task", "artifact"),),
    "worked-with": (("agent", "agent"),),
}
"""Kinds of edges, and what they may join. Their types in Cypher are the same in capitals, with underscores."""
FIELDS = ("capability", "size", "state", "status")
"""What a node may hold beside its places. ``status``: how a task or an agent ended; ``size``: of an artifact."""
MOST = 100_000
"""How many nodes and edges a store may be asked for at once."""


class Ref(NamedTuple):
    """A node: its kind, and its id among those of the kind. Written ``kind/id``."""

    kind: str
    id: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.id}"


class Place(NamedTuple):
    """The event behind a fact: where its commit stands. ``commit``: its hash, hexadecimal; ``time``: microseconds since
    1970, the latest that its stream had claimed by then."""

    slice: int
    position: int
    time: int
    stream: str
    revision: int
    commit: str
    event: str


Also = tuple[int, int, int]
"""Slice, position and time of another commit that a fact needs."""


class Node(NamedTuple):
    """Write: a node is there, and has these fields from now on. ``made`` and ``ended`` are written once."""

    kind: str
    id: str
    made: Place | None = None
    ended: Place | None = None
    fields: Mapping[str, Any] = {}


class Edge(NamedTuple):
    """Write: an edge is made, if there is none of this kind, ends and ``key`` yet.

    ``also``: another place without which it is not there. ``since``: the revision of the source's stream that it
    comes from, 0 if that is the edge's own or unknown. ``version``: of an agent that runs a task.
    """

    kind: str
    source: Ref
    target: Ref
    key: str
    made: Place
    also: Also | None = None
    since: int = 0
    version: str = ""


class End(NamedTuple):
    """Write: an edge is ended, if it is there."""

    kind: str
    source: Ref
    target: Ref
    key: str
    ended: Place


GraphWrite = Node | Edge | End
Read = Callable[[str], Awaitable[str]]
"""What the projection remembers of a stream, as text; empty if nothing."""


class NodeRow(NamedTuple):
    """A node that was found. ``made`` is None for one that no stream of its own tells about."""

    ref: Ref
    made: Place | None
    ended: Place | None
    fields: Mapping[str, Any]


class EdgeRow(NamedTuple):
    """An edge that was found. The other fields: see `Edge`."""

    kind: str
    source: Ref
    target: Ref
    key: str
    made: Place
    ended: Place | None
    also: Also | None
    since: int
    version: str

    @property
    def id(self) -> tuple[str, ...]:
        """By what edges are told apart, and sorted: by their source first."""
        return (*self.source, self.kind, *self.target, self.key)


class Rows(NamedTuple):
    """What a raw query gave. ``more``: there would have been more rows than the limit."""

    columns: list[str]
    rows: list[list[Any]]
    more: bool = False


Way = Literal["out", "in", "both"]


class Graph(Sink[GraphWrite, Read], Protocol):
    """A sink of nodes and edges, and what can be asked of it. What is asked is answered from the live side alone.

    Every answer is sorted: nodes by kind and id, edges by `EdgeRow.id`. At most ``limit`` are given.
    """

    async def nodes(self, refs: Sequence[Ref]) -> list[NodeRow]:
        """Those of these nodes that there are."""
        ...

    async def edges(
        self, refs: Sequence[Ref], way: Way = "both", kinds: Sequence[str] = (), when: Moment | None = None,
        limit: int = MOST,
    ) -> list[EdgeRow]:  # fmt: skip
        """The edges of these nodes: those there are at a moment, or without one all there ever were. Of these kinds,
        or of all."""
        ...

    async def scan(
        self, when: Moment, but_not: Moment | None = None, kinds: Sequence[str] = (), limit: int = MOST
    ) -> tuple[list[NodeRow], list[EdgeRow]]:
        """The edges there are at a moment and not at another; and the nodes whose own stream tells, in the first and
        not in the other, that they were made or have ended. ``kinds``: of nodes and edges, both; all if none."""
        ...

    async def touched(self, refs: Sequence[Ref], when: Moment) -> set[Ref]:
        """Those of these nodes that an edge touches which is there at a moment."""
        ...

    async def named(self, name: str, limit: int = 10) -> list[Ref]:
        """The nodes of any kind with this id; and the artifacts and tasks whose ids begin with it."""
        ...

    async def query(self, cypher: str, parameters: Mapping[str, Any], limit: int = 10_000, seconds: float = 30) -> Rows:
        """Ask the store itself, in its Cypher. `ReadOnlyError` if it would change anything or read files."""
        ...

    def beside(self) -> "Graph": ...


class Changes(Iterable[GraphWrite]):
    """What writes come to: each node and each edge once, in the order in which they first came. Iterated over, it gives
    writes that come to the same."""

    def __init__(self, writes: Iterable[GraphWrite] = ()) -> None:
        self.nodes: dict[Ref, dict[str, Any]] = {}
        self.edges: dict[tuple[str, Ref, Ref, str], dict[str, Any]] = {}
        self.ends: dict[tuple[str, Ref, Ref, str], dict[str, Any]] = {}
        for write in writes:
            self.add(write)

    @classmethod
    def of(cls, writes: Iterable[GraphWrite]) -> "Changes":
        """These writes' own, where somebody has kept an account of them."""
        return writes if isinstance(writes, cls) else cls(writes)

    def __iter__(self) -> Iterator[GraphWrite]:
        for ref, fields in self.nodes.items():
            own = {name: fields[name] for name in FIELDS if name in fields}
            yield Node(*ref, place_in(fields, "made_"), place_in(fields, "ended_"), own)
        for identity, fields in self.edges.items():
            row = edge_row(*identity, fields)
            yield Edge(*identity, row.made, row.also, row.since, row.version)
        for identity, fields in (*self.edges.items(), *self.ends.items()):
            if ended := place_in(fields, "ended_"):
                yield End(*identity, ended)

    def add(self, write: GraphWrite) -> None:
        """The next write."""
        if isinstance(write, Node):
            row = self.nodes.setdefault(Ref(write.kind, write.id), {})
            if write.made and "made_slice" not in row:
                row |= flat(write.made, "made_")
            if write.ended and "ended_slice" not in row:
                row |= flat(write.ended, "ended_")
            row |= write.fields
            return
        identity = (write.kind, write.source, write.target, write.key)
        if isinstance(write, End):
            known = self.edges.get(identity)
            ends = self.ends.setdefault(identity, {}) if known is None else known
            if "ended_slice" not in ends:
                ends |= flat(write.ended, "ended_")
        elif identity not in self.edges:
            self.nodes.setdefault(write.source, {})
            self.nodes.setdefault(write.target, {})
            self.edges[identity] = edge_fields(write)


_ALSO = ("also_slice", "also_position", "also_time")


def edge_fields(edge: Edge) -> dict[str, Any]:
    """An edge's fields as they are stored, but for its key."""
    fields = flat(edge.made, "made_")
    if edge.also:
        fields |= dict(zip(_ALSO, edge.also, strict=True))
    if edge.since:
        fields["since"] = edge.since
    if edge.version:
        fields["version"] = edge.version
    return fields


def flat(place: Place, prefix: str) -> dict[str, Any]:
    """A place as fields."""
    return dict(zip(_PLACES[prefix], place, strict=True))


_PLACES = {prefix: tuple(prefix + name for name in Place._fields) for prefix in ("made_", "ended_")}
NODE_FIELDS = (*_PLACES["made_"], *_PLACES["ended_"], *FIELDS)
EDGE_FIELDS = (*_PLACES["made_"], *_PLACES["ended_"], *_ALSO, "since", "version")
"""All that a stored node or edge may hold beside what names it."""


def place_in(fields: Mapping[str, Any], prefix: str) -> Place | None:
    """The place that fields hold, if they do."""
    if fields.get(f"{prefix}slice") is None:
        return None
    return Place(*(fields.get(name) for name in _PLACES[prefix]))  # type: ignore[arg-type]


def node_row(ref: Ref, fields: Mapping[str, Any]) -> NodeRow:
    """A node from what is stored."""
    own = {name: fields[name] for name in FIELDS if fields.get(name) is not None and name != "state"}
    return NodeRow(ref, place_in(fields, "made_"), place_in(fields, "ended_"), own)


def edge_row(kind: str, source: Ref, target: Ref, key: str, fields: Mapping[str, Any]) -> EdgeRow:
    """An edge from what is stored."""
    also = None if fields.get("also_slice") is None else tuple(fields[name] for name in _ALSO)
    made, ended = place_in(fields, "made_"), place_in(fields, "ended_")
    assert made is not None
    return EdgeRow(
        kind, source, target, key, made, ended, also,
        fields.get("since") or 0, fields.get("version") or "",
    )  # fmt: skip


_Load = Callable[[Sequence[str]], Awaitable[Mapping[str, str]]]


class StatesAhead:
    """What the projection remembers of streams, as the writes of a batch will leave it.

    ``load`` gives what is stored of some streams. ``empty``: nothing was projected before, so whatever is stored counts
    for nothing. ``before``: of the batch before this one, where that may not be stored yet.
    """

    def __init__(self, load: _Load, empty: bool, before: "StatesAhead | None" = None) -> None:
        self._load, self._first = load, before is None and empty
        self._empty = before._first if before else empty
        self._states: dict[str, str] = {}
        self.writes = Changes()
        self._before = before._states if before else {}

    def following(self) -> "StatesAhead":
        """All that a batch has read or written is known to the next one; what is older is stored by then."""
        return StatesAhead(self._load, False, self)

    async def expect(self, streams: Iterable[str]) -> None:
        """Look up what is remembered of them, at once."""
        await self._look_up(set(streams))

    async def _look_up(self, streams: set[str]) -> None:
        wanted = streams - self._states.keys()
        missing = sorted(wanted - self._before.keys())
        found = await self._load(missing) if missing and not self._empty else {}
        self._states |= {stream: found.get(stream, "") for stream in missing}
        self._states |= {stream: self._before[stream] for stream in wanted & self._before.keys()}

    async def read(self, stream: str) -> str:
        """What is remembered of a stream."""
        if stream not in self._states:
            await self._look_up({stream})
        return self._states[stream]

    def add(self, writes: Iterable[GraphWrite]) -> list[GraphWrite]:
        """These come next."""
        added = list(writes)
        for write in added:
            self.writes.add(write)
            if isinstance(write, Node) and write.kind == FOLD:
                self._states[write.id] = write.fields["state"]
        return added
