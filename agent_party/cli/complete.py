"""Completion in the shell: ids and names from the views, as they are; nothing is opened that could be slow or wait."""

import os
import sqlite3
from typing import Any


def tasks(incomplete: str) -> list[str]:
    """Ids of tasks."""
    return _keys("task", incomplete)


def agents(incomplete: str) -> list[str]:
    """Names of agents."""
    return _keys("agent", incomplete)


def capabilities(incomplete: str) -> list[str]:
    """Capabilities that agents have declared."""
    return sorted({key.partition("/")[0] for key in _keys("capability", incomplete)})


def streams(incomplete: str) -> list[str]:
    """Streams of tasks and agents."""
    names = [f"{kind}/{key}" for kind in ("agent", "task") for key in _keys(kind, "")]
    return [name for name in names if name.startswith(incomplete)]


def _keys(view: str, prefix: str) -> list[str]:
    from ..actors.errors import ConfigurationError
    from ..cluster.settings import load

    try:
        path = load({}, os.environ).views_path
        db: Any = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=0.2)
    except (ConfigurationError, sqlite3.Error, OSError):
        return []
    try:
        query = """SELECT key FROM document JOIN side USING (generation)
            WHERE live = 1 AND view = ? AND key >= ? AND key < ? ORDER BY key LIMIT 200"""
        return [row[0] for row in db.execute(query, (view, prefix, f"{prefix}\U0010ffff"))]
    except sqlite3.Error:
        return []
    finally:
        db.close()
