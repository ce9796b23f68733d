"""Redis, for views: nothing is evicted, and what it holds can be built again from the log.

So it keeps no append-only file; a snapshot now and then, and when it ends in good order, saves the rebuilding.
"""

from pathlib import Path

from . import artifacts
from .cache import Say
from .ports import LOOPBACK
from .server import Command, NotYetError, Place, driver, environment, secret
from .state import Node, State, private


class Redis:
    """One server."""

    name, patience, parting = "redis", 30.0, 20.0

    def fetch(self, say: Say) -> Path:
        """Debian's, or the one on the PATH."""
        return artifacts.redis(say)

    def ports(self, state: State) -> tuple[str, ...]:
        """The one."""
        return ("redis",)

    def command(self, place: Place, node: Node, program: Path) -> Command:
        """Write ``redis.conf``."""
        place.data(node).mkdir(exist_ok=True)
        file = place.home(node) / "redis.conf"
        told = {**settings(place, node), "requirepass": secret(place.state, "redis")}
        private(file, "".join(f"{name} {value}\n" for name, value in told.items()))
        return Command([str(program), str(file)], environment())

    def answer(self, place: Place, node: Node) -> str:
        """What INFO says."""
        redis = driver("redis", "redis")
        options = {"password": secret(place.state, "redis"), "socket_timeout": 5, "socket_connect_timeout": 5}
        try:
            with redis.Redis(LOOPBACK, node.ports["redis"], **options) as opened:
                return str(opened.info("server")["redis_version"])
        except (redis.RedisError, OSError) as error:
            raise NotYetError(str(error)) from error


def settings(place: Place, node: Node) -> dict[str, object]:
    """What the server is set to, but for the password."""
    return {
        "bind": LOOPBACK,
        "port": node.ports["redis"],
        "dir": f'"{place.data(node)}"',
        "daemonize": "no",
        "appendonly": "no",
        "save": "300 1",
        "stop-writes-on-bgsave-error": "no",
        "maxmemory-policy": "noeviction",
    }
