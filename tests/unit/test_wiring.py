"""Stores are opened together or not at all: where one cannot be had, those before it are let go."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from agent_party.cluster import wiring
from agent_party.cluster.settings import load
from agent_party.cluster.wiring import open_stack
from agent_party.eventstore.errors import StoreReadOnlyError
from agent_party.eventstore.log import Log


@pytest.mark.parametrize("store", ["open_views", "Presence", "Stack"])
async def test_the_log_is_closed_where_another_store_cannot_be_opened(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load({"state": str(tmp_path / "state")}, {}, tmp_path)
    opened: list[Log] = []
    check = Log.check_remembered

    def seen(log: Log, *args: Any) -> None:
        opened.append(log)
        check(log, *args)

    def refuse(*_: Any) -> None:
        raise StoreReadOnlyError(f"no {store}")

    monkeypatch.setattr(Log, "check_remembered", seen)
    with monkeypatch.context() as broken:
        broken.setattr(wiring, store, refuse)
        with pytest.raises(StoreReadOnlyError, match=f"no {store}"):
            await open_stack(settings)
    with pytest.raises(sqlite3.ProgrammingError):
        opened[0].keys._db.execute("SELECT 1")
    await (await open_stack(settings)).close()
