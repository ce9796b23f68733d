"""Kills the host of a task of thirty waits at random points, on Ray: python -m tests.campaigns.ray_cuts --kills 20"""

import argparse
import asyncio
import os
import tempfile
from pathlib import Path

from tests.campaigns import Result
from tests.cluster.cutting import cut

BATCH = 5


async def main(kills: int, seed: int) -> None:
    """Go on from where an earlier run with this seed has stopped."""
    result = Result("ray_cuts", seed)
    print(f"seed {seed}: {result.done} of {kills} kills done before")
    while result.done < kills:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["PARTY_STATE_DIR"] = f"{folder}/state"
            os.environ["PARTY_JOURNAL"] = f"sqlite:///{folder}/.party/log.db"
            seen = await cut(Path(folder), BATCH, seed + result.done)
        result.add(result.done + BATCH, seen)
        print(f"{result.done} kills: {dict(result.counts)}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    asyncio.run(main(options.kills, options.seed))
