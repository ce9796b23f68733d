"""Twenty processes on the streams of one SQLite tape: the chain is the lock."""

import multiprocessing
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.verify import CONTROL
from tests.eventstore_kit import Site, truth_of
from tests.faults.racing import MET, PATIENCE, Told, append_to_all, take_over

PROCESSES, COMMITS, ROUNDS = 20, 8, 4


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path)
    yield site
    await site.close()


def race(work: Callable[..., Told], *args: Any) -> list[Told]:
    """Run ``work(folder, things, seed, count, barrier)`` in each of the processes, all starting at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__.rpartition(".")[0] + ".racing"])
    folder, things, count = args
    with context.Manager() as shared, ProcessPoolExecutor(PROCESSES, mp_context=context) as pool:
        ready = shared.Barrier(PROCESSES)
        running = [pool.submit(work, folder, things, seed, count, ready) for seed in range(PROCESSES)]
        return [future.result(PATIENCE) for future in running]


async def check(site: Site, told: list[Told]) -> None:
    """Every acknowledged commit is present once, at its revision, and there are no others."""
    log = await site.open("fresh.db")
    truth = await truth_of(log)
    assert truth.rejected == []
    stands = [(r.header.stream.decode(), r.header.revision, r.commit) for r in truth.accepted if r.header.revision]
    acknowledged = [commit for each in told for commit in each.acknowledged]
    assert sorted(acknowledged) == sorted(stands)
    assert len(set(acknowledged)) == len(acknowledged)
    shared = await site.open()  # the index that all of them wrote
    assert shared.checkpoint() == log.checkpoint()
    for stream in {stream for stream, _, _ in stands}:
        assert [(stream, c.revision, c.hash) async for c in shared.read(stream)] == sorted(
            commit for commit in stands if commit[0] == stream
        )


async def test_twenty_processes_with_the_keys_of_one_grant(site: Site) -> None:
    log = await site.open()
    writers = [await Issuer(log).writer(f"note/shared{n}") for n in range(3)]
    await log.close()
    told = race(append_to_all, site.folder, writers, COMMITS)
    assert [len(each.acknowledged) for each in told] == [COMMITS] * PROCESSES
    assert sum(each.conflicts for each in told) >= MET * (PROCESSES - len(writers))
    await check(site, told)


async def test_twenty_processes_taking_streams_over(site: Site) -> None:
    log = await site.open()
    await log.close()
    streams = [f"note/taken{n}" for n in range(3)]
    told = race(take_over, site.folder, streams, ROUNDS)
    assert sum(each.ended for each in told) >= MET * (PROCESSES - len(streams))
    await check(site, told)
    grants = [r for r in (await truth_of(site.logs[-1])).accepted if r.header.kind == CONTROL]
    assert len(grants) == 16 + ROUNDS * PROCESSES
