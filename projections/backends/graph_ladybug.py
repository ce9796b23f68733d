"""A graph in a Ladybug file: embedded, for the processes of one node. Disposable: deleted, it is made from the log.

The live side and the scratch side are two files beside each other; a swap is a rename.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ...eventstore.backends.thread import Thread
from ..graph import (
    EDGE_FIELDS,
    NODE_FIELDS,
    RELATIONS,
    Changes,
    GraphWrite,
    Read,
    Rows,
    StatesAhead,
)
from ..sink import Ahead, Checkpoint, Letter, Letters, Named, Sizes
from . import graph_cypher as shared
from .graph_asking import Asked, CypherGraph, checkpoint_of, turn_after
from .ladybug_door import ask_readonly
from .ladybug_file import LadybugFile, rows_of

T = TypeVar("T")
_NO: Letters = {}
_TEXT = ("stream", "commit", "event")
_CHECKPOINT = "turn INT64, sizes STRING, version INT64, paused STRING, log STRING"
_ROW = ("turn", "sizes", "version", "paused", "log")
_SET = ", ".join(f"c.{name} = ${name}" for name in _ROW)
_WORDS = ("capability", "state", "status", "version")


def _columns(names: Iterable[str]) -> str:
    kinds = ((name, "STRING" if name in _WORDS or name.endswith(_TEXT) else "INT64") for name in names)
    return ", ".join(f"{name} {kind}" for name, kind in kinds)


SCHEMA = (
    *(f"CREATE NODE TABLE {label}(id STRING PRIMARY KEY, {_columns(NODE_FIELDS)})" for label in shared.LABELS.values()),
    *(
        f"CREATE REL TABLE {shared.TYPES[kind]}("
        f"{', '.join(f'FROM {shared.LABELS[one]} TO {shared.LABELS[other]}' for one, other in pairs)}, "
        f"key STRING, {_columns(EDGE_FIELDS)})"
        for kind, pairs in RELATIONS.items()
    ),
    "CREATE NODE TABLE PartyLetter(stream STRING PRIMARY KEY, letter STRING)",
    f"CREATE NODE TABLE PartyCheckpoint(name STRING PRIMARY KEY, {_CHECKPOINT})",
)


class LadybugDialect:
    """See `graph_cypher.Dialect`."""

    scope: Mapping[str, str] = {}

    def label_of(self, variable: str) -> str:
        return f"label({variable})"

    def type_of(self, variable: str) -> str:
        return f"label({variable})"

    def size_of(self, slice: str) -> str:  # noqa: A002
        return f"list_extract($sizes, {slice} + 1)"

    def column(self, number: int) -> str:
        return f"row.f{number}"

    def rows(self, rows: list[list[Any]]) -> list[Any]:
        names = [f"f{number}" for number in range(len(rows[0]))]
        return [dict(zip(names, row, strict=True)) for row in rows]


class LadybugGraph(CypherGraph):
    """``folder``: where the files lie, one for a projection and side. ``log``: the id of the log that it is of; the
    graph of another one is thrown away."""

    def __init__(self, folder: Path, log: bytes = b"", side: str = "") -> None:
        self._folder, self._log, self._side = folder, log.hex(), side
        self._thread = Thread("ladybug")
        self._files: dict[str, LadybugFile] = {}
        self._beside: LadybugGraph | None = None
        self.cypher = shared.Cypher(LadybugDialect())

    # The sink

    async def checkpoint(self, projection: Named) -> Checkpoint:
        row = await self._read(projection.name, lambda connection: _row(connection, projection.name))
        return checkpoint_of(row) if row and row["log"] == self._log else Checkpoint()

    async def apply(
        self, projection: Named, before: Checkpoint, after: Sizes, writes: Iterable[GraphWrite], letters: Letters = _NO
    ) -> Checkpoint | None:
        statements = list(self.cypher.writes(Changes.of(writes)))

        def work(connection: Any) -> Checkpoint | None:
            row = _row(connection, projection.name)
            if row["log"] not in ("", self._log):
                row = dict(_NOTHING)
            if row["turn"] != before.turn:
                return None
            if not before.sizes:
                _empty(connection)
            for text, rows in statements:
                connection.execute(text, {"rows": rows})
            _write_letters(connection, letters)
            row |= {"turn": turn_after(row["turn"]), "sizes": msgspec.json.encode(after).decode()}
            row |= {"version": projection.version, "log": self._log}
            _write_row(connection, projection.name, row)
            return checkpoint_of(row)

        return await self._write(projection.name, work)

    def ahead(self, projection: Named, before: Checkpoint) -> Ahead[GraphWrite, Read]:
        return StatesAhead(partial(self.states_of, projection.name), empty=not before.sizes)

    async def letters(self, projection: Named) -> dict[str, Letter]:
        text = "MATCH (l:PartyLetter) RETURN l.stream, l.letter"
        rows = await self._read(projection.name, lambda connection: rows_of(connection, text, {}))
        return {stream: Letter(*msgspec.json.decode(letter)) for stream, letter in rows or ()}

    async def drop(self, projection: Named) -> None:
        def work(connection: Any) -> None:
            row = _row(connection, projection.name)
            _empty(connection)
            row |= {"turn": turn_after(row["turn"]), "sizes": "{}", "version": 0, "log": self._log}
            _write_row(connection, projection.name, row)

        await self._write(projection.name, work)

    async def pause(self, projection: Named, reason: str) -> None:
        def work(connection: Any) -> None:
            row = _row(connection, projection.name)
            row |= {"turn": turn_after(row["turn"]), "paused": reason, "log": self._log}
            _write_row(connection, projection.name, row)

        await self._write(projection.name, work)

    def beside(self) -> "LadybugGraph":
        if self._beside is None:  # one for all who ask: each has a thread of its own
            self._beside = LadybugGraph(self._folder, bytes.fromhex(self._log), ".next")
        return self._beside

    async def swap(self, projection: Named, live: Checkpoint, scratch: Checkpoint) -> bool:
        other, name = self.beside(), projection.name
        try:
            return await self._thread.run(lambda: _swap(self._file(name), other._file(name), name, live, scratch))
        finally:
            await other.close()

    async def projections(self) -> list[str]:
        found = []
        for path in sorted(self._folder.glob(f"*{self._side}.lbug")):
            name = path.name.removesuffix(f"{self._side}.lbug")
            if "." not in name:
                row = await self._read(name, lambda connection, name=name: _row(connection, name))  # type: ignore[misc]
                found += [name] if row and row["sizes"] != "{}" and row["log"] == self._log else []
        return found

    async def close(self) -> None:
        for file in self._files.values():
            await self._thread.run(file.let_go)
        self._thread.close()
        self._thread = Thread("ladybug")
        if self._beside:
            await self._beside.close()

    # What is asked

    async def query(self, cypher: str, parameters: Mapping[str, Any], limit: int = 10_000, seconds: float = 30) -> Rows:
        file = self._file(self.asked)
        work = ask_readonly(cypher, parameters, limit, seconds)
        return await self._thread.run(lambda: file.read_only(work)) or Rows([], [])

    async def ask_of(self, name: str, *statements: Asked) -> list[list[list[Any]]]:
        def work(connection: Any) -> list[list[list[Any]]]:
            connection.execute("BEGIN TRANSACTION READ ONLY")
            try:
                if _row(connection, name)["log"] != self._log:
                    return [[] for _ in statements]
                return [rows_of(connection, text, _used(text, given)) for text, given in statements]
            finally:
                connection.execute("COMMIT")

        answers = await self._read(name, work)
        return [[] for _ in statements] if answers is None else answers

    async def slices_of(self, name: str) -> int:
        row = await self._read(name, lambda connection: _row(connection, name))
        return max(checkpoint_of(row).sizes, default=0) + 1 if row else 1

    async def _read(self, name: str, work: Callable[[Any], T]) -> T | None:
        file = self._file(name)
        return await self._thread.run(lambda: file.reading(work))

    async def _write(self, name: str, work: Callable[[Any], T]) -> T:
        file = self._file(name)
        return await self._thread.run(lambda: file.writing(work))

    def _file(self, name: str) -> LadybugFile:
        if name not in self._files:
            path = self._folder / f"{name}{self._side}.lbug"
            self._files[name] = LadybugFile(path, SCHEMA)
        return self._files[name]


_NOTHING: dict[str, Any] = {"turn": 0, "sizes": "{}", "version": 0, "paused": "", "log": ""}


def _used(text: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Ladybug refuses parameters that a statement does not name."""
    return {name: value for name, value in given.items() if f"${name}" in text}


