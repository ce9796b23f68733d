"""Generated plays: whatever is lost, late or repeated, whoever crashes, every promise holds.

And the writer's own source with a bug planted in it: the plays must notice.
"""

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from agent_party.eventstore import lanes
from tests.faults.planted import BUGS, NEEDS_A_JUMP, planted
from tests.faults.play import FATES, STREAMS, Act, Play

ACTS = st.builds(
    Act,
    process=st.integers(0, 1),
    stream=st.integers(0, len(STREAMS) - 1),
    what=st.sampled_from(["append", "append", "append", "stale", "take over", "fence"]),
)


class Plays(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.play = Play()

    @rule(acts=st.lists(ACTS, min_size=1, max_size=4), fates=st.lists(st.sampled_from(FATES), max_size=8))
    def act(self, acts: list[Act], fates: list[str]) -> None:
        self.play.act(acts, fates)

    @rule(process=st.integers(0, 1), forget_index=st.booleans())
    def crash(self, process: int, forget_index: bool) -> None:
        self.play.crash(process, forget_index=forget_index)

    @rule(which=st.lists(st.integers(0, 40), max_size=3))
    def land(self, which: list[int]) -> None:
        self.play.land(which)

    def teardown(self) -> None:
        self.play.finish()


SETTINGS = settings(
    max_examples=60,
    stateful_step_count=15,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def test_every_promise_holds() -> None:
    run_state_machine_as_test(Plays, settings=SETTINGS)


@pytest.mark.parametrize("bug", sorted(BUGS.keys() - {NEEDS_A_JUMP}))
def test_a_planted_bug_is_noticed(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "Appender", planted(bug))
    noticing = settings(SETTINGS, phases=[Phase.generate], max_examples=400, report_multiple_bugs=False)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Plays, settings=noticing)
