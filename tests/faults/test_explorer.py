"""Every history of a small world, and the proof that the search finds what it is there to find."""

import pytest

from tests.campaigns.explorer import IN_CI
from tests.faults.book import RULE_BUGS
from tests.faults.explorer import WRITER_BUGS, Bounds, Broken, Explorer

OWNER, INBOX = Bounds(), Bounds(inbox=True)
"""In an inbox, grants of several writers are in force: only there can a control commit come between two data commits
of one grant."""


@pytest.mark.parametrize("bounds", IN_CI, ids=str)
def test_no_history_breaks_a_promise(bounds: Bounds, capsys: pytest.CaptureFixture[str]) -> None:
    explorer = Explorer(bounds)
    states = explorer.run()
    with capsys.disabled():
        print(f"\n{bounds}: {states:,} states, {explorer.steps:,} steps", end=" ")
    assert states > 1_000


def test_what_is_left_out_makes_no_difference() -> None:
    """A state is cut down to its essence; here once with everything that was ever sent kept alive."""

    class Whole(Explorer):
        def _alive(self, world: object, number: int) -> bool:
            return True

    bounds = Bounds(activations=1)
    assert Whole(bounds).run() > 2 * Explorer(bounds).run()


@pytest.mark.parametrize("bug", RULE_BUGS)
def test_a_bug_in_the_rule_is_found(bug: str) -> None:
    with pytest.raises(Broken) as caught:
        Explorer(INBOX if bug == "ignoring prev" else OWNER, rule_bug=bug).run(limit=50_000)
    assert len(caught.value.steps) < 30


@pytest.mark.parametrize("bug", WRITER_BUGS)
def test_a_bug_in_the_writer_is_found(bug: str) -> None:
    bounds = INBOX if bug == "conflict against a control commit" else OWNER
    with pytest.raises(Broken) as caught:
        Explorer(bounds, writer_bug=bug).run(limit=50_000)
    assert len(caught.value.steps) < 30


def test_a_found_history_reads_as_steps() -> None:
    with pytest.raises(Broken, match="told that it failed, and it is in the chain") as caught:
        Explorer(OWNER, writer_bug="conflict on time-out").run()
    text = str(caught.value)
    assert "1. writer A starts" in text
    assert "times out: conflict" in text
