"""DBOS Transact on SQLite: a workflow of steps. ``default``: its own settings; ``wal``: a write-ahead log, as ours."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from dbos import DBOS, DBOSConfig, SetWorkflowID

from .work import effect, text


@DBOS.step()
def once(given: str) -> str:
    """The step."""
    return effect(given)


@DBOS.workflow()
def chain(given: str, steps: int) -> str:
    """As many steps as asked for."""
    for _ in range(steps):
        given = once(given)
    return given


class Dbos:
    """Threads, which were faster here than DBOS's coroutines."""

    async def run(self, tasks: Sequence[str], steps: int) -> Sequence[str]:
        return await asyncio.to_thread(self._run, tasks, steps)

    def _run(self, tasks: Sequence[str], steps: int) -> list[str]:
        handles = []
        for task in tasks:
            with SetWorkflowID(task):
                handles.append(DBOS.start_workflow(chain, text(task, 0), steps))
        return [str(handle.get_result()) for handle in handles]

    async def recorded(self, task: str) -> Sequence[str]:
        steps = await asyncio.to_thread(DBOS.list_workflow_steps, task)
        return [step["output"] for step in sorted(steps, key=lambda step: step["function_id"])]


@contextlib.asynccontextmanager
async def opening(folder: Path, setting: str) -> AsyncIterator[Dbos]:
    """``setting``: ``default`` or ``wal``."""
    path = folder / "dbos.db"
    with contextlib.closing(sqlite3.connect(path)) as db:  # the journal's mode stays with the file
        db.execute(f"PRAGMA journal_mode={'WAL' if setting == 'wal' else 'DELETE'}")
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": f"sqlite:///{path}",
        "enable_otlp": False,
        "log_level": "ERROR",
    }
    DBOS(config=config)
    await asyncio.to_thread(DBOS.launch)
    try:
        yield Dbos()
    finally:
        await asyncio.to_thread(DBOS.destroy)
