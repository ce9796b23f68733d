"""Starting, watching and ending the services of a folder.

They are processes of their own that outlive who started them; what is remembered of them lies in the folder. Started
again, they have the same addresses, passwords and data.
"""

import contextlib
import signal
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import quote

from . import kafka, nodes, processes
from .cache import Say, locked
from .errors import DifferentServicesError, ServiceError
from .nodes import SERVERS
from .ports import LOOPBACK
from .server import Place, secret
from .state import Node, State, read, write

NAMES = tuple(SERVERS)
"""The services there are."""
BUCKET = "agent-party"
TOPIC = "agent.events"
_BROKERS = (1, 3)
_LOCKED = 900.0
"""Seconds to wait for another who starts or ends the services of the same folder."""


def silent(line: str) -> None:
    """For progress that nobody watches."""


class Broker:
    """One of Kafka's brokers, to be harmed. ``data`` is its data folder."""

    def __init__(self, running: "Running", node: Node) -> None:
        self._running, self._node = running, node
        self.number, self.address = kafka.number(node), kafka.address(node)
        self.data, self.log = running.place.data(node), running.place.log(node)

    @property
    def pid(self) -> int:
        """Its process, also when that is gone."""
        return self._node.pid

    @property
    def running(self) -> bool:
        """Whether its process is there; a paused one is."""
        return self._node.running

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._tell(signal.SIGKILL)
        if not processes.gone(self._node.pid, self._node.born, 30):
            raise ServiceError(f"{self._node.name} does not die: process {self._node.pid}")

    def pause(self) -> None:
        """SIGSTOP: it stands still, its connections stay open."""
        self._tell(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._tell(signal.SIGCONT)

    def stop(self) -> None:
        """Have it end in good order."""
        nodes.end([self._node])

    def start(self, *, wait: bool = True, say: Say = silent) -> None:
        """Start it again over its data, if it does not run. ``wait``: until it answers and sees its peers."""
        self._running.start_nodes([self._node], wait=wait, say=say)

    def restart(self, *, wait: bool = True, say: Say = silent) -> None:
        """Stop it, if it runs, and start it again."""
        self.stop()
        self.start(wait=wait, say=say)

    def _tell(self, number: signal.Signals) -> None:
        if not processes.tell(self._node.pid, self._node.born, number):
            raise ServiceError(f"{self._node.name} does not run: {self.log}")


class Secure:
    """Kafka's listener by TLS and SCRAM. ``ca``: the file of the authority to trust."""

    def __init__(self, place: Place) -> None:
        self.address = ",".join(kafka.address(node, "secure") for node in place.state.of("kafka"))
        self.user, self.password, self.mechanism = kafka.USER, secret(place.state, "kafka"), kafka.MECHANISM
        self.ca = place.folder / "tls" / "ca.pem"

    def journal(self, topic: str) -> str:
        """The journal URL of a topic, by this listener."""
        return f"kafka+ssl://{self.user}:{self.password}@{self.address}/{topic}?ca={quote(str(self.ca))}"


class Status(NamedTuple):
    """How a server is: ``memory`` in bytes; ``address`` is ``host:port``; ``version`` its own last answer."""

    name: str
    running: bool
    pid: int
    address: str
    version: str
    memory: int


class Running:
    """The services of a folder. As a context manager it ends them."""

    def __init__(self, folder: Path, state: State) -> None:
        self.place = Place(folder, state)
        self._writing = threading.Lock()

    @property
    def names(self) -> list[str]:
        """The services that were started here, whether they still run or not."""
        return [name for name in NAMES if self.place.state.of(name)]

    @property
    def versions(self) -> dict[str, str]:
        """Each service's own answer to what version it is, when it was last started."""
        return {name: self.place.state.of(name)[0].version for name in self.names}

    @property
    def addresses(self) -> dict[str, str]:
        """How each is entered. Kafka: ``host:port`` of all brokers; the others: a URL with login and password."""
        return {name: nodes.address(self.place, name) for name in self.names}

    @property
    def settings(self) -> dict[str, str]:
        """The four settings of a party on these services; those of services that are not here are left out."""
        found, there = {}, self.addresses
        if "kafka" in there:
            plain = f"kafka://{there['kafka']}/{TOPIC}"
            found["journal"] = self.secure.journal(TOPIC) if self.place.state.secure else plain
        if "neo4j" in there:
            found["graph"] = there["neo4j"]
        if "redis" in there:
            found["views"] = there["redis"]
        if "minio" in there:
            login, _, host = there["minio"].removeprefix("http://").rpartition("@")
            found["blobs"] = f"s3://{login}@{BUCKET}?endpoint=http://{host}"
        return found

    @property
    def brokers(self) -> list[Broker]:
        """Kafka's brokers, in order."""
        return [Broker(self, node) for node in self.place.state.of("kafka")]

    def broker(self, number: int) -> Broker:
        """A broker by its number, from 1."""
        for broker in self.brokers:
            if broker.number == number:
                return broker
        raise ServiceError(f"there is no broker {number}: {len(self.brokers)} were started")

    @property
    def secure(self) -> Secure:
        """Kafka's listener by TLS and SCRAM; `ServiceError` if it was started without."""
        if not self.place.state.secure:
            raise ServiceError("Kafka was started without a secure listener: start it with secure=True")
        return Secure(self.place)

    def status(self) -> list[Status]:
        """How each server is, asked of the system now."""
        nodes_here = [node for name in self.names for node in self.place.state.of(name)]
        return [
            Status(
                node.name,
                running := node.running,
                node.pid,
                f"{LOOPBACK}:{next(iter(node.ports.values()), 0)}",
                node.version,
                processes.memory(node.pid) if running else 0,
            )
            for node in nodes_here
        ]

    def start_nodes(self, wanted: Sequence[Node], *, wait: bool = True, say: Say = silent) -> None:
        """Start those of the nodes that do not run, in parallel. ``wait``: until each one answers.

        `ServiceError` if one ends or does not answer in time; those that do answer stay.
        """
        self._launch([node for node in wanted if not node.running], say)
        asked = [node for node in wanted if not node.version]
        if wait and asked:
            try:
                with ThreadPoolExecutor(len(asked)) as pool:
                    list(pool.map(lambda node: nodes.await_answer(self.place, node, say), asked))
            finally:
                self.save()

    def _launch(self, down: Sequence[Node], say: Say) -> None:
        if not down:
            return
        programs = nodes.fetch({node.service for node in down}, say)
        if "kafka" in programs:
            kafka.share(self.place)
        with ThreadPoolExecutor(len(down)) as pool:
            commands = list(pool.map(lambda node: nodes.prepare(self.place, node, programs[node.service]), down))
        for node, command in zip(down, commands, strict=True):
            nodes.launch(self.place, node, command)
        self.save()

    def save(self) -> None:
        """Remember the state."""
        with self._writing:
            write(self.place.folder, self.place.state)

    def stop(self, names: Collection[str] = NAMES, *, delete: bool = False, say: Say = silent) -> None:
        """End the services, by pid and in good order if they can; ``delete``: their data and passwords too."""
        stop(self.place.folder, names, delete=delete, say=say)
        self.place = Place(self.place.folder, read(self.place.folder))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


def attach(folder: Path) -> Running:
    """The services that were started in a folder before."""
    return Running(folder.absolute(), read(folder.absolute()))


def settings_of(folder: Path) -> dict[str, str]:
    """The settings of a party on the services that run in a folder; `ServiceError` if they do not."""
    running = attach(folder)
    down = [row.name for row in running.status() if not row.running]
    if down or not running.names:
        what = f"{', '.join(down)} of {folder} does not run" if down else f"there are no services in {folder}"
        raise ServiceError(f"{what}: `party services up` starts them")
    return running.settings


def start(
    folder: Path,
    names: Collection[str] = NAMES,
    *,
    brokers: int | None = None,
    secure: bool | None = None,
    properties: Mapping[str, str] | None = None,
    say: Say = silent,
) -> Running:
    """Start services in a folder, those that do not run there already, and wait until each one answers.

    ``brokers``: of Kafka, 1 or 3; ``secure``: with a listener by TLS and SCRAM; ``properties``: further ones of Kafka's
    brokers. Left out, they are as they were before, or one plain broker. Programs that are missing are fetched first.
    `DifferentServicesError` for other brokers than the folder's data is of; `MissingProgramError`; `ServiceError`.
    """
    chosen = [name for name in NAMES if name in names]
    if unknown := set(names) - set(NAMES):
        raise ServiceError(f"there is no service {min(unknown)}: there are {', '.join(NAMES)}")
    with _alone(folder.absolute(), say) as running:
        state = running.place.state
        if "kafka" in chosen:
            _choose(state, brokers, secure, properties)
        for name in chosen:
            for node in state.of(name) or nodes.new(state, name, brokers or 1):
                state.nodes[node.name] = node
        wanted = [node for name in chosen for node in state.of(name)]
        nodes.give_ports(state, wanted)
        running.save()
        running.start_nodes(wanted, say=say)
        return running


def stop(folder: Path, names: Collection[str] = NAMES, *, delete: bool = False, say: Say = silent) -> None:
    """End the services of a folder; ``delete``: their data and passwords too."""
    if not (folder / "state.json").exists():
        return
    with _alone(folder.absolute(), say) as running:
        state = running.place.state
        ending = [node for node in state.nodes.values() if node.service in names]
        for node in ending:
            if node.running:
                say(f"{node.name}: ending process {node.pid}")
        nodes.end(ending)
        if delete:
            nodes.delete(running.place, ending)
        running.save()


def _choose(state: State, brokers: int | None, secure: bool | None, properties: Mapping[str, str] | None) -> None:
    """Kafka as asked for, which must not be another than the one that is here."""
    if brokers not in (None, *_BROKERS):
        raise DifferentServicesError(f"{brokers} brokers: there may be {' or '.join(map(str, _BROKERS))}")
    here = state.of("kafka")
    advice = "end it and delete its data first (party services down --delete --only kafka)"
    if here and brokers not in (None, len(here)):
        raise DifferentServicesError(f"the Kafka of this folder has {len(here)} brokers, not {brokers}: {advice}")
    if here and secure not in (None, state.secure):
        how = "with" if state.secure else "without"
        raise DifferentServicesError(f"the Kafka of this folder was made {how} a secure listener: {advice}")
    if not here:
        state.secure = bool(secure)
    if properties is not None:
        state.properties = dict(properties)


@contextlib.contextmanager
def _alone(folder: Path, say: Say) -> Iterator[Running]:
    """The services of a folder, while nobody else starts or ends them."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / ".gitignore").write_text("*\n")
    except OSError as error:
        raise ServiceError(f"{folder} cannot be used: {error}") from error
    with locked(folder / "lock", _LOCKED, lambda: say("another process is starting or ending them")):
        yield Running(folder, read(folder))
