"""What is remembered of the services of a folder, in one file that only its owner may read."""

import os
from pathlib import Path

import msgspec

from . import processes
from .errors import ServiceError

FORMAT = 1


class Node(msgspec.Struct):
    """One server process. ``born``: see `processes.born`; ``version``: its own answer when it was last started."""

    name: str
    ports: dict[str, int] = {}
    pid: int = 0
    born: str = ""
    version: str = ""

    @property
    def service(self) -> str:
        """The service that it belongs to: ``kafka`` of ``kafka-2``."""
        return self.name.partition("-")[0]

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return processes.same(self.pid, self.born)


class State(msgspec.Struct):
    """``secrets``: generated passwords by service. ``properties``: what Kafka's brokers are set to beside ours."""

    format: int = FORMAT
    nodes: dict[str, Node] = {}
    secrets: dict[str, str] = {}
    cluster: str = ""
    secure: bool = False
    properties: dict[str, str] = {}

    def of(self, service: str) -> list[Node]:
        """The nodes of a service, in order."""
        return sorted((node for node in self.nodes.values() if node.service == service), key=lambda node: node.name)

    @property
    def taken(self) -> set[int]:
        """Ports that have been given away."""
        return {port for node in self.nodes.values() for port in node.ports.values()}


def read(folder: Path) -> State:
    """The state of a folder; a new one where there is none. `ServiceError` for one that cannot be read."""
    path = folder / "state.json"
    try:
        state = msgspec.json.decode(path.read_bytes(), type=State)
    except FileNotFoundError:
        return State()
    except (OSError, msgspec.MsgspecError) as error:
        raise ServiceError(f"{path} cannot be read: {error}; if its servers are gone, delete {folder}") from error
    if state.format != FORMAT:
        raise ServiceError(
            f"{path} has format {state.format}, this version knows {FORMAT}: use the version that made it"
        )
    return state


def write(folder: Path, state: State) -> None:
    """Put the state in place of the one before, at once and durably."""
    private(folder / "state.json", msgspec.json.format(msgspec.json.encode(state), indent=1).decode())


def private(path: Path, text: str) -> None:
    """Write a file that only its owner may read; it is there whole or as it was."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    opened = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(opened, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)
