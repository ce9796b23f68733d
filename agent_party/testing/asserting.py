"""What must hold of a run, whatever went wrong in it."""

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Any

from .history import Mark

if TYPE_CHECKING:
    from .lives import Effect
    from .scenario import Run


def assert_same_outcome(clean: "Run", crashed: "Run") -> None:
    """Both runs have come to the same: value, tasks with their waits, memories, entities.

    Not compared are times, recorded chance, who ran what, and how often.
    """
    differences = list(_differences("the scenario's value", clean.value, crashed.value))
    for what in ("tasks", "memories", "entities"):
        differences += _of_mappings(what, getattr(clean.history, what), getattr(crashed.history, what))
    assert not differences, _text(crashed, "has not come to what the run without a crash came to", differences)


def assert_effects_once(run: "Run") -> None:
    """Each effect ran once for each attempt; twice only where a crash came after its opening was recorded and before
    its outcome was. None ran before its opening was recorded, and none's outcome was lost.

    A store that refuses an outcome counts as such a crash: the task goes on from what is recorded.
    """
    findings: list[str] = []
    refusals = bool(run.faults.refused)
    key = lambda effect: (effect.task, effect.wait)  # noqa: E731
    for (task, wait), effects in groupby(sorted(run.effects, key=key), key):
        marks = run.history.marks.get((task, wait), [])
        done: set[tuple[int, int, int]] = set()
        for effect in effects:
            findings += _of_effect(effect, marks, done, refusals)
        if marks and marks[-1].settled is None and run.history.tasks[task].status == "completed":
            findings.append(f"wait {wait} of completed task {task}: its outcome was lost")
    assert not findings, _text(run, "did not keep to each effect once", findings)


def _of_effect(effect: "Effect", marks: list[Mark], done: set[tuple[int, int, int]], refusals: bool) -> list[str]:
    what = f"step {effect.name} (task {effect.task}, wait {effect.wait}, attempt {effect.attempt}, life {effect.life})"
    before = [mark for mark in marks if mark.opened <= effect.records]
    if not before:
        return [f"{what} ran before its opening was recorded"]
    mark = before[-1]
    if mark.settled is not None and mark.settled <= effect.records:
        return [f"{what} ran although its outcome was recorded"]
    again = (mark.opened, effect.life, effect.attempt)
    if again in done and not refusals:
        return [f"{what} ran twice in one process"]
    done.add(again)
    return []


def assert_timers(run: "Run") -> None:
    """No sleep of a task was over before its time."""
    findings = [
        f"wait {wait} of task {task} was over {(mark.due - mark.time) / 1e6:g} s before it was due"
        for (task, wait), marks in run.history.marks.items()
        for mark in marks
        if mark.due and mark.settled is not None and mark.time < mark.due
    ]
    assert not findings, _text(run, "had timers that fired early", findings)


def _of_mappings(what: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterable[str]:
    for name in sorted({*one, *other}):
        if name not in one:
            yield f"{what}: {name} is there, and was not without a crash (is each request given an id?)"
        elif name not in other:
            yield f"{what}: {name} is missing"
        else:
            yield from _differences(f"{what}: {name}", one[name], other[name])


def _differences(what: str, one: Any, other: Any) -> Iterable[str]:
    if one == other:
        return
    fields = getattr(type(one), "_fields", None)
    if fields and type(one) is type(other):
        for field in fields:
            yield from _differences(f"{what}.{field}", getattr(one, field), getattr(other, field))
    elif what.endswith(".waits"):
        gone, new = Counter(one) - Counter(other), Counter(other) - Counter(one)
        yield from (f"{what}: {wait} is missing" for wait in gone.elements())
        yield from (f"{what}: {wait} was not there without a crash" for wait in new.elements())
    else:
        yield f"{what}: {other!r} instead of {one!r}"


def _text(run: "Run", what: str, findings: list[str]) -> str:
    return "\n".join([f"the run with {run} {what}:", *(f"  {finding}" for finding in findings[:20])])
