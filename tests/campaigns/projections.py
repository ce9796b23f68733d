"""Crashes projections at every boundary, by injection and by SIGKILL: python -m tests.campaigns.projections

python -m tests.campaigns.projections --sinks memory sqlite redis --redis redis://:password@127.0.0.1:6379
python -m tests.campaigns.projections --sinks ladybug neo4j --neo4j bolt://neo4j:password@127.0.0.1:7687

For each sink, ``--count`` runs of a worker and a rebuild that crash before a write, between a write and its commit, and
after it; ``--kills`` processes that are killed; and ``--rebuilds`` rebuilds while others write and read. Each run ends
with every commit of the log counted once, and rebuilt equal to live by hash.
"""

import argparse
import asyncio
import logging
import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.campaigns import Result
from tests.faults.projecting import Subject, a_log, kill_workers, rebuild_under_load, reckon, survive
from tests.faults.projecting_graph import graphs
from tests.faults.projecting_views import subjects

CHUNK = 50
COMMITS = 60
KILLED_COMMITS = 3_000
OF_GRAPHS = 600
"""The same of graphs: their batches take longer, so that fewer last as long."""


def main(known: dict[str, Subject], sinks: Sequence[str], count: int, kills: int, rebuilds: int, seed: int) -> None:
    """Go on from where an earlier run with this seed has stopped."""
    logging.getLogger("agent_party").setLevel(logging.ERROR)
    for name in sinks:
        subject, result = known[name], Result(f"projections-{name}", seed)
        print(f"{name}: seed {seed}, {count} injected runs, {kills} kills, {result.done} done before", flush=True)
        with tempfile.TemporaryDirectory(prefix="projections-") as folder:
            asyncio.run(subject.forget(Path(folder)))
            while result.done < count:
                upto = min(result.done + CHUNK, count)
                result.add(upto, asyncio.run(injected(subject, Path(folder), range(result.done, upto), seed)))
                print(f"{name}: {result.done} runs: {dict(result.counts)}", flush=True)
            if kills and name != "memory" and result.counts["kills"] < kills:
                result.add(count, killed(subject, Path(folder) / "killed", kills - result.counts["kills"], seed))
            if result.counts["rebuilt"] < rebuilds:
                result.add(count, asyncio.run(loaded(subject, Path(folder) / "loaded", rebuilds, seed)))
            print(f"{name}: {dict(result.counts)}", flush=True)


async def injected(subject: Subject, folder: Path, numbers: range, seed: int) -> Counter[str]:
    """Runs with crashes at chosen boundaries, all over one log."""
    counts: Counter[str] = Counter()
    async with a_log(folder / f"log-{numbers.start}", COMMITS, seed + numbers.start) as log:
        for number in numbers:
            own = folder / f"run-{number}"
            own.mkdir()
            counts += await survive(subject, log, own, random.Random(f"{seed} {number}"))
            await subject.forget(own)
    return counts


def killed(subject: Subject, folder: Path, kills: int, seed: int) -> Counter[str]:
    """Processes that are killed, all over one log and one sink."""

    async def prepare() -> None:
        commits = OF_GRAPHS if subject.name in ("ladybug", "neo4j") else KILLED_COMMITS
        async with a_log(folder, commits, seed, "sqlite"):
            pass

    async def look() -> None:
        async with a_log(folder, 0, seed, "sqlite") as log:
            await log.refresh()
            await reckon(subject, log, folder)
        await subject.forget(folder)

    asyncio.run(prepare())
    found = kill_workers(subject, folder, kills, random.Random(seed))
    asyncio.run(look())
    return found


async def loaded(subject: Subject, folder: Path, rebuilds: int, seed: int) -> Counter[str]:
    """Rebuilds while others write and read."""
    async with a_log(folder, 300, seed) as log:
        found = await rebuild_under_load(subject, log, folder, random.Random(seed), rebuilds)
    await subject.forget(folder)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sinks", nargs="+", default=["memory", "sqlite"])
    parser.add_argument("--redis", default="")
    parser.add_argument("--neo4j", default="")
    parser.add_argument("--count", type=int, default=1_000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--rebuilds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    known = {**subjects(options.redis), **graphs(options.neo4j)}
    main(known, options.sinks, options.count, options.kills, options.rebuilds, options.seed)
