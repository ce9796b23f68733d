"""How long it takes until an entity is live again: with a long history and with a hundred times as long a one.

Both streams end alike: bulk commits of many events, then a few of one event, a snapshot, and a few more. Each
measurement opens the log anew, so that nothing of it is in this process's memory, and times what an activation does:
the grant that takes the stream over (with its fsync), the snapshot, the check that it stands, the tail.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from agent_party.actors.activation import Activation, load
from agent_party.actors.decider import Decider
from agent_party.actors.entities import entity_fold
from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.log import Log
from agent_party.eventstore.snapshots import Snapshots

from .measure import Clock, Figure, Report, Turn, in_turns
from .site import Counted, judged, opened, raws

BULK, TAIL = 100, 5
EACH = 3
"""A turn is the median of so many."""


class Tally(Decider[int, int, Counted]):
    """Adds up."""

    kind = "tally"
    events = (Counted,)

    def initial(self) -> int:
        return 0

    def decide(self, command: int, state: int) -> Sequence[Counted]:
        return [Counted(command)]

    def evolve(self, state: int, event: Counted) -> int:
        return state + event.by


async def activation(quick: bool) -> Report:
    """Activation through a snapshot, of a short and of a long stream in one log."""
    part, lengths = "activation", (200, 2_000) if quick else (10_000, 1_000_000)
    names = {length: f"tally/of-{length}" for length in lengths}
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        for length, stream in names.items():
            await _grow(folder, stream, length)
        loads: dict[int, list[float]] = {length: [] for length in lengths}

        def turn(length: int) -> Turn:
            async def activate() -> float:
                times = [await _loaded(folder, names[length], length, by_snapshot=True) for _ in range(EACH)]
                loads[length].append(1e3 * median(times))
                return 1e3 * median([await _activated(folder, names[length], length) for _ in range(EACH)])

            return activate

        values = await in_turns(2 if quick else 25, {str(length): turn(length) for length in lengths})
        whole = await _loaded(folder, names[lengths[0]], lengths[0], by_snapshot=False)
        verified = await _verified(folder)
    (short, long), ratio = lengths, "x"
    both = zip(values[str(long)], values[str(short)], strict=True)
    loaded = zip(loads[long], loads[short], strict=True)
    return Report(
        [
            Figure(part, f"{long:,} / {short:,} events", ratio, [a / b for a, b in both], most=1.2),
            Figure(part, "the same without the grant", ratio, [a / b for a, b in loaded]),
            *(Figure(part, f"{length:,} events", "ms", values[str(length)]) for length in lengths),
            *(Figure(part, f"{length:,} events, without the grant", "ms", loads[length]) for length in lengths),
            Figure(part, f"{short:,} events, without a snapshot", "ms", [whole * 1e3]),
        ],
        verified,
    )


def _snapshots(folder: Path, log: Log) -> Snapshots:
    return Snapshots(folder / "snapshots.db", log.identity.log_id, log.keys, log.ambient)


async def _grow(folder: Path, stream: str, length: int) -> None:
    log = await opened(folder)
    snapshots = _snapshots(folder, log)
    live = Activation(log, entity_fold(Tally()), stream, snapshots)
    await live.start(Issuer(log).writer)
    for _ in range(length // BULK - 1):
        await live.record([Counted(1)] * BULK)
    for number in range(BULK):
        if number == BULK - TAIL:
            live.snapshot()
        await live.record([Counted(1)])
    assert live.state == length
    snapshots.close()
    await log.close()


async def _activated(folder: Path, stream: str, length: int) -> float:
    """Seconds to activate."""
    log = await opened(folder)
    snapshots = _snapshots(folder, log)
    live = Activation(log, entity_fold(Tally()), stream, snapshots)
    with Clock() as clock:
        await live.start(Issuer(log).writer)
    assert live.state == length
    snapshots.close()
    await log.close()
    return clock.wall


async def _loaded(folder: Path, stream: str, length: int, *, by_snapshot: bool) -> float:
    """Seconds to load, without taking the stream over."""
    log = await opened(folder)
    snapshots = _snapshots(folder, log) if by_snapshot else None
    with Clock() as clock:
        folded = await load(log, entity_fold(Tally()), stream, snapshots=snapshots)
    assert folded.state == length
    if snapshots:
        assert snapshots.load(stream, entity_fold(Tally()).program), "there was no snapshot"
        snapshots.close()
    await log.close()
    return clock.wall


async def _verified(folder: Path) -> str:
    log = await opened(folder)
    accepted = judged(log.identity, [stored.raw for stored in await raws(log)])
    await log.close()
    events = sum(record.header.events for record in accepted if record.header.revision)
    return f"{len(accepted):,} records with {events:,} events accepted by the rule; every activation had the right sum"
