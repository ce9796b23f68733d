"""The life of a server process: its ports, its start, its first answer, its end."""

import contextlib
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import kafka, minio, neo4j, ports, processes
from .cache import Say
from .errors import ServiceError
from .kafka import Kafka
from .minio import Minio
from .neo4j import Neo4j
from .redis import Redis
from .server import Command, NotYetError, Place, Server, secret
from .state import Node, State

SERVERS: dict[str, Server] = {server.name: server for server in (Kafka(), Neo4j(), Redis(), Minio())}
_LOOK = 0.1
_WORD = 10.0
"""Seconds between two words of progress."""
_LAST = 400
"""Characters of a log that an error shows."""


def new(state: State, service: str, brokers: int) -> Iterator[Node]:
    """The nodes of a service that is not here yet."""
    if service != "kafka":
        yield Node(service)
        return
    for number in range(1, brokers + 1):
        yield Node(f"kafka-{number}")


def give_ports(state: State, nodes: Sequence[Node]) -> None:
    """Ports for the nodes that do not run. They keep what they have, unless somebody else listens there now."""
    for node in nodes:
        if node.running:
            continue
        for name in SERVERS[node.service].ports(state):
            if name not in node.ports or not ports.is_free(node.ports[name]):
                node.ports[name] = ports.free(state.taken)


def fetch(services: Collection[str], say: Say) -> dict[str, Path]:
    """The programs of the services, all fetched at once."""
    with ThreadPoolExecutor(max(1, len(services))) as pool:
        return dict(zip(services, pool.map(lambda name: SERVERS[name].fetch(say), services), strict=True))


def prepare(place: Place, node: Node, program: Path) -> Command:
    """Its folder, its configuration, its data where they are new."""
    place.home(node).mkdir(mode=0o700, exist_ok=True)
    return SERVERS[node.service].command(place, node, program)


def launch(place: Place, node: Node, command: Command) -> None:
    """Start its process. What it said the time before is kept once."""
    log = place.log(node)
    with contextlib.suppress(FileNotFoundError):
        log.replace(log.with_name("server.log.1"))
    try:
        node.pid = processes.spawn(command.words, command.environment, log)
    except OSError as error:
        raise ServiceError(f"{node.name} cannot be started: {command.words[0]}: {error}") from error
    node.born, node.version = processes.born(node.pid), ""


def await_answer(place: Place, node: Node, say: Say) -> None:
    """Wait until it answers by its own protocol; `ServiceError` with the end of its log if it does not."""
    server = SERVERS[node.service]
    began = told = time.monotonic()
    where = ", ".join(f"{name} {port}" for name, port in node.ports.items())
    say(f"{node.name}: process {node.pid} started, ports {where}")
    why = "nobody listens yet"
    while True:
        if not node.running:
            raise ServiceError(f"{node.name} has ended while it started: {_end_of_log(place, node)}")
        if all(ports.answers(port) for port in node.ports.values()):
            try:
                node.version = server.answer(place, node)
                break
            except NotYetError as error:
                why = str(error)
        now = time.monotonic()
        if now - began > server.patience:
            raise ServiceError(
                f"{node.name} does not answer after {server.patience:.0f} s: {why}; {_end_of_log(place, node)}"
            )
        if now - told > _WORD:
            told = now
            say(f"{node.name}: not yet, after {now - began:.0f} s: {why}")
        time.sleep(_LOOK)
    say(f"{node.name}: up after {time.monotonic() - began:.1f} s, version {node.version}")


def end(nodes: Sequence[Node]) -> None:
    """End them, all at once: asked first, then killed. `ServiceError` if one stays."""
    if not nodes:
        return
    with ThreadPoolExecutor(len(nodes)) as pool:
        ended = pool.map(lambda node: processes.end(node.pid, node.born, SERVERS[node.service].parting), nodes)
        left = [node for node, gone in zip(nodes, ended, strict=True) if not gone]
    if left:
        raise ServiceError(f"{left[0].name} does not end: process {left[0].pid}")


def delete(place: Place, nodes: Sequence[Node]) -> None:
    """Forget nodes that have ended, their data, and their passwords."""
    for node in nodes:
        shutil.rmtree(place.home(node), ignore_errors=True)
        place.state.nodes.pop(node.name, None)
        place.state.secrets.pop(node.service, None)
    if not place.state.of("kafka"):
        place.state.cluster, place.state.secure, place.state.properties = "", False, {}
        shutil.rmtree(place.folder / "tls", ignore_errors=True)


def address(place: Place, service: str) -> str:
    """How a service is entered: brokers as ``host:port``, the others as a URL with login and password."""
    nodes, state = place.state.of(service), place.state
    match service:
        case "kafka":
            return ",".join(kafka.address(node) for node in nodes)
        case "neo4j":
            scheme, _, host = neo4j.address(nodes[0]).partition("://")
            return f"{scheme}://{neo4j.USER}:{secret(state, 'neo4j')}@{host}"
        case "redis":
            return f"redis://:{secret(state, 'redis')}@{ports.LOOPBACK}:{nodes[0].ports['redis']}/0"
        case _:
            return f"http://{minio.USER}:{secret(state, 'minio')}@{ports.LOOPBACK}:{nodes[0].ports['s3']}"


def _end_of_log(place: Place, node: Node) -> str:
    log = place.log(node)
    try:
        said = " ".join(log.read_text(errors="replace")[-_LAST:].split())
    except OSError:
        said = ""
    return f"{log} ends with: {said}" if said else f"{log} is empty"