def _row(connection: Any, name: str) -> dict[str, Any]:
    fields = ", ".join(f"c.{field}" for field in _ROW)
    rows = rows_of(connection, f"MATCH (c:PartyCheckpoint {{name: $name}}) RETURN {fields}", {"name": name})
    return dict(zip(_ROW, rows[0], strict=True)) if rows else dict(_NOTHING)


def _write_row(connection: Any, name: str, row: Mapping[str, Any]) -> None:
    connection.execute(f"MERGE (c:PartyCheckpoint {{name: $name}}) SET {_SET}", {"name": name, **row})


def _empty(connection: Any) -> None:
    for label in (*shared.LABELS.values(), "PartyLetter"):
        connection.execute(f"MATCH (n:{label}) DETACH DELETE n")


def _write_letters(connection: Any, letters: Letters) -> None:
    for stream, letter in letters.items():
        if letter is None:
            connection.execute("MATCH (l:PartyLetter {stream: $stream}) DELETE l", {"stream": stream})
        else:
            given = {"stream": stream, "letter": msgspec.json.encode(tuple(letter)).decode()}
            connection.execute("MERGE (l:PartyLetter {stream: $stream}) SET l.letter = $letter", given)


def _swap(live: LadybugFile, scratch: LadybugFile, name: str, at: Checkpoint, made: Checkpoint) -> bool:
    def ready(now: Any, built: Any) -> bool:
        mine, theirs = _row(now, name), _row(built, name)
        if (mine["turn"], theirs["turn"]) != (at.turn, made.turn):
            return False
        _write_row(built, name, {**theirs, "turn": max(mine["turn"], theirs["turn"]) + 1, "paused": mine["paused"]})
        return True

    return live.replaced_by(scratch, ready)
