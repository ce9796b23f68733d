"""What each of the four services says of itself: how its programs are had, and how a node is started and asked."""

import importlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, Protocol

from ...actors.errors import ConfigurationError
from .cache import Say
from .state import Node, State

HEAP = "-XX:+UseSerialGC"
"""Servers of a laptop: small heaps, and as few threads for them as can be."""
_PASSED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ")


class NotYetError(Exception):
    """A server that does not answer yet, and why."""


class Place(NamedTuple):
    """Where the services of one folder lie, and what is remembered of them."""

    folder: Path
    state: State

    def home(self, node: Node) -> Path:
        """The node's own folder: configuration, ``data`` and logs."""
        return self.folder / node.name

    def data(self, node: Node) -> Path:
        """Where the node keeps what must survive it."""
        return self.home(node) / "data"

    def log(self, node: Node) -> Path:
        """What it has said since it was started; ``server.log.1`` is the time before."""
        return self.home(node) / "server.log"


class Command(NamedTuple):
    """A command line; ``words[0]`` is a path."""

    words: list[str]
    environment: dict[str, str]


class Server(Protocol):
    """One of the four. ``patience``: seconds that a node has until it answers; ``parting``: until it is killed."""

    name: str
    patience: float
    parting: float

    def fetch(self, say: Say) -> Path:
        """Have its program on this machine, checked: a folder of jars, or an executable."""

    def ports(self, state: State) -> tuple[str, ...]:
        """The names of the ports that a node listens on."""

    def command(self, place: Place, node: Node, program: Path) -> Command:
        """Write its configuration, prepare its data if that is new, and say how it is started."""

    def answer(self, place: Place, node: Node) -> str:
        """Ask it by its own protocol; its own answer to what version it is. `NotYetError` if it gives none."""


def environment(**more: str) -> dict[str, str]:
    """What a server gets of the environment: nothing by which its settings could be changed unseen."""
    return {name: os.environ[name] for name in _PASSED if name in os.environ} | more


def secret(state: State, name: str) -> str:
    """The generated password of this name, the same as long as the state is kept."""
    return state.secrets.setdefault(name, token(24))


def token(size: int) -> str:
    """So many random bytes as letters and digits: a command line would take a leading dash for an option."""
    return secrets.token_urlsafe(size).replace("-", "x").replace("_", "y")


def driver(module: str, extra: str) -> ModuleType:
    """A driver; `ConfigurationError` with the extra to install where it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigurationError(
            f"{module} is needed to ask the service: pip install 'agent-party-runtime[{extra}]'"
        ) from error


def lines(settings: Mapping[str, object]) -> str:
    """Settings as Java reads them."""
    return "".join(f"{name}={value}\n" for name, value in settings.items())
