"""The user's cache: each thing in it is made once, by one process at a time, and is there whole or not at all."""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .errors import FetchError

Say = Callable[[str], None]
"""Takes progress, a line at a time."""
WAITING = 1_800.0
"""Seconds to wait for another process that makes the same thing."""
_LOOK = 0.2


def cache_folder() -> Path:
    """Where fetched programs lie."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base.absolute() / "agent-party" / "services"


def made_once(name: str, make: Callable[[Path], None], say: Say, within: float = WAITING) -> Path:
    """The folder of this name in the cache; where it is missing, ``make`` fills a scratch folder that becomes it.

    `FetchError` if another process makes it and does not end ``within`` seconds, or if the cache cannot be written.
    """
    folder = cache_folder() / name
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_name(f".{name}.lock"), within, lambda: say(f"another process is fetching {name}")):
            if not folder.is_dir():
                _make(folder, make)
    except OSError as error:
        raise FetchError(f"the cache {folder.parent} cannot be used: {error}") from error
    return folder


def _make(folder: Path, make: Callable[[Path], None]) -> None:
    for left in folder.parent.glob(f".{folder.name}.*.making"):
        shutil.rmtree(left, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".making", dir=folder.parent))
    try:
        make(scratch)
        scratch.replace(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def locked(path: Path, within: float, busy: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of this file; ``busy`` is called once if it must be waited for."""
    with path.open("a") as file:
        deadline, told = time.monotonic() + within, False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise FetchError(f"another process has held {path} for {within:.0f} s") from None
                if not told:
                    busy()
                    told = True
                time.sleep(_LOOK)
        yield
