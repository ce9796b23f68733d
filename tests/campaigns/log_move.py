"""Kills movers of a log, from SQLite to Kafka and back: python -m tests.campaigns.log_move --kills 200 --seed 1

Every other log has a writer beside the mover, which has the source open. See `tests/faults/moving_kills.py`.
"""

import argparse
import asyncio
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from agent_party.cluster import services
from tests import services_kit
from tests.campaigns import Result
from tests.faults.moving_kills import survive

KILLS = 4
"""Of the movers of one log, on each way, at most: a mover that is done before it is killed ends its way."""


@contextlib.contextmanager
def broker() -> Iterator[str]:
    """The broker that ``PARTY_TEST_SERVICES`` names, or one of its own: its address."""
    if named := services_kit.given():
        yield named.kafka
        return
    with tempfile.TemporaryDirectory(prefix="party-log-move-") as folder:
        running = services.start(Path(folder), ["kafka"])
        try:
            yield running.addresses["kafka"]
        finally:
            running.stop()


async def main(kills: int, seed: int, kafka: str) -> None:
    """Go on from where an earlier run with this seed has stopped. ``done``: logs."""
    result = Result("log_move", seed)
    print(f"seed {seed}: {killed(result)} of {kills} kills done before")
    while killed(result) < kills:
        with tempfile.TemporaryDirectory() as folder:
            number = result.done
            seen = await survive(Path(folder), kafka, seed * 1_000_000 + number, KILLS, writing=bool(number % 2))
        result.add(number + 1, seen)
        print(f"{killed(result)} kills: {dict(result.counts)}", flush=True)


def killed(result: Result) -> int:
    """How many movers were killed."""
    return sum(times for what, times in result.counts.items() if what.startswith("killed"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with broker() as address:
        asyncio.run(main(options.kills, options.seed, address))
