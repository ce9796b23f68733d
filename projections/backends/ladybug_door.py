"""The read-only door of Ladybug: a caller's own Cypher, as it is, on a connection that cannot change the graph.

A file that is opened for reading refuses writes of its own accord. It does not refuse to read and write other files, to
load extensions or to change settings; so a query with a word for that, outside of its texts and quoted names, is
refused before it is run.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from ..graph import Rows
from ..graph_errors import QueryError, ReadOnlyError

_QUIET = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|`(?:[^`]|``)*`|//[^\n]*|/\*.*?\*/""", re.DOTALL)
_WORD = re.compile(r"(?<![.$\w])[A-Za-z_]\w*")
_WRITES = frozenset(
    {"create", "merge", "set", "delete", "detach", "remove", "drop", "alter", "insert", "update", "comment", "macro"}
    | {"begin", "commit", "rollback", "checkpoint", "use", "call", "load", "copy", "attach", "export", "import"}
    | {"install", "uninstall", "extension", "project"}
)


def ask_readonly(cypher: str, parameters: Mapping[str, Any], limit: int, seconds: float) -> Callable[[Any], Rows]:
    """What to do with a connection for the rows, up to ``limit``. `ReadOnlyError`, `QueryError`."""
    refuse(cypher)

    def work(connection: Any) -> Rows:
        connection.set_query_timeout(int(seconds * 1000))
        try:
            result = connection.execute(cypher, dict(parameters))
        except (RuntimeError, TypeError, ValueError) as error:
            said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            if "read-only" in said:
                raise ReadOnlyError("the query would change something: this door is for reading") from error
            raise QueryError(f"Ladybug does not understand the query, or it took too long: {said}") from error
        if isinstance(result, list):
            raise QueryError("ask one query at a time")
        rows = [[plain(value) for value in row] for row in result.get_n(limit + 1)]
        return Rows(list(result.get_column_names()), rows[:limit], len(rows) > limit)

    return work


def refuse(cypher: str) -> None:
    """Raise `ReadOnlyError` for a query with a word that does more than read the graph."""
    words = {word.lower() for word in _WORD.findall(_QUIET.sub(" ", cypher))}
    if found := sorted(words & _WRITES):
        raise ReadOnlyError(
            f"the query says {', '.join(word.upper() for word in found)}: this door is for reading the graph. A name "
            "that is spelled like that stands in backticks"
        )


def plain(value: Any) -> Any:
    """A value as one that JSON can hold; a node or an edge without what Ladybug keeps inside."""
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        renamed = {"_LABEL": "label", "_NODES": "nodes", "_RELS": "edges"}
        return {
            renamed.get(name, name): plain(one)
            for name, one in value.items()
            if one is not None and name not in ("_ID", "_SRC", "_DST")
        }
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return value.hex() if isinstance(value, bytes | bytearray) else str(value)
