"""What something has reached: all that is downstream of an agent, an artifact or a task.

A task that is reached at a revision passes on what it does from that revision on: what it produces, whom it delegates
to, and what else it causes; an artifact reaches the tasks that use it. The agents that run a task which is reached, the
person who asked for it and those who approve it afterwards are reached too, and pass nothing on.
"""

from collections.abc import Iterator

from .graph import MOST, EdgeRow, Graph, Ref
from .graph_errors import GraphError, TooLargeError
from .moments import Moment
from .questions import LIMIT, Blast, Reached

_FLOWS = ("produced", "delegated-to", "caused", "runs", "asked", "approved", "used")
_ROUNDS = 10_000


async def blast(graph: Graph, ref: Ref, since: Moment | None = None, limit: int = LIMIT) -> Blast:
    """Everything that something has reached; of an agent, by what it has run. ``since``: only by what was not there
    at that moment; of an agent also by what it was running then."""
    if ref.kind not in ("agent", "artifact", "task"):
        raise GraphError(f"{ref} does nothing: ask for the blast of an agent, an artifact or a task")
    reached: dict[Ref, Reached] = {}
    passing: dict[Ref, int] = {ref: 0}
    frontier, steps = {ref}, 0
    while frontier and steps < _ROUNDS:
        steps += 1
        edges = await graph.edges(sorted(frontier), "both", _FLOWS)
        if len(edges) >= MOST:
            raise TooLargeError(f"too much is downstream of {ref}: ask with --since")
        following = set[Ref]()
        for edge in edges:
            for target, revision in _along(edge, frontier, passing, since, ref):
                if target != ref and target not in reached:
                    if len(reached) >= limit:
                        return Blast(_sorted(reached), True)
                    reached[target] = Reached(target, edge, steps)
                if revision is not None and revision < passing.get(target, revision + 1):
                    passing[target] = revision
                    following.add(target)
        frontier = following
    return Blast(_sorted(reached))


def _sorted(reached: dict[Ref, Reached]) -> list[Reached]:
    return sorted(reached.values(), key=lambda one: (one.steps, one.ref))


def _along(
    edge: EdgeRow, frontier: set[Ref], passing: dict[Ref, int], since: Moment | None, start: Ref
) -> Iterator[tuple[Ref, int | None]]:
    """What is reached over an edge, and from which revision on it passes on; None if it does not."""
    made, new = edge.made, since is None or not since.holds(*edge.made[:3])
    match edge.kind:
        case "produced" if edge.source in frontier and new and made.revision >= passing[edge.source]:
            yield edge.target, 0
        case "used" if edge.target in frontier and new:
            yield edge.source, made.revision
        case "delegated-to" | "caused" if edge.source in frontier and edge.source.kind == "task" and new:
            if not edge.since or edge.since >= passing[edge.source]:
                yield edge.target, made.revision
        case "runs" if edge.source == start and start in frontier:
            if new or edge.ended is None or (since and not since.holds(*edge.ended[:3])):
                yield edge.target, made.revision
        case "runs" if edge.target in frontier:
            if edge.ended is None or edge.ended.revision >= passing[edge.target]:
                yield edge.source, None
        case "asked" if edge.target in frontier:
            yield edge.source, None
        case "approved" if edge.target in frontier and new and made.revision >= passing[edge.target]:
            yield edge.source, None
