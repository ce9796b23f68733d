"""A shard log as a process of its own, to be paused and killed: `python -m tests.faults.shard CONFIG`.

It works until its standard input ends, finds out what is unknown, and ends with 0. Brokers are reached through
proxies, where the configuration names some.
"""

import asyncio
import random
import sys
from pathlib import Path
from typing import Any

import msgspec

from agent_party.eventstore import index, lanes
from agent_party.eventstore.commit import SigningKey
from agent_party.eventstore.errors import StoreError
from agent_party.eventstore.log import Log, Writer
from tests.eventstore_kit import Site
from tests.faults import book, planted
from tests.faults.clients import Client
from tests.faults.histories import Recorder

PATIENCE = 300.0
"""Seconds for the log to be opened, and for what is unknown to be found out, whatever the brokers do."""


class Shared(msgspec.Struct, frozen=True):
    """A stream that several have the key of. Hex."""

    stream: str
    secret: str
    grant: str

    @classmethod
    def of(cls, writer: Writer) -> "Shared":
        """In a form that travels."""
        return cls(writer.stream, writer.key.secret.hex(), writer.grant.hex())

    def writer(self) -> Writer:
        """The writer itself."""
        secret = bytes.fromhex(self.secret)
        return Writer(self.stream, SigningKey(secret, secret[32:]), bytes.fromhex(self.grant))


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """``journal``: a Kafka URL, or empty for the site's SQLite file. ``proxies``: port → the port to connect to."""

    folder: str
    index: str
    history: str
    seed: int
    shared: list[Shared]
    taken: list[str]
    journal: str = ""
    at_once: int = 32
    deadlines: tuple[float, ...] = (2.0, 5.0, 10.0)
    proxies: dict[int, int] = {}
    bug: str = ""

    def site(self) -> Site:
        """The site, as this process finds it."""
        if not self.journal:
            return Site(Path(self.folder))
        from agent_party.eventstore.backends.kafka import KafkaTape
        from agent_party.eventstore.backends.kafka_address import address

        where = address(self.journal)
        return Site(Path(self.folder), "kafka", lambda: KafkaTape(where))


async def run(config: Config) -> None:
    """Work until standard input ends."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    _go_by(config.proxies, loop)
    loop.add_reader(sys.stdin.fileno(), over.set)
    log = await opened(config)
    client = Client(
        log,
        Recorder.to(Path(config.history)),
        random.Random(config.seed),
        shared={each.stream: each.writer() for each in config.shared},
        taken=config.taken,
        deadlines=config.deadlines,
    )
    await client.work(lambda: not over.is_set(), config.at_once)
    await client.settle(PATIENCE)
    await log.close()


async def opened(config: Config) -> Log:
    """The log, opened again and again while its store does not answer."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await config.site().open(config.index)
            except StoreError:
                await asyncio.sleep(0.2)


def _go_by(proxies: dict[int, int], loop: Any) -> None:
    """Have every connection to a broker made to its proxy: brokers tell clients their own ports only."""
    connect = loop.create_connection

    async def by_proxy(factory: Any, host: Any = None, port: Any = None, **more: Any) -> Any:
        return await connect(factory, host, proxies.get(port, port), **more)

    loop.create_connection = by_proxy


def plant(bug: str) -> None:
    """Have this process make a mistake, of the appender's or the rule's."""
    if bug in planted.BUGS:
        vars(lanes)["Appender"] = planted.planted(bug)
    elif bug:
        vars(index)["judge"] = book.planted(bug)


def main() -> int:
    """The command line."""
    config = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Config, strict=False)
    plant(config.bug)
    asyncio.run(run(config))
    return 0


if __name__ == "__main__":
    sys.exit(main())
