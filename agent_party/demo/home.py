"""Where the demo plays: a folder of its own in the user's cache, emptied at each start and left for looking around."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple


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


@contextlib.contextmanager
def home() -> Iterator[Home]:
    """The demo's own folder; another one where a second demo runs at the same time."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agent-party"
    base.mkdir(parents=True, exist_ok=True)
    with (base / "demo.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            folder = base / "demo"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700)
        except BlockingIOError:
            folder = Path(tempfile.mkdtemp(prefix="demo-", dir=base))
        yield Home(folder)


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
