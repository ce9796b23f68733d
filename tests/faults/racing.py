"""What a racing process does. In a module of its own, so that a fork server imports it once for all of them."""

import asyncio
import itertools
import random
from collections.abc import Sequence
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import NamedTuple

from agent_party.eventstore.errors import ConflictError, GrantEndedError
from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.log import Writer
from tests.eventstore_kit import Site, notes

PATIENCE = 600.0
MET = 2
"""Turns at the beginning in which all do the same at once, so that all but a few of them lose."""


class Told(NamedTuple):
    """What one process was told: acknowledged (stream, revision, commit), and how often it lost."""

    acknowledged: list[tuple[str, int, bytes]]
    conflicts: int
    ended: int


def append_to_all(folder: Path, writers: Sequence[Writer], seed: int, count: int, ready: Barrier) -> Told:
    """Append to streams whose keys other processes have too, until ``count`` commits are acknowledged."""
    return asyncio.run(_append_to_all(Site(folder), writers, random.Random(seed), count, ready))


async def _append_to_all(site: Site, writers: Sequence[Writer], order: random.Random, count: int, go: Barrier) -> Told:
    log = await site.open()
    told, conflicts, turns = list[tuple[str, int, bytes]](), 0, itertools.count()
    while len(told) < count:
        writer = order.choice(writers)
        expected = (await log.state(writer.stream)).revision
        lost = None
        if next(turns) < MET:
            go.wait(PATIENCE)
        try:
            appended = await log.append(writer, notes(f"{len(told)}"), expected=expected)
            told.append((writer.stream, appended.revision, appended.commit))
        except ConflictError as conflict:
            lost = conflict
        if lost:
            assert (lost.expected, lost.current > expected) == (expected, True)
            assert (await log.state(writer.stream)).revision >= lost.current
            conflicts += 1
    await log.close()
    return Told(told, conflicts, 0)


def take_over(folder: Path, streams: Sequence[str], seed: int, rounds: int, ready: Barrier) -> Told:
    """Take a stream over by a new grant, write until another process has taken it, and so on."""
    return asyncio.run(_take_over(Site(folder), streams, random.Random(seed), rounds, ready))


async def _take_over(site: Site, streams: Sequence[str], order: random.Random, rounds: int, go: Barrier) -> Told:
    log = await site.open()
    told, ended = list[tuple[str, int, bytes]](), 0
    go.wait(PATIENCE)
    for number in range(rounds):
        writer = await Issuer(log).writer(order.choice(streams))
        if number < MET:
            go.wait(PATIENCE)
        try:
            for _ in range(3):
                expected = (await log.state(writer.stream)).revision
                appended = await log.append(writer, notes("mine"), expected=expected)
                told.append((writer.stream, appended.revision, appended.commit))
        except GrantEndedError:
            ended += 1
    await log.close()
    return Told(told, 0, ended)
