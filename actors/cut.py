"""Consistent cuts over histories: what a group of streams was at one moment, closed under causation.

A history is, for each stream, what each of its commits follows from in the others. A cut says how many commits of each
stream are in it. It is consistent if whatever a commit in it follows from is in it too: nothing was received in it
that was not sent in it. (Chandy and Lamport 1985; Mattern 1989: the consistent cuts form a lattice, so that there is
one greatest below any bound.) Pure.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

Point = tuple[str, int]
"""A commit: stream and revision."""
History = Mapping[str, Sequence[Sequence[Point]]]
"""For each stream, for each revision from 1 on, the commits of other streams that it follows from."""
Cut = dict[str, int]


def greatest(history: History, bound: Mapping[str, int]) -> Cut:
    """The greatest consistent cut that is nowhere beyond ``bound``. What a commit follows from outside of the history
    does not count; a commit that is not in the history counts as never made."""
    cut = {stream: max(0, min(bound.get(stream, 0), len(commits))) for stream, commits in history.items()}
    followers: dict[str, list[tuple[int, Point]]] = defaultdict(list)
    for stream, commits in history.items():
        for revision, causes in enumerate(commits, 1):
            for cause, needed in causes:
                if cause in history:
                    followers[cause].append((needed, (stream, revision)))
    lowered = list(cut)
    while lowered:
        cause = lowered.pop()
        for needed, (stream, revision) in followers[cause]:
            if needed > cut[cause] and revision <= cut[stream]:
                cut[stream] = revision - 1
                lowered.append(stream)
    return cut


def past(history: History, point: Point) -> Cut:
    """The smallest consistent cut that holds a commit: all that it follows from, and itself."""
    cut = dict.fromkeys(history, 0)
    todo = [point]
    while todo:
        stream, revision = todo.pop()
        if stream not in history or revision <= cut[stream]:
            continue
        first, cut[stream] = cut[stream], revision
        todo += [cause for causes in history[stream][first:revision] for cause in causes]
    return cut


def violations(history: History, cut: Mapping[str, int]) -> list[tuple[Point, Point]]:
    """Each commit in a cut with a commit that it follows from and that is not in it. None: the cut is consistent."""
    return [
        ((stream, revision), cause)
        for stream, commits in history.items()
        for revision, causes in enumerate(commits[: cut.get(stream, 0)], 1)
        for cause in causes
        if cause[0] in history and cause[1] > cut.get(cause[0], 0)
    ]
