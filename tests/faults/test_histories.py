"""Two shard logs on a tape that loses, delays and repeats records: what clients were told is linearizable.

In virtual time, as in `play`; the clients are those of the campaign against brokers.
"""

import asyncio
import itertools
import random
from pathlib import Path

import pytest

from agent_party.eventstore import lanes
from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.verify import DATA
from tests.eventstore_kit import Site, judged
from tests.faults.clients import Client
from tests.faults.histories import Recorder, Told, violations
from tests.faults.linearizable import ACKNOWLEDGED, CONFLICT, ENDED, UNKNOWN, Violation
from tests.faults.planted import BUGS, NEEDS_A_JUMP, planted
from tests.faults.play import FATES, VirtualLoop

SHARED, TAKEN = [f"note/shared{n}" for n in range(4)], [f"note/taken{n}" for n in range(3)]


class Outcome:
    """What a run came to."""

    def __init__(self, found: list[Violation], told: Told) -> None:
        self.found, self.told = found, told


async def histories(folder: Path, seed: int, turns: int, bad: float) -> Outcome:
    """Two logs, five clients on each, ``turns`` operations; a record meets a bad fate with probability ``bad``."""
    order, site = random.Random(seed), Site(folder, "unconditional")
    logs = [await site.open("one.db"), await site.open("two.db")]
    clock, lines = itertools.count(), [list[bytes](), list[bytes]()]
    recorders = [Recorder(each.append, lambda: float(next(clock))) for each in lines]
    shared = {stream: await Issuer(logs[0]).writer(stream) for stream in SHARED}
    for stream, writer in shared.items():
        recorders[0].end(recorders[0].begin(stream, "take"), ACKNOWLEDGED, writer.grant.hex())
    site.unconditional.fate = lambda raw: order.choice(FATES) if order.random() < bad else "now"
    left = itertools.count()
    clients = [
        Client(log, recorder, random.Random(order.random()), shared=shared, taken=TAKEN, deadlines=(0.5, 1.2, 2.5))
        for log, recorder in zip(logs, recorders, strict=True)
    ]
    await asyncio.gather(*(client.work(lambda: next(left) < turns, 5) for client in clients))
    site.unconditional.fate = lambda raw: "now"
    for client in clients:
        await client.settle()
    site.unconditional.settle()
    await site.close()
    truth, told = judged(logs[0].identity, site.unconditional.records), Told(lines)
    assert set(truth.rejected) <= {"stale", "unlinked", "no-grant"}
    assert sum(record.header.kind == DATA for record in truth.accepted) >= turns / 4
    return Outcome(violations(truth, told, over=True), told)


def run(folder: Path, seed: int, turns: int, bad: float = 0.3) -> Outcome:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(histories(folder, seed, turns, bad))


@pytest.mark.parametrize("seed", [1, 2])
def test_what_clients_were_told_is_linearizable(seed: int, tmp_path: Path) -> None:
    outcome = run(tmp_path, seed, 1_500)
    assert outcome.found == []
    outcomes = outcome.told.outcomes()
    assert min(outcomes[each] for each in (ACKNOWLEDGED, CONFLICT, ENDED, UNKNOWN)) > 0, outcomes


@pytest.mark.parametrize("bug", sorted(BUGS.keys() - {NEEDS_A_JUMP}))
def test_a_planted_bug_is_noticed(bug: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "Appender", planted(bug))
    assert run(tmp_path, 2, 1_500).found
