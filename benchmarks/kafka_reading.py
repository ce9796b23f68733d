"""Reading one stream out of a slice of Kafka's, by how large the slice is and how far apart the stream's commits are.

A broker has no way to hand out less than the batch in which a record lies: where each record of a stream lies in a
batch of its own, all of these come, whole. What that alone takes is measured beside it.
"""

import asyncio
import contextlib
import time

from agent_party.eventstore.backends.kafka_address import KafkaAddress
from agent_party.eventstore.backends.kafka_wire import fetch
from agent_party.eventstore.log import Log

from .kafka import GROUP, kafka_site, topics
from .measure import Figure, Report, Turn, in_turns, ratios
from .site import Site, written

SPREAD, DENSE = 0, 1
"""The stream whose commits are spread evenly over the slice; the one in which every tenth commit of a part is."""
_AT_ONCE, _VERSIONS = 4, {1: (4, 11)}


async def _fill(place: Site, of: int, size: int, *, dense_too: bool) -> None:
    """Fill a slice to ``size`` commits, of which the stream `SPREAD` has ``of``, evenly.

    ``dense_too``: in the midst of them so many of the stream `DENSE`, each with nine of others.
    """
    event = written()

    async def among(stream: int, count: int) -> None:
        """One commit of a stream, at once with so many of others."""
        others = (place.append(2 + k, count // GROUP + (k < count % GROUP), [event]) for k in range(min(count, GROUP)))
        await asyncio.gather(place.append(stream, 1, [event]), *others)

    left = size - of - (10 * of if dense_too else 0)
    for number in range(of):
        await among(SPREAD, left * (number + 1) // of - left * number // of)
        if dense_too and number == of // 2:
            for _ in range(of):
                await among(DENSE, 9)


async def _bare(where: KafkaAddress, places: list[int]) -> float:
    """The batches in which these places lie, asked for by ready-made requests, and dropped. Milliseconds."""
    host, port = where.servers[0].rsplit(":", 1)
    asked = []
    for place in places:
        request = fetch(where.topic, {0: place - 1}, 1, 0, all_lanes=1 << 24).prepare(_VERSIONS)
        whole = request.build_request_header(1, "bench").encode()
        asked.append(len(whole).to_bytes(4) + whole)
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 22)
    began = time.perf_counter()
    for number in range(len(asked) + _AT_ONCE):
        if number < len(asked):
            writer.write(asked[number])
        if number >= _AT_ONCE:
            await reader.readexactly(int.from_bytes(await reader.readexactly(4)))
    took = (time.perf_counter() - began) * 1000
    writer.close()
    await writer.wait_closed()
    return took


async def kafka_reading(quick: bool) -> Report:
    """One stream's 1,000 commits, out of a slice of ten thousand and out of one of a million."""
    of, small, large, rounds = (50, 500, 1_000, 2) if quick else (1_000, 10_000, 1_000_000, 15)
    async with topics() as new, contextlib.AsyncExitStack() as stack:
        logs = dict[int, Log]()
        for size in (small, large):
            where = new(1)
            place = await stack.enter_async_context(kafka_site(where, GROUP + 2, 1))
            await _fill(place, of, size, dense_too=size == large)
            logs[size] = place.log
        places = [row.place for row in logs[large].index.rows(b"bench/n0", 1, of)]

        def reading(log: Log, stream: int) -> Turn:
            async def turn() -> float:
                began = time.perf_counter()
                found = [commit.revision async for commit in log.read(f"bench/n{stream}")]
                assert found == list(range(1, of + 1))
                return (time.perf_counter() - began) * 1000

            return turn

        turns = {
            "small": reading(logs[small], SPREAD),
            "dense": reading(logs[large], DENSE),
            "spread": reading(logs[large], SPREAD),
            "bare": lambda: _bare(where, places),
        }
        values = await in_turns(rounds, turns)
    part, out_of = "kafka reading", f"out of {large:,}"
    return Report(
        [
            Figure(
                part, f"{out_of}, every tenth / out of {small:,}", "x", ratios(values["dense"], values["small"]), most=2
            ),
            Figure(
                part,
                f"{out_of}, spread over all / out of {small:,}",
                "x",
                ratios(values["spread"], values["small"]),
                most=2,
            ),
            Figure(part, f"{out_of}, spread over all / bare fetches", "x", ratios(values["spread"], values["bare"])),
            Figure(part, f"{of:,} commits out of {small:,}, every tenth", "ms", values["small"]),
            Figure(part, f"{of:,} commits {out_of}, every tenth", "ms", values["dense"]),
            Figure(part, f"{of:,} commits {out_of}, spread over all", "ms", values["spread"]),
            Figure(part, "bare fetches of the batches they lie in", "ms", values["bare"]),
        ],
        f"all {of:,} commits of each stream read, decrypted and in order, {3 * rounds} times",
    )
