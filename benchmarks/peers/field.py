"""Who takes part: each contestant, with what it is set to and what that means for a step."""

import importlib.metadata
import importlib.util
import sqlite3
from typing import NamedTuple

from .servers import RESTATE, TEMPORAL, TEMPORAL_SERVER, MissingError, restate, temporal

OURS = "party"


class Entry(NamedTuple):
    """A contestant. ``equal``: no step begins before the outcome of the one before is on disk, as with us.

    ``main``: stands for its peer in a short run.
    """

    name: str
    peer: str
    title: str
    module: str
    setting: str
    says: str
    equal: bool = True
    main: bool = True


FIELD = [
    Entry(OURS, "", "Agent Party", "ours", "",
          "signed, chained, encrypted, read back and judged; write-ahead log, synchronous=FULL"),
    Entry("rows", "unsigned rows", "unsigned rows", "rows", "", "raw SQLite; write-ahead log, synchronous=FULL"),
    Entry("dbos", "DBOS", "DBOS, its default", "with_dbos", "default",
          "rollback journal, synchronous=FULL; a step's input is not recorded", main=False),
    Entry("dbos-wal", "DBOS", "DBOS, write-ahead log", "with_dbos", "wal",
          "write-ahead log, synchronous=FULL; a step's input is not recorded"),
    Entry("langgraph-sync", "LangGraph", "LangGraph graph, sync saver", "with_langgraph", "graph sync sync",
          "durability sync; write-ahead log, synchronous=FULL, as the saver sets it"),
    Entry("langgraph-async", "LangGraph", "LangGraph graph, async saver", "with_langgraph", "graph async sync",
          "the same, with coroutines", main=False),
    Entry("langgraph-tasks-sync", "LangGraph", "LangGraph @task, sync saver", "with_langgraph", "tasks sync sync",
          "durability sync, but the next @task begins before the outcome of the one before is stored",
          equal=False, main=False),
    Entry("langgraph-tasks-async", "LangGraph", "LangGraph @task, async saver", "with_langgraph", "tasks async sync",
          "the same, with coroutines", equal=False, main=False),
    Entry("langgraph-default", "LangGraph", "LangGraph graph, its default", "with_langgraph", "graph sync async",
          "durability async: stored while the next step runs", equal=False, main=False),
    Entry("temporal", "Temporal", "Temporal, its default", "with_temporal", "default",
          "activities; rollback journal, synchronous=FULL", main=False),
    Entry("temporal-tuned", "Temporal", "Temporal, tuned", "with_temporal", "tuned",
          "activities; write-ahead log, synchronous=FULL; limit of 20 polls of the transfer queue a second lifted"),
    Entry("temporal-local", "Temporal", "Temporal, local activities", "with_temporal", "local",
          "local activities: many steps are stored at once, when the workflow next answers", equal=False, main=False),
    Entry("restate", "Restate", "Restate", "with_restate", "",
          "its default, which syncs its log; a step's input is not recorded"),
]  # fmt: skip

_PACKAGES = {
    "with_dbos": ("dbos",),
    "with_langgraph": ("langgraph", "langgraph-checkpoint-sqlite"),
    "with_temporal": ("temporalio",),
    "with_restate": ("restate-sdk", "hypercorn"),
}


def by_name(name: str) -> Entry:
    """The contestant of a name."""
    return next(entry for entry in FIELD if entry.name == name)


def versions(entry: Entry) -> dict[str, str]:
    """What a contestant consists of; `MissingError` says what of it is not here."""
    found = {}
    for package in _PACKAGES.get(entry.module, ("agent-party-runtime",) if entry.name == OURS else ()):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            raise MissingError(f"the package {package} is not installed here") from None
    if entry.module == "with_temporal":
        temporal()
        found |= {"temporal-cli": TEMPORAL, "temporal-server": TEMPORAL_SERVER}
    if entry.module == "with_restate":
        restate()
        found["restate-server"] = RESTATE
    if entry.module in ("ours", "rows", "with_dbos", "with_langgraph"):
        found["sqlite"] = sqlite3.sqlite_version
    return found
