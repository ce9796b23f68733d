"""One process's connections to the brokers of one topic: who leads which lane, and a request with a deadline.

aiokafka's client speaks the protocol. Its producer and consumer are not used: their loops retry for ever behind the
caller's back, and do not say what a tape must know (see docs/decisions/0019-the-kafka-tape.md).
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

from ..errors import StoreError, StoreReadOnlyError
from .kafka_address import KafkaAddress
from .kafka_errors import AGAIN, UNKNOWN_TOPIC, refused, unreachable

DEADLINE = 10.0
"""Seconds within which a request is answered, counting every attempt."""
PATIENCE = 5.0
"""Seconds for which one attempt waits for its answer."""
_PAUSE, _HANDSHAKE = 0.05, 2.0


class Topic(NamedTuple):
    """What the brokers say of a topic. ``replicas``: of the lane that has the fewest."""

    partitions: int
    replicas: int


def sending(lane: int) -> Hashable:
    """The channel on which records are sent to a lane."""
    return "produce", lane


class NotSent(Exception):
    """The request did not leave this process."""


class Client:
    """Connects when it is first asked, and again when that is needed. Belongs to one event loop."""

    def __init__(self, address: KafkaAddress) -> None:
        self.address = address
        self.deadline, self.patience = DEADLINE, PATIENCE
        self._servers = list(address.servers)
        self._client: Any = None
        self._turn = asyncio.Lock()
        self._closed = False
        self._ending: list[asyncio.Task[None]] = []
        self._knows_topic = False

    async def topic(self) -> Topic | None:
        """The topic as it is, or None if there is none. Never makes one, whatever the brokers' settings."""
        from aiokafka.protocol.metadata import MetadataRequest

        name = self.address.topic
        answer = await self.ask(lambda: MetadataRequest([name], allow_auto_topic_creation=False))
        for code, topic, _, partitions in answer.topics:
            if topic == name and code == 0:
                return Topic(len(partitions), min(len(replicas) for _, _, _, replicas, *_ in partitions))
            if topic == name and code not in (UNKNOWN_TOPIC, 5):
                raise refused(code, self.address.shown)
        return None

    async def until_there(self) -> Topic:
        """The topic, as soon as the brokers know it."""
        until = asyncio.get_running_loop().time() + self.deadline
        while (found := await self.topic()) is None:
            await self._pause(until, refused(UNKNOWN_TOPIC, self.address.shown))
        return found

    async def brokers(self) -> int:
        """How many brokers there are."""
        client = await self._connected()
        await asyncio.wait_for(client.force_metadata_update(), self.deadline)
        return len(client.cluster.brokers())

    async def ask(self, request: Callable[[], Any], node: int | None = None) -> Any:
        """A broker's answer, any broker's unless one is named; asked again until the deadline if none comes."""
        until = asyncio.get_running_loop().time() + self.deadline
        while True:
            client = await self._connected()
            chosen = client.get_random_node() if node is None else node
            try:
                return await self._sent(client, chosen, request(), 0)
            except (NotSent, OSError, TimeoutError, self.error()) as error:
                await self._pause(until, error)

    async def retried(self, request: Callable[[], Any]) -> Any:
        """A broker's answer that has no error code, or one that no waiting mends: that is raised."""
        until = asyncio.get_running_loop().time() + self.deadline
        while True:
            answer = await self.ask(request)
            if answer.error_code == 0:
                return answer
            await self.pause(until, answer.error_code, self.address.shown)

    async def controller(self, request: Callable[[], Any]) -> Any:
        """The answer of the broker that changes topics; any of them passes it on."""
        client = await self._connected()
        return await self.ask(request, client.cluster.controller.nodeId if client.cluster.controller else None)

    async def leader(self, lane: int, until: float) -> int:
        """The broker that leads a lane now, as far as is known."""
        from aiokafka import TopicPartition

        partition = TopicPartition(self.address.topic, lane)
        while True:
            client = await self._connected()
            found = client.cluster.leader_for_partition(partition)
            if found is not None and found != -1:
                return int(found)
            await self._pause(until, refused(5, f"partition {lane} of {self.address.shown}"))
            if self._knows_topic or await self.topic():
                await self.look_again()

    async def look_again(self) -> None:
        """Ask the brokers anew who leads what."""
        client = await self._connected()
        with contextlib.suppress(TimeoutError):
            if self.address.topic in client._topics:
                await asyncio.wait_for(client.force_metadata_update(), self.patience)
            else:
                await asyncio.wait_for(client.set_topics([self.address.topic]), self.patience)

    async def learn_topic(self) -> None:
        """From now on the topic is known to be there."""
        if not self._knows_topic:
            await self.look_again()
            self._knows_topic = True

    async def send(self, node: int, request: Any, channel: Hashable) -> Any:
        """Send once, and wait for the answer.

        A broker answers the requests of one connection one after the other; each ``channel`` has its own. Raises
        `NotSent`, or anything else where nobody knows whether the broker has done it.
        """
        return await self._sent(await self._connected(), node, request, channel)

    async def send_all(self, node: int, requests: Sequence[Any], channel: Hashable) -> list[Any]:
        """As `send`, for several that leave in one piece: of a small request, the system's call is the larger part."""
        connection = await self._connection(await self._connected(), node, channel)
        loop, pieces, sent = asyncio.get_running_loop(), list[bytes](), list[tuple[int, Any, asyncio.Future[Any]]]()
        for request in requests:
            number, ready = connection._next_correlation_id(), request.prepare(connection._versions)
            whole = ready.build_request_header(number, connection._client_id).encode()
            pieces += len(whole).to_bytes(4), whole
            sent.append((number, ready, loop.create_future()))
        connection._writer.write(b"".join(pieces))
        connection._requests.extend(sent)
        async with asyncio.timeout(self.patience):
            return await asyncio.gather(*(answer for _, _, answer in sent))

    async def _sent(self, client: Any, node: Any, request: Any, channel: Hashable) -> Any:
        connection = await self._connection(client, node, channel)
        return await connection.send(request)  # for as long as `_options` says

    async def _connection(self, client: Any, node: Any, channel: Hashable) -> Any:
        connection = client._conns.get((node, channel))  # it is asked for as often as there are appends
        if connection is None or not connection.connected():
            async with asyncio.timeout(self.patience):
                if node is None or not await client.ready(node, group=channel):
                    raise NotSent(f"no connection to broker {node}")
            connection = client._conns[node, channel]
        return connection

    async def pause(self, until: float, code: int, where: str) -> None:
        """After an answer that says *again*; raises when it is too late, or the answer says something else."""
        if code not in AGAIN:
            raise refused(code, where)
        await self._pause(until, refused(code, where))
        await self.look_again()

    async def _pause(self, until: float, error: BaseException) -> None:
        if asyncio.get_running_loop().time() + _PAUSE >= until:
            raise unreachable(error, self.address.shown, self.deadline) from error
        await asyncio.sleep(_PAUSE)

    async def _connected(self) -> Any:
        if self._client is not None and not self._closed:
            return self._client
        async with self._turn:
            if self._closed:
                raise StoreError(f"{self.address.shown} is closed")
            if self._client is None:
                self._client = await self._bootstrapped()
        return self._client

    async def _bootstrapped(self) -> Any:
        try:
            from aiokafka import AIOKafkaClient
        except ImportError as error:
            raise StoreError("kafka:// needs aiokafka: pip install 'agent-party-runtime[kafka]'") from error
        if not logging.getLogger("aiokafka").handlers:
            logging.getLogger("aiokafka").addHandler(logging.NullHandler())  # every error of it is ours to tell
        until = asyncio.get_running_loop().time() + self.deadline
        while True:
            options = self._options() | {"bootstrap_servers": self._servers}
            client = AIOKafkaClient(**options, retry_backoff_ms=int(_PAUSE * 1000))
            starting = asyncio.create_task(client.bootstrap())
            try:
                async with asyncio.timeout(self.patience):
                    await asyncio.shield(starting)
                return client
            except (OSError, TimeoutError, self.error(), asyncio.CancelledError) as error:
                self._ending.append(asyncio.create_task(_end(client, starting)))
                if isinstance(error, asyncio.CancelledError):
                    raise
                await self._diagnose()
                self._servers = [*self._servers[1:], self._servers[0]]  # one that is silent must not hide the others
                await self._pause(until, error)

    def _options(self) -> dict[str, Any]:
        return self.address.options() | {"request_timeout_ms": int(self.patience * 1000)}

    async def _diagnose(self) -> None:
        """Raise what no waiting will mend: the driver only says that it could not connect."""
        import ssl

        from aiokafka.conn import create_conn
        from aiokafka.errors import (
            BrokerResponseError,
            IncompatibleBrokerVersion,
            SaslAuthenticationFailed,
            UnsupportedSaslMechanismError,
        )

        host, _, port = self._servers[0].rpartition(":")
        options = self._options()
        options.pop("bootstrap_servers")
        where = self.address.shown
        try:
            async with asyncio.timeout(min(self.patience, _HANDSHAKE)):
                (await create_conn(host.strip("[]"), int(port), **options)).close()
        except (SaslAuthenticationFailed, UnsupportedSaslMechanismError) as error:
            raise StoreReadOnlyError(
                f"{where}: the brokers refuse user {self.address.user!r} with {self.address.mechanism}: check user, "
                f"password and mechanism in the URL ({error})"
            ) from error
        except ssl.SSLCertVerificationError as error:
            raise StoreError(
                f"{where}: the brokers' certificate is not trusted ({error.verify_message}): name the authority that "
                "signed it with ?ca=/path/ca.pem"
            ) from error
        except ssl.SSLError as error:
            raise StoreError(f"{where}: no TLS there ({error.reason}): kafka:// and kafka+ssl:// differ") from error
        except IncompatibleBrokerVersion as error:
            raise StoreError(f"{where}: the brokers are too old or too new for aiokafka ({error})") from error
        except (OSError, TimeoutError, BrokerResponseError, self.error()):
            return

    @staticmethod
    def error() -> type[Exception]:
        """The base of the driver's errors."""
        from aiokafka.errors import KafkaError

        found: type[Exception] = KafkaError
        return found

    async def close(self) -> None:
        """Let go of every connection."""
        self._closed = True
        client, self._client = self._client, None
        if client:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(self.patience):
                    await client.close()
        if self._ending:
            await asyncio.wait(self._ending, timeout=2 * self.patience)


async def _end(client: Any, starting: asyncio.Task[None]) -> None:
    """Close a client once its start is over: cancelled in the midst, it would leave its first connection open."""
    await asyncio.wait([starting])
    with contextlib.suppress(Exception):
        starting.exception()
        await client.close()
