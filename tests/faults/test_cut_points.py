"""A task of thirty waits, crashed before and after every append and every effect, and twice at random points.

The campaign `cut_points` does a thousand double crashes; `tests/cluster/test_cutting.py` does some with real kills.
"""

import pytest

from agent_party.testing import (
    Faults,
    Run,
    Scenario,
    assert_effects_once,
    assert_same_outcome,
    assert_timers,
    double_crashes,
)
from tests.faults import thirty

SCENARIO = Scenario(thirty.agents, thirty.drive)
DOUBLES = 20


@pytest.fixture(scope="module")
def clean() -> Run:
    """The run without a crash."""
    return SCENARIO.run()


def survives(clean: Run, faults: Faults) -> None:
    """A run with crashes comes to the same, and no effect ran more often than it must."""
    crashed = SCENARIO.run(faults)
    assert_same_outcome(clean, crashed)
    assert_effects_once(crashed)
    assert_timers(crashed)


def test_the_task_has_all_that_it_should(clean: Run) -> None:
    ending = max(clean.history.tasks.values(), key=lambda task: len(task.waits))
    assert {kind for kind, _, _ in ending.waits} >= {"step", "child", "approval", "signal", "update"}
    assert len(clean.history.tasks) == 3
    assert len(clean.cuts) > 100
    assert clean.value["extra"] == ["more", "late", "StepError"]
    assert_effects_once(clean)
    assert_timers(clean)


def test_a_crash_at_every_point(clean: Run) -> None:
    for cut in clean.cuts:
        survives(clean, Faults().crash(cut))


def test_two_crashes_at_random_points(clean: Run) -> None:
    for faults in double_crashes(clean.cuts, DOUBLES, seed=7):
        survives(clean, faults)


def test_messages_that_come_twice_and_answers_that_are_lost(clean: Run) -> None:
    survives(clean, Faults().deliver_twice())
    appends = [cut for cut in clean.cuts if cut.kind == "append" and cut.when == "after"]
    for cut in appends[:: len(appends) // 8]:
        survives(clean, Faults().lose_answer(cut))
