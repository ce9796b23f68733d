"""`party services`: Kafka, Neo4j, Redis and MinIO on this machine, as real servers."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .output import NO, OK, Answer, NotFoundError, safe
from .session import Session, command

if TYPE_CHECKING:
    from ..cluster.services import Running

group = typer.Typer(
    help="Real servers on loopback: up, status, logs, env, down, fetch. They lie in .party/services.",
    no_args_is_help=True,
)
Only = Annotated[list[str] | None, typer.Option(help="Some of kafka,neo4j,redis,minio", metavar="NAMES")]
_LOOK = 0.2
_CHUNK = 1 << 16


@command(group, "up")
async def up(
    session: Session,
    only: Only = None,
    brokers: Annotated[int | None, typer.Option(help="Kafka's: 1 or 3", min=1)] = None,
    secure: Annotated[bool, typer.Option("--secure", help="Kafka with TLS and a password as well")] = False,
) -> Answer:
    """Start the services, those that do not run, and wait until each one answers. They stay when this command ends."""
    from ..cluster import services

    names = _chosen(only) or services.NAMES
    running = services.start(_folder(), names, brokers=brokers, secure=secure or None, say=_say)
    data = {"folder": str(running.place.folder), "settings": running.settings, "versions": running.versions}
    return Answer(data, _exports(running))


@command(group, "down")
async def down(
    session: Session,
    only: Only = None,
    delete: Annotated[bool, typer.Option("--delete", help="Their data and passwords too")] = False,
) -> Answer:
    """End the services: asked first, then killed. Their data stay, so that `up` goes on with them."""
    from ..cluster import services

    here = services.attach(_folder())
    names = [name for name in _chosen(only) or services.NAMES if name in here.names]
    services.stop(_folder(), names, delete=delete, say=_say)
    said = f"ended{' and deleted' if delete else ''}: {', '.join(names)}" if names else "there are no services here"
    return Answer({"ended": names, "deleted": delete and bool(names)}, [said])


@command(group, "status")
async def status(session: Session) -> Answer:
    """Say of each server whether it runs, its process, address, version and memory; exit code 1 if one does not."""
    from rich.table import Table

    running = _here()
    rows = running.status()
    table = Table("server", "", "process", "address", "version", "memory", box=None)
    for row in rows:
        memory = f"{row.memory / (1 << 20):,.0f} MiB" if row.running else ""
        said = (row.name, "runs" if row.running else "is down", str(row.pid or ""), row.address, row.version, memory)
        table.add_row(*said)
    advice = [] if all(row.running for row in rows) else ["`party services up` starts what is down"]
    return Answer([row._asdict() for row in rows], [table, *advice], NO if advice else OK)


@command(group, "env")
async def env(session: Session) -> Answer:
    """Print the four settings as shell exports: eval "$(party services env)"."""
    running = _here()
    return Answer(running.settings, _exports(running))


@command(group, "fetch")
async def fetch(session: Session, only: Only = None) -> Answer:
    """Fetch or build what the services need, into the user's cache, without starting anything."""
    from ..cluster import services

    found = services.fetch(_chosen(only) or services.NAMES, _say)
    return Answer(
        {name: str(path) for name, path in found.items()}, [f"{name}: {path}" for name, path in found.items()]
    )


@command(group, "logs")
async def logs(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A server: kafka, kafka-2, neo4j, redis, minio")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it is written")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", help="The last so many", min=0)] = 100,
) -> Answer:
    """Show what a server has said since it was started."""
    running = _here()
    nodes = [node for node in running.place.state.nodes.values() if name in (node.name, node.service)]
    if not nodes:
        raise NotFoundError(f"there is no {name} here: there are {', '.join(running.place.state.nodes)}")
    if len(nodes) > 1:
        raise NotFoundError(f"{name} are several, choose one: {', '.join(node.name for node in nodes)}")
    path = running.place.log(nodes[0])
    last = path.read_text(errors="replace").splitlines()[-lines:] if lines and path.exists() else []
    if not follow:
        return Answer(last, [safe(line) for line in last])
    for line in last:
        print(safe(line))
    for text in _followed(path):
        print(safe(text), end="", flush=True)
    return Answer(None)


def _followed(path: Path) -> Iterator[str]:
    """What is written to a log from now on; where the server is started again, its new log from the start."""
    file = path.open(errors="replace")
    file.seek(0, 2)
    try:
        while True:
            if text := file.read(_CHUNK):
                yield text
            elif path.exists() and path.stat().st_ino != _inode(file):
                file.close()
                file = path.open(errors="replace")
            else:
                time.sleep(_LOOK)
    finally:
        file.close()


def _inode(file: Any) -> int:
    import os

    return os.fstat(file.fileno()).st_ino


def _folder() -> Path:
    from ..cluster.settings import services_folder

    return services_folder(Path.cwd())


def _here() -> "Running":
    from ..cluster import services

    running = services.attach(_folder())
    if not running.names:
        raise NotFoundError(f"there are no services in {_folder()}: `party services up` starts them")
    return running


def _chosen(only: list[str] | None) -> list[str]:
    """The names, each once: several in one option, or in an option each."""
    from ..actors.errors import ConfigurationError
    from ..cluster.services import NAMES

    chosen = list(dict.fromkeys(name.strip() for name in ",".join(only or ()).split(",") if name.strip()))
    for name in chosen:
        if name not in NAMES:
            raise ConfigurationError(f"there is no service {name}: there are {', '.join(NAMES)}")
    return chosen


def _exports(running: "Running") -> list[str]:
    import shlex

    return [f"export PARTY_{name.upper()}={shlex.quote(url)}" for name, url in running.settings.items()]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
