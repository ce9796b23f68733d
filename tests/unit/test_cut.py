"""Consistent cuts, against trying all of them."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from agent_party.actors.cut import Cut, History, greatest, past, violations

NAMES = ("a", "b", "c", "d")


@st.composite
def histories(draw: st.DrawFn) -> tuple[History, Cut]:
    """What may have happened: each commit follows from some that were made before it; and a bound."""
    history: dict[str, list[list[tuple[str, int]]]] = {name: [] for name in NAMES[: draw(st.integers(1, 4))]}
    made: list[tuple[str, int]] = []
    for _ in range(draw(st.integers(0, 10))):
        stream = draw(st.sampled_from(sorted(history)))
        causes = draw(st.lists(st.sampled_from(made), max_size=2)) if made else []
        history[stream].append([*causes, *draw(st.sampled_from([[], [("elsewhere", 3)]]))])
        made.append((stream, len(history[stream])))
    bound = {stream: draw(st.integers(0, len(commits) + 1)) for stream, commits in history.items()}
    return history, bound


def all_cuts(history: History) -> list[Cut]:
    ranges = [range(len(commits) + 1) for commits in history.values()]
    cuts = [dict(zip(history, cut, strict=True)) for cut in itertools.product(*ranges)]
    return [cut for cut in cuts if all(_holds(history, cut, stream) for stream in cut)]


def _holds(history: History, cut: Cut, stream: str) -> bool:
    """Consistency by its definition: whatever a commit in the cut follows from is in it."""
    causes = [cause for causes in history[stream][: cut[stream]] for cause in causes]
    return all(other not in cut or revision <= cut[other] for other, revision in causes)


@given(histories())
def test_the_greatest_cut_is_the_greatest_of_all(drawn: tuple[History, Cut]) -> None:
    history, bound = drawn
    within = [cut for cut in all_cuts(history) if all(cut[name] <= bound[name] for name in cut)]
    joined = {name: max(cut[name] for cut in within) for name in history}
    assert joined in within
    assert greatest(history, bound) == joined
    assert violations(history, joined) == []


@given(histories(), st.data())
def test_the_past_of_a_commit_is_the_smallest_cut_with_it(drawn: tuple[History, Cut], data: st.DataObject) -> None:
    history, _ = drawn
    points = [(name, n + 1) for name, commits in history.items() for n in range(len(commits))]
    if not points:
        return
    stream, revision = data.draw(st.sampled_from(points))
    holding = [cut for cut in all_cuts(history) if cut[stream] >= revision]
    assert past(history, (stream, revision)) == {name: min(cut[name] for cut in holding) for name in history}


@given(histories())
def test_violations_are_found_wherever_a_cut_is_not_consistent(drawn: tuple[History, Cut]) -> None:
    history, bound = drawn
    cut = {name: min(bound[name], len(commits)) for name, commits in history.items()}
    assert (violations(history, cut) == []) == (cut in all_cuts(history))
