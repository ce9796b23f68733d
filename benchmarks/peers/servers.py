"""The peers that are servers: how each is had, where it is kept, and how it is run for one turn.

``python -m benchmarks.peers.servers`` fetches what is missing, through the registries' ordinary clients: Restate's
binary from npm, Temporal's from source through Go's module proxy. Either is pinned and kept in the user's cache.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

RESTATE = "1.7.12"
TEMPORAL = "1.5.1"
"""Of its command line. Newer ones have a ``replace`` in their go.mod, which ``go install`` refuses."""
TEMPORAL_SERVER = "1.29.1"
"""The server that is in it."""
BUILDING = 1_800.0
_STOPPING = 10.0

QUIET = {
    "DO_NOT_TRACK": "1",
    "SCARF_ANALYTICS": "false",
    "RESTATE_DISABLE_TELEMETRY": "true",
    "TEMPORAL_VERSION_CHECK_DISABLED": "1",
    "GOTELEMETRY": "off",
    "LANGSMITH_TRACING": "false",
    "LANGCHAIN_TRACING_V2": "false",
    "npm_config_update_notifier": "false",
}
"""No peer tells anybody anything."""


class MissingError(Exception):
    """A peer that cannot be had here, and why."""


def cache() -> Path:
    """Where peers are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agent-party" / "peers"


def temporal() -> Path:
    """Temporal's command line, which has the server in it."""
    return _there(cache() / f"temporal-{TEMPORAL}" / "temporal")


def restate() -> Path:
    """Restate's server. The binary itself: npm's launcher beside it only looks for it."""
    folder = cache() / f"restate-{RESTATE}" / "node_modules" / "@restatedev"
    found = sorted(folder.glob("restate-server-*/bin/restate-server"))
    return _there(found[0] if found else folder / "restate-server")


def _there(path: Path) -> Path:
    if not path.exists():
        raise MissingError("its server is not in the cache: python -m benchmarks.peers.servers fetches it")
    return path


def fetch_temporal() -> None:
    """Build Temporal; several minutes on two cores."""
    package = f"github.com/temporalio/cli/cmd/temporal@v{TEMPORAL}"
    environment = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOBIN": str(cache() / f"temporal-{TEMPORAL}")}
    _call(["go", "install", "-ldflags=-s -w", package], environment)


def fetch_restate() -> None:
    """Install Restate's package; its scripts are not run."""
    folder = cache() / f"restate-{RESTATE}"
    folder.mkdir(parents=True, exist_ok=True)
    _call(
        ["npm", "install", "--ignore-scripts", "--no-fund", "--no-audit", "--prefix", str(folder),
         f"@restatedev/restate-server@{RESTATE}"],
        {},
    )  # fmt: skip


def _call(command: Sequence[str], environment: dict[str, str]) -> None:
    if not shutil.which(command[0]):
        raise MissingError(f"{command[0]} is not on this machine")
    done = subprocess.run(
        command,
        env={**os.environ, **QUIET, **environment},
        capture_output=True,
        text=True,
        timeout=BUILDING,
        check=False,
    )
    if done.returncode:
        raise MissingError(f"{command[0]} failed: {' '.join(done.stderr.split())[-300:]}")


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def serving(command: Sequence[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server while the block runs; what it says goes to a file in the folder."""
    with open(folder / "server.log", "ab") as out:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **QUIET}, stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOPPING)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main() -> int:
    """Fetch what is missing. 0 also where something cannot be had: the run says so and goes on without it."""
    for name, find, fetch in (("Temporal", temporal, fetch_temporal), ("Restate", restate, fetch_restate)):
        try:
            with contextlib.suppress(MissingError):
                find()
                continue
            print(f"fetching {name} ...", file=sys.stderr, flush=True)
            fetch()
            find()
        except (MissingError, OSError, subprocess.SubprocessError) as error:
            print(f"{name} cannot be had: {error}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
