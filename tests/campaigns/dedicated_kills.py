"""Kills agents' own hosts on Ray while messages flow: python -m tests.campaigns.dedicated_kills --kills 100 --seed 1"""

import argparse
import asyncio
import os
import tempfile
from pathlib import Path

from tests.campaigns import Result
from tests.cluster.dedicated import survive_dedicated

BATCH = 10


async def main(kills: int, seed: int) -> None:
    """Go on from where an earlier run with this seed has stopped."""
    result = Result("dedicated_kills", seed)
    print(f"seed {seed}: {result.done} of {kills} kills done before")
    while result.done < kills:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["PARTY_STATE_DIR"] = f"{folder}/state"
            os.environ["PARTY_JOURNAL"] = f"sqlite:///{folder}/.party/log.db"
            seen = await survive_dedicated(Path(folder) / "ledger", BATCH, seed + result.done)
        result.add(result.done + BATCH, seen)
        print(f"{result.done} kills: {dict(result.counts)}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    asyncio.run(main(options.kills, options.seed))
