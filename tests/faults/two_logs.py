"""Two shard logs in one process over one tape that loses, delays and repeats records, and what clients were told."""

import asyncio
import itertools
import random
from collections.abc import Callable
from typing import NamedTuple

from agent_party.eventstore.backends.memory import Fate
from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.log import Log
from agent_party.eventstore.verify import DATA
from tests.eventstore_kit import all_entries, judged
from tests.faults.clients import Client
from tests.faults.histories import TAKE, Recorder, Told, violations
from tests.faults.linearizable import ACKNOWLEDGED, Violation
from tests.faults.play import FATES

SHARED, TAKEN = [f"note/shared{n}" for n in range(4)], [f"note/taken{n}" for n in range(3)]
SETTLED = {"stale", "unlinked", "no-grant"}


class Outcome(NamedTuple):
    """What a run came to."""

    found: list[Violation]
    told: Told


def _is_acknowledged(line: bytes) -> bool:
    """Whether an append was: a revision follows, and not a grant."""
    return b',"acknowledged",' in line and b',"acknowledged","' not in line


async def two_logs(
    logs: list[Log], fated: Callable[[Fate], None], seed: int, turns: int, bad: float, deadlines: tuple[float, ...]
) -> Outcome:
    """Five clients on each log; a record meets a bad fate with probability ``bad``.

    They do ``turns`` operations, and more where a store was too slow for their deadlines: until a quarter as many
    appends were acknowledged.
    """
    order, clock = random.Random(seed), itertools.count()
    lines = [list[bytes]() for _ in logs]
    recorders = [Recorder(each.append, lambda: float(next(clock))) for each in lines]
    shared = {stream: await Issuer(logs[0]).writer(stream) for stream in SHARED}
    for stream, writer in shared.items():
        recorders[0].end(recorders[0].begin(stream, TAKE), ACKNOWLEDGED, writer.grant.hex())
    fated(lambda raw: order.choice(FATES) if order.random() < bad else "now")
    begun = itertools.count()

    def go_on() -> bool:
        return next(begun) < turns or sum(map(_is_acknowledged, itertools.chain(*lines))) < turns / 4

    clients = [
        Client(log, recorder, random.Random(order.random()), shared=shared, taken=TAKEN, deadlines=deadlines)
        for log, recorder in zip(logs, recorders, strict=True)
    ]
    await asyncio.gather(*(client.work(go_on, 5) for client in clients))
    fated(lambda raw: "now")
    for client in clients:
        await client.touch()
        await client.settle()
    truth, told = judged(logs[0].identity, [entry.raw for entry in await all_entries(logs[0].tape)]), Told(lines)
    assert set(truth.rejected) <= SETTLED
    assert sum(record.header.kind == DATA for record in truth.accepted) >= turns / 4
    return Outcome(violations(truth, told, over=True), told)
