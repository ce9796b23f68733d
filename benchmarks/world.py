"""A design that writes its whole state with each step, to be compared with: a small stand-in, honestly made.

One row a task, replaced with each step by all that the task has come to so far; the same settings as our own tape, so
one fsync a step. (Designs of this kind often keep every version as well. This one does not.)
"""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import msgspec

from .site import PAYLOAD


class Worlds(Protocol):
    """Tasks of such a design, one after the other."""

    def grow(self, steps: int) -> None:
        """Begin a new task, with this many steps behind it."""
        ...

    def run(self, steps: int) -> float:
        """Run some steps of it. The bytes that they wrote."""
        ...

    def verify(self, steps: int) -> None:
        """Whether it has recorded so many steps."""
        ...


PathOfWorlds = Callable[[Path], AbstractContextManager[Worlds]]


def outcome(number: int) -> str:
    """What a step comes to."""
    return f"{number}:".ljust(PAYLOAD, "x")


class SqliteWorlds:
    """The stand-in."""

    def __init__(self, path: Path) -> None:
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=FULL")
        self.db.execute("CREATE TABLE world (task INTEGER PRIMARY KEY, state BLOB) STRICT")
        self._task, self._state = 0, list[str]()

    def grow(self, steps: int) -> None:
        self._task, self._state = self._task + 1, [outcome(number) for number in range(steps)]

    def run(self, steps: int) -> float:
        written = 0
        for _ in range(steps):
            self._state.append(outcome(len(self._state)))
            state = msgspec.msgpack.encode(self._state)
            self.db.execute("INSERT OR REPLACE INTO world VALUES (?, ?)", (self._task, state))
            written += len(state)
        return written

    def verify(self, steps: int) -> None:
        (state,) = self.db.execute("SELECT state FROM world WHERE task = ?", (self._task,)).fetchone()
        assert msgspec.msgpack.decode(state) == [outcome(number) for number in range(steps)]


@contextlib.contextmanager
def sqlite_worlds(folder: Path) -> Iterator[SqliteWorlds]:
    """The stand-in on a file in a folder."""
    worlds = SqliteWorlds(folder / "world.db")
    try:
        yield worlds
    finally:
        worlds.db.close()
