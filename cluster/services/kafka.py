"""Kafka in KRaft mode: every broker is a controller too, listening on loopback only.

Topics are made by whoever needs them and never by being named; unclean election is off. Three brokers replicate
three times, and a write needs two of them. With ``secure`` there is a second listener, TLS with SCRAM, whose user
is made when the data folders are.
"""

import asyncio
import re
from pathlib import Path

from . import artifacts
from .cache import Say
from .certificate import make_certificate
from .ports import LOOPBACK
from .server import HEAP, Command, NotYetError, Place, driver, environment, lines, secret, token
from .state import Node, State, private

USER = "party"
"""The SCRAM user."""
MECHANISM = "SCRAM-SHA-512"
_SAID = re.compile(r"Kafka version: (\S+)")


class Kafka:
    """One broker, or three."""

    name, patience, parting = "kafka", 120.0, 20.0

    def fetch(self, say: Say) -> Path:
        """The jars; Java must be there."""
        artifacts.java()
        return artifacts.jars(artifacts.KAFKA, say)

    def ports(self, state: State) -> tuple[str, ...]:
        """For clients and brokers, for controllers, and for clients by TLS."""
        return ("plain", "controller", "secure") if state.secure else ("plain", "controller")

    def command(self, place: Place, node: Node, program: Path) -> Command:
        """Write ``server.properties``, format the data folder if it is new."""
        home = place.home(node)
        private(home / "server.properties", lines(settings(place, node)))
        java = [artifacts.java(), HEAP, "-cp", f"{program}/*"]
        if not (place.data(node) / "meta.properties").exists():
            private(home / "format", "\n".join(_format(place, node)) + "\n")
            call = [*java, "-Xmx128m", "-XX:TieredStopAtLevel=1", "kafka.tools.StorageTool", f"@{home / 'format'}"]
            artifacts.call(call)
            (home / "format").unlink()
        heap = "-Xmx512m" if len(place.state.of("kafka")) == 1 else "-Xmx384m"
        logging = ["-Dorg.slf4j.simpleLogger.showDateTime=true", f"-XX:ErrorFile={home}/jvm.log"]
        words = [*java, "-Xms128m", heap, *logging, "kafka.Kafka", str(home / "server.properties")]
        return Command(words, environment())

    def answer(self, place: Place, node: Node) -> str:
        """Brokers do not tell their version to clients: it is what it wrote when it started, once it serves clients
        and sees all its peers.
        """
        found = _SAID.findall(place.log(node).read_text(errors="replace"))
        if not found:
            raise NotYetError("it has not started yet")
        seen = asyncio.run(_brokers(address(node)))
        wanted = sum(peer.running for peer in place.state.of("kafka"))
        if seen < wanted:
            raise NotYetError(f"it sees {seen} of {wanted} brokers")
        return str(found[-1])


def share(place: Place) -> None:
    """Make what all brokers share: the cluster's id, and the certificate."""
    place.state.cluster = place.state.cluster or token(16)
    if place.state.secure:
        make_certificate(place.folder / "tls")


def settings(place: Place, node: Node) -> dict[str, object]:
    """What a broker is set to, one's own properties last."""
    state, nodes = place.state, place.state.of("kafka")
    copies = min(3, len(nodes))
    listeners = {"PLAIN": node.ports["plain"], "CONTROLLER": node.ports["controller"]}
    if state.secure:
        listeners["SECURE"] = node.ports["secure"]
    voters = ",".join(f"{number(peer)}@{LOOPBACK}:{peer.ports['controller']}" for peer in nodes)
    shown = {name: port for name, port in listeners.items() if name != "CONTROLLER"}
    return {
        "process.roles": "broker,controller",
        "node.id": number(node),
        "controller.quorum.voters": voters,
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAIN",
        "listeners": ",".join(f"{name}://{LOOPBACK}:{port}" for name, port in listeners.items()),
        "advertised.listeners": ",".join(f"{name}://{LOOPBACK}:{port}" for name, port in shown.items()),
        "listener.security.protocol.map": "PLAIN:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL",
        "log.dirs": place.data(node),
        "default.replication.factor": copies,
        "min.insync.replicas": max(1, copies - 1),
        "unclean.leader.election.enable": "false",
        "auto.create.topics.enable": "false",
        "offsets.topic.replication.factor": copies,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": max(1, copies - 1),
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": max(1, copies - 1),
        "group.initial.rebalance.delay.ms": 0,
        **(_tls(place) if state.secure else {}),
        **state.properties,
    }


def address(node: Node, port: str = "plain") -> str:
    """``host:port`` of a broker."""
    return f"{LOOPBACK}:{node.ports[port]}"


def number(node: Node) -> int:
    """The broker's id: 2 of ``kafka-2``."""
    return int(node.name.rpartition("-")[2])


def _tls(place: Place) -> dict[str, object]:
    listener = "listener.name.secure"
    login = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    return {
        "sasl.enabled.mechanisms": MECHANISM,
        f"{listener}.{MECHANISM.lower()}.sasl.jaas.config": login,
        f"{listener}.ssl.keystore.type": "PEM",
        f"{listener}.ssl.keystore.location": place.folder / "tls" / "server.pem",
        f"{listener}.ssl.client.auth": "none",
    }


def _format(place: Place, node: Node) -> list[str]:
    """The arguments of the formatting, in a file, so that no password stands where ``ps`` shows it."""
    words = ["format", "-t", place.state.cluster, "-c", str(place.home(node) / "server.properties")]
    if place.state.secure:
        words += ["--add-scram", f"{MECHANISM}=[name={USER},password={secret(place.state, 'kafka')}]"]
    return words


async def _brokers(bootstrap: str) -> int:
    """How many brokers the one there sees."""
    admin = driver("aiokafka.admin", "kafka").AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=5_000)
    errors = driver("aiokafka.errors", "kafka")
    try:
        async with asyncio.timeout(10):
            await admin.start()
            try:
                return len((await admin.describe_cluster())["brokers"])
            finally:
                await admin.close()
    except (errors.KafkaError, TimeoutError, OSError) as error:
        raise NotYetError(str(error) or type(error).__name__) from error
