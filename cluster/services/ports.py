"""Ports that nobody listens on."""

import contextlib
import random
import socket
from collections.abc import Collection

from .errors import ServiceError

LOOPBACK = "127.0.0.1"
RANGE = range(20_000, 32_000)
"""Below what systems give to outgoing connections, so that none of those takes a port that a server will listen on."""
_TRIES = 200


def free(taken: Collection[int] = ()) -> int:
    """A port of the loopback interface that nobody listens on and that is not in ``taken``."""
    for port in random.sample(RANGE, _TRIES):
        if port not in taken and is_free(port):
            return port
    raise ServiceError(f"of {_TRIES} ports tried between {RANGE[0]} and {RANGE[-1]} none is free")


def is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as tried, contextlib.suppress(OSError):
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tried.bind((LOOPBACK, port))
        return True
    return False


def answers(port: int, within: float = 1.0) -> bool:
    """Whether somebody listens there."""
    with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), within):
        return True
    return False
