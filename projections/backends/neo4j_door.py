"""The read-only door of Neo4j: a caller's own Cypher, as it is, in a transaction that cannot change anything.

Three things hold it shut. The query is explained first, and refused unless the server says that it only reads, its plan
reads no file or address, and calls no procedure but those that tell the schema. It then runs in a transaction of access
mode READ, in which the server refuses every write. And that transaction is rolled back.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from ..graph import Rows
from ..graph_errors import QueryError, ReadOnlyError
from .neo4j_connection import Connection

_TELLING = ("db.labels", "db.relationshipTypes", "db.propertyKeys", "db.schema.visualization",
            "db.schema.nodeTypeProperties", "db.schema.relTypeProperties")  # fmt: skip


async def ask_readonly(
    connection: Connection, cypher: str, parameters: Mapping[str, Any], limit: int, seconds: float
) -> Rows:
    """The rows, up to ``limit``, as plain values. `ReadOnlyError`, `QueryError`."""
    import neo4j.exceptions as driver

    async with connection.reading(seconds) as tx:
        try:
            summary = await (await tx.run("EXPLAIN " + cypher, dict(parameters))).consume()
            _refuse(summary.query_type, summary.plan)
            result = await tx.run(cypher, dict(parameters))
            rows = [[plain(value) for value in row.values()] async for row in _some(result, limit + 1)]
            columns = list(result.keys())
            await tx.rollback()
        except driver.ClientError as error:
            code = str(error.code)
            if "AccessMode" in code:
                raise ReadOnlyError("the query would change something: this door is for reading") from error
            if "Statement" in code or "Procedure" in code:
                raise QueryError(f"Neo4j does not understand the query: {error.message}") from error
            raise
        except (TypeError, ValueError) as error:
            raise QueryError(f"a parameter cannot be sent to Neo4j: {error}") from error
    return Rows(columns, rows[:limit], len(rows) > limit)


async def _some(result: Any, many: int) -> Any:
    for _ in range(many):
        row = await anext(result, None)
        if row is None:
            return
        yield row


def _refuse(kind: str | None, plan: Mapping[str, Any] | None) -> None:
    if kind != "r" or plan is None:
        raise ReadOnlyError("the query would change something, or manage the server: this door is for reading")
    for operator, details in _operators(plan):
        if "LoadCSV" in operator:
            raise ReadOnlyError("the query would read a file or an address: this door is for reading the graph")
        if "ProcedureCall" in operator and not details.startswith(tuple(f"{name}(" for name in _TELLING)):
            raise ReadOnlyError(f"the query calls a procedure that is not for reading the graph: {details}")


def _operators(plan: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    todo = [plan]
    while todo:
        one = todo.pop()
        yield str(one.get("operatorType", "")), str(one.get("args", {}).get("Details", ""))
        todo += one.get("children", [])


def plain(value: Any) -> Any:
    """A driver's value as one that JSON can hold: a node or an edge as its kind and fields."""
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if hasattr(value, "labels"):
        return {"labels": sorted(value.labels), **{name: plain(one) for name, one in value.items()}}
    if hasattr(value, "relationships"):
        return {"nodes": [plain(one) for one in value.nodes], "edges": [plain(one) for one in value.relationships]}
    if hasattr(value, "start_node"):
        return {"type": value.type, **{name: plain(one) for name, one in value.items()}}
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return value.hex() if isinstance(value, bytes | bytearray) else str(value)
