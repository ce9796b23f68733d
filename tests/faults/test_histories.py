"""Two shard logs on a tape that loses, delays and repeats records: what clients were told is linearizable.

In virtual time, as in `play`; the clients are those of the campaign against brokers.
"""

import asyncio
from pathlib import Path

import pytest

from agent_party.eventstore import lanes
from agent_party.eventstore.backends.memory import Fate
from tests.eventstore_kit import Site
from tests.faults.linearizable import ACKNOWLEDGED, CONFLICT, ENDED, UNKNOWN
from tests.faults.planted import BUGS, NEEDS_A_JUMP, planted
from tests.faults.play import VirtualLoop
from tests.faults.two_logs import Outcome, two_logs

TURNS = 1_500


async def histories(folder: Path, seed: int) -> Outcome:
    site = Site(folder, "unconditional")
    logs = [await site.open("one.db"), await site.open("two.db")]

    def fated(fate: Fate) -> None:
        site.unconditional.fate = fate

    outcome = await two_logs(logs, fated, seed, TURNS, 0.3, (0.5, 1.2, 2.5))
    await site.close()
    return outcome


def run(folder: Path, seed: int) -> Outcome:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(histories(folder, seed))


@pytest.mark.parametrize("seed", [1, 2])
def test_what_clients_were_told_is_linearizable(seed: int, tmp_path: Path) -> None:
    outcome = run(tmp_path, seed)
    assert outcome.found == []
    outcomes = outcome.told.outcomes()
    assert min(outcomes[each] for each in (ACKNOWLEDGED, CONFLICT, ENDED, UNKNOWN)) > 0, outcomes


@pytest.mark.parametrize("bug", sorted(BUGS.keys() - {NEEDS_A_JUMP}))
def test_a_planted_bug_is_noticed(bug: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "Appender", planted(bug))
    assert run(tmp_path, 2).found
