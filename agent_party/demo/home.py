"""Where the demo plays: a folder of its own in the user's cache, emptied at each start and left for looking around."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from ..cluster.settings import SCHEMES, services_folder


class Home(NamedTuple):
    """The demo's folders. ``trace``: what the effects write, outside of `.party`."""

    folder: Path

    @property
    def party(self) -> Path:
        return self.folder / ".party"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def trace(self) -> Path:
        return self.folder / "effects.txt"

    @property
    def journal(self) -> str:
        return f"sqlite:///{self.party}/log.db"

    @property
    def services(self) -> Path:
        return services_folder(self.folder)


@contextlib.contextmanager
def home() -> Iterator[Home]:
    """The demo's own folder; another one where a second demo runs at the same time."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agent-party"
    base.mkdir(parents=True, exist_ok=True)
    with (base / "demo.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            folder = base / "demo"
            _end_services(folder)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700)
        except BlockingIOError:
            folder = Path(tempfile.mkdtemp(prefix="demo-", dir=base))
        yield Home(folder)


def _end_services(folder: Path) -> None:
    """Servers of a demo that was killed are still there."""
    if (services_folder(folder) / "state.json").exists():
        from ..cluster import services

        services.stop(services_folder(folder))


@contextlib.contextmanager
def stores(place: Home, profile: str, say: Callable[[str], None]) -> Iterator[dict[str, str]]:
    """The settings of the demo's stores: embedded ones, or with the profile ``services`` servers started for it.

    What stands in the environment about stores is another party's, and does not count here.
    """
    for name in (*SCHEMES, "profile"):
        os.environ.pop(f"PARTY_{name.upper()}", None)
    if not profile:
        yield {"journal": place.journal}
        return
    from ..cluster import services

    os.environ["PARTY_HOME"] = str(place.party)
    say("Starting Kafka, Neo4j, Redis and MinIO for it.")
    with services.start(place.services, say=lambda line: say(line) if " up after " in line else None) as running:
        yield running.settings


@contextlib.contextmanager
def quiet(log: Path) -> Iterator[tuple[IO[str], IO[str]]]:
    """What Ray and its processes print goes to a file; standard output and error are given for the demo's own words."""
    kept = os.dup(1), os.dup(2)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    out, err = os.fdopen(os.dup(kept[0]), "w"), os.fdopen(os.dup(kept[1]), "w")
    try:
        yield out, err
    finally:
        for stream, original, number in ((out, kept[0], 1), (err, kept[1], 2)):
            stream.flush()
            os.dup2(original, number)
            os.close(original)
