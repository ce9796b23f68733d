"""What is done to brokers, to the connections with them, and to the processes that write: one fault after another.

Each fault is over when it returns: everything runs, is connected, and can get on.
"""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Sequence

from agent_party.cluster.services import Broker
from tests.faults.proxies import Proxy
from tests.faults.shards import Shard

Fault = Callable[["Nemesis"], Awaitable[None]]
BROKERS: dict[str, tuple[int, Fault]] = {}
"""By name: how often it comes, against the others, and the fault."""
SHARDS: dict[str, tuple[int, Fault]] = {}


def _fault(kind: dict[str, tuple[int, Fault]], often: int) -> Callable[[Fault], Fault]:
    def named(fault: Fault) -> Fault:
        kind[getattr(fault, "__name__", "").replace("_", " ")] = (often, fault)
        return fault

    return named


class Nemesis:
    """``brokers[n]`` is reached through ``proxies[n]``."""

    def __init__(
        self, order: random.Random, shards: Sequence[Shard], brokers: Sequence[Broker], proxies: Sequence[Proxy]
    ) -> None:
        self.order, self.shards, self.brokers, self.proxies = order, shards, brokers, proxies

    async def strike(self, name: str) -> None:
        """Do what has this name."""
        _, fault = (BROKERS | SHARDS)[name]
        await fault(self)

    def choose(self, count: int) -> list[str]:
        """Faults in a random order: each that there can be here comes at least once, if there is room."""
        there = (BROKERS if self.brokers else {}) | SHARDS
        names = [name for name, (often, _) in there.items() for _ in range(often)]
        chosen = [*there, *self.order.choices(names, k=count)][:count]
        self.order.shuffle(chosen)
        return chosen

    def some(self, count: int = 1) -> list[Broker]:
        """Brokers at random."""
        return self.order.sample(list(self.brokers), min(count, len(self.brokers)))

    def one(self) -> Shard:
        """A writer at random."""
        return self.order.choice(list(self.shards))

    def way(self) -> Proxy:
        """The way to a broker at random."""
        return self.order.choice(list(self.proxies))

    async def last(self, least: float, most: float) -> None:
        """The fault lasts for some seconds."""
        await asyncio.sleep(self.order.uniform(least, most))

    async def start(self, brokers: Sequence[Broker]) -> None:
        """Start brokers again, and wait until they answer."""
        await asyncio.gather(*(asyncio.to_thread(broker.start) for broker in brokers))

    async def killed(self, brokers: Sequence[Broker]) -> None:
        """Kill brokers at once, and start them again after a while."""
        await asyncio.gather(*(asyncio.to_thread(broker.kill) for broker in brokers))
        await self.last(0, 3)
        await self.start(brokers)

    async def paused(self, brokers: Sequence[Broker], most: float) -> None:
        """Have brokers stand still for a while."""
        for broker in brokers:
            broker.pause()
        await self.last(0.3, most)
        for broker in brokers:
            broker.resume()


@_fault(BROKERS, 2)
async def a_broker_is_killed(nemesis: Nemesis) -> None:
    await nemesis.killed(nemesis.some())


@_fault(BROKERS, 1)
async def a_broker_is_restarted(nemesis: Nemesis) -> None:
    (broker,) = nemesis.some()
    await asyncio.to_thread(broker.restart)


@_fault(BROKERS, 5)
async def a_broker_is_paused(nemesis: Nemesis) -> None:
    await nemesis.paused(nemesis.some(), 8)


@_fault(BROKERS, 1)
async def two_brokers_are_paused(nemesis: Nemesis) -> None:
    await nemesis.paused(nemesis.some(2), 6)


@_fault(BROKERS, 1)
async def two_brokers_are_killed(nemesis: Nemesis) -> None:
    await nemesis.killed(nemesis.some(2))


@_fault(BROKERS, 1)
async def a_broker_is_killed_while_another_is_paused(nemesis: Nemesis) -> None:
    one, *other = nemesis.some(2)
    for broker in other:
        broker.pause()
    await asyncio.to_thread(one.kill)
    await nemesis.last(0.3, 3)
    for broker in other:
        broker.resume()
    await nemesis.start([one])


@_fault(BROKERS, 5)
async def connections_are_cut(nemesis: Nemesis) -> None:
    for _ in range(nemesis.order.randint(1, 6)):
        nemesis.way().cut()
        await nemesis.last(0, 0.4)


@_fault(BROKERS, 1)
async def every_connection_is_cut(nemesis: Nemesis) -> None:
    for proxy in nemesis.proxies:
        proxy.cut()


@_fault(BROKERS, 4)
async def connections_are_held_up(nemesis: Nemesis) -> None:
    proxy = nemesis.way()
    proxy.hold()
    await nemesis.last(0.3, 7)
    proxy.mend()


@_fault(BROKERS, 4)
async def connections_are_refused(nemesis: Nemesis) -> None:
    proxy = nemesis.way()
    proxy.refuse()
    await nemesis.last(0.3, 5)
    proxy.mend()


@_fault(SHARDS, 4)
async def a_writer_is_paused(nemesis: Nemesis) -> None:
    shard = nemesis.one()
    shard.tell(signal.SIGSTOP)
    await nemesis.last(0.3, 6)
    shard.tell(signal.SIGCONT)


@_fault(SHARDS, 3)
async def a_writer_is_killed(nemesis: Nemesis) -> None:
    shard = nemesis.one()
    await shard.kill()
    await shard.start()


@_fault(BROKERS, 1)
async def a_broker_is_killed_while_a_writer_is_paused(nemesis: Nemesis) -> None:
    shard = nemesis.one()
    shard.tell(signal.SIGSTOP)
    await nemesis.killed(nemesis.some())
    shard.tell(signal.SIGCONT)
