"""The floor: the same two facts a step, as unsigned rows in a raw SQLite file, and nothing else.

A step is one row: which wait of which task came to what, and what the next one was given. One task alone: one row a
transaction, one fsync. Several at once: one transaction for a row of each, which is group commit at its best.
"""

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from .work import effect, text


class Rows:
    """A file with the settings of our own tape: write-ahead log, one fsync a transaction."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute(
            "CREATE TABLE step (task TEXT, number INTEGER, settled TEXT, opened TEXT, PRIMARY KEY (task, number))"
        )

    async def run(self, tasks: Sequence[str], steps: int) -> Sequence[str]:
        given = [text(task, 0) for task in tasks]
        self._commit([(task, 0, None, first) for task, first in zip(tasks, given, strict=True)])
        for number in range(1, steps + 1):
            given = [effect(one) for one in given]
            opened = given if number < steps else [None] * len(given)
            rows = zip(tasks, [number] * len(tasks), given, opened, strict=True)
            self._commit(list(rows))
        return given

    def _commit(self, rows: list[tuple[str, int, str | None, str | None]]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany("INSERT INTO step VALUES (?, ?, ?, ?)", rows)
        self._db.execute("COMMIT")

    async def recorded(self, task: str) -> Sequence[str]:
        query = "SELECT settled FROM step WHERE task = ? AND number > 0 ORDER BY number"
        return [settled for (settled,) in self._db.execute(query, (task,))]

    def close(self) -> None:
        """Close the file."""
        self._db.close()


@contextlib.asynccontextmanager
async def opening(folder: Path, setting: str) -> AsyncIterator[Rows]:
    """``setting``: there is one only."""
    rows = Rows(folder / "rows.db")
    try:
        yield rows
    finally:
        rows.close()
