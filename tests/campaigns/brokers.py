"""Three brokers that are killed, paused, restarted and cut off, while two shard logs write the same streams.

    python -m tests.campaigns.brokers [--faults 200] [--appends 200000] [--seed N] [--chunks N]

Nothing acknowledged may be lost, nothing stand twice, no chain be broken, and every append whose outcome was unknown
must come to one answer; what all clients were told must be linearizable, stream by stream (`tests/faults/arena.py`).
"""

import argparse
import asyncio
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent_party.cluster import services
from agent_party.cluster.services import Running
from tests.campaigns import Result
from tests.faults.arena import BAD, Arena

CHUNK = 30
"""Faults on one topic."""
SEED = 20_261_126
QUICK = {
    "broker.session.timeout.ms": "4000",
    "broker.heartbeat.interval.ms": "500",
    "replica.lag.time.max.ms": "5000",
}
"""Brokers that take each other for dead sooner than by default, so that leaders change more often."""
_PARTITIONS = 4


@contextmanager
def three_brokers(folder: Path) -> Iterator[Running]:
    """Three brokers of their own, ended afterwards."""
    running = services.start(folder, ["kafka"], brokers=3, properties=QUICK, say=print)
    try:
        yield running
    finally:
        for broker in running.brokers:
            if broker.running:
                broker.resume()
        running.stop()


def journal(running: Running) -> str:
    """A new topic on these brokers."""
    address = running.addresses["kafka"]
    return f"kafka://{address}/brokers.{secrets.token_hex(6)}?partitions={_PARTITIONS}&replicas=3"


def chunk(running: Running, seed: int, faults: int, appends: int) -> Counter[str]:
    """One topic's fight, from its founding to its reckoning."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="agent-party-brokers-", ignore_cleanup_errors=True) as folder:
        arena = Arena(Path(folder) / "site", seed, journal=journal(running), brokers=running.brokers, say=print)
        counts = asyncio.run(arena.fight(faults, appends))
        for found in arena.found:
            print(f"seed {seed}: {found}", flush=True)
    counts["seconds"] = round(time.monotonic() - began)
    return counts


def campaign(running: Running, wanted: int, appends: int, seed: int, chunks: int) -> Result:
    """Go on to ``wanted`` faults, and their share of the appends in each chunk, from wherever the result file says."""
    result = Result("brokers", seed)
    while result.done < wanted and chunks > 0:
        chunks -= 1
        count = min(CHUNK, wanted - result.done)
        counts = chunk(running, seed + result.done, count, appends * count // wanted)
        result.add(result.done + count, counts)
        print(f"{result.done} of {wanted} faults, {dict(sorted(result.counts.items()))}", flush=True)
        if any(result.counts[bad] for bad in BAD):
            break
    return result


def main() -> int:
    """The command line: 0 if nothing was lost, doubled, broken, left open or told wrongly."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.brokers", description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--appends", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--chunks", type=int, default=sys.maxsize, help="leave the rest for another time")
    parser.add_argument("--folder", type=Path, help="of the brokers' data; a temporary one by default")
    options = parser.parse_args()
    print(f"seed {options.seed}")
    with (
        tempfile.TemporaryDirectory(prefix="agent-party-brokers-", ignore_cleanup_errors=True) as temporary,
        three_brokers(options.folder or Path(temporary)) as running,
    ):
        result = campaign(running, options.faults, options.appends, options.seed, options.chunks)
    return int(any(result.counts[bad] for bad in BAD))


if __name__ == "__main__":
    sys.exit(main())
