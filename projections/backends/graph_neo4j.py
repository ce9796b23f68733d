"""A graph in Neo4j, by Bolt. The database is the party's alone: one that holds something else is refused.

Nodes carry the generation that they belong to, so that a rebuild writes another beside the live one, and a swap changes
one field. Each change holds a lock on the projection's own node while it compares the turn, writes, and moves it, in
one transaction.
"""

import contextlib
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from ...eventstore.errors import StoreBusyError, StoreError
from ..graph import Changes, GraphWrite, Read, Rows, StatesAhead
from ..sink import Ahead, Checkpoint, Id, Letter, Letters, Named, Sizes
from . import graph_cypher as shared
from .graph_asking import Asked, CypherGraph, checkpoint_of, turn_after
from .neo4j_connection import Connection
from .neo4j_door import ask_readonly

if TYPE_CHECKING:
    from neo4j import AsyncTransaction

_NO: Letters = {}
_ROW = ("turn", "sizes", "version", "paused", "generation", "log")
_NOTHING = {"turn": 0, "sizes": "{}", "version": 0, "paused": "", "generation": ""}
_LETTER = ", ".join(f"l.{name}" for name in Letter._fields)
_CLEAN = 5_000
_TRIES = 8


class Neo4jDialect:
    """See `graph_cypher.Dialect`."""

    scope: Mapping[str, str] = {"generation": "$generation"}

    def label_of(self, variable: str) -> str:
        return f"labels({variable})[0]"

    def type_of(self, variable: str) -> str:
        return f"type({variable})"

    def size_of(self, slice: str) -> str:  # noqa: A002
        return f"coalesce($sizes[{slice}], -1)"

    def column(self, number: int) -> str:
        return f"row[{number}]"

    def rows(self, rows: list[list[Any]]) -> list[Any]:
        return rows


class Neo4jGraph(CypherGraph):
    """``log``: the id of the log that it is the graph of."""

    asked = ""

    def __init__(self, connection: Connection, log: bytes, side: str = "live") -> None:
        self._connection, self._log, self._side = connection, log.hex(), side
        self._generations: dict[str, str] = {}
        self.cypher = shared.Cypher(Neo4jDialect())
        connection.log = self._log

    # The sink

    async def checkpoint(self, projection: Named) -> Checkpoint:
        return checkpoint_of(await self._look(projection.name))

    async def apply(
        self, projection: Named, before: Checkpoint, after: Sizes, writes: Iterable[GraphWrite], letters: Letters = _NO
    ) -> Checkpoint | None:
        statements = list(self.cypher.writes(Changes.of(writes)))
        async with self._connection.writing() as tx:
            row = await self._locked(tx, projection.name)
            if row["turn"] != before.turn:
                return None
            old, turn = row["generation"], turn_after(row["turn"])
            row |= {"sizes": msgspec.json.encode(after).decode(), "version": projection.version, "turn": turn}
            if not before.sizes:
                row["generation"] = f"{projection.name} {self._side} {turn}"
            given = {"generation": row["generation"]}
            for text, rows in statements:
                await (await tx.run(text, rows=rows, **given)).consume()
            await _write_letters(tx, letters, row["generation"])
            await self._moved(tx, projection.name, row)
            await tx.commit()
        if old and not before.sizes:
            await self._clean(old)
        return checkpoint_of(row)

    def ahead(self, projection: Named, before: Checkpoint) -> Ahead[GraphWrite, Read]:
        return StatesAhead(partial(self.states_of, projection.name), empty=not before.sizes)

    async def letters(self, projection: Named) -> dict[str, Letter]:
        text = f"MATCH (l:PartyLetter {{generation: $generation}}) RETURN {_LETTER}"
        ((*rows,),) = await self.ask_of(projection.name, (text, {}))
        return {row[0]: Letter(*row) for row in rows}

    async def items(self, projection: Named, after: Id = (), limit: int = 1_000) -> list[tuple[Id, Any]]:
        found, own = await super().items(projection, after, limit), ("~strange", "")
        strange = "MATCH (n) WHERE n.generation IS NULL AND NOT n:PartyCheckpoint RETURN count(n)"
        if len(found) < limit and own > after:
            (((many,),),) = await self.ask_of(projection.name, (strange, {}))
            found += [(own, {"nodes": many})] if many else []
        return found

    async def drop(self, projection: Named) -> None:
        async with self._connection.writing() as tx:
            row = await self._locked(tx, projection.name)
            old = row["generation"]
            row |= {"generation": "", "sizes": "{}", "version": 0, "turn": turn_after(row["turn"])}
            await self._moved(tx, projection.name, row)
            await tx.commit()
        if old:
            await self._clean(old)

    async def pause(self, projection: Named, reason: str) -> None:
        async with self._connection.writing() as tx:
            row = await self._locked(tx, projection.name)
            row |= {"paused": reason, "turn": turn_after(row["turn"])}
            await self._moved(tx, projection.name, row)
            await tx.commit()

    def beside(self) -> "Neo4jGraph":
        return Neo4jGraph(self._connection, bytes.fromhex(self._log), "beside")

    async def swap(self, projection: Named, live: Checkpoint, scratch: Checkpoint) -> bool:
        other = self.beside()
        async with self._connection.writing() as tx:
            mine, theirs = await self._locked(tx, projection.name), await other._locked(tx, projection.name)
            if (mine["turn"], theirs["turn"]) != (live.turn, scratch.turn):
                return False
            old = mine["generation"]
            mine |= {name: theirs[name] for name in ("generation", "sizes", "version")}
            mine["turn"] = turn_after(mine["turn"])
            theirs |= {"generation": "", "sizes": "{}", "version": 0, "turn": turn_after(theirs["turn"])}
            await self._moved(tx, projection.name, mine)
            await other._moved(tx, projection.name, theirs)
            await tx.commit()
        if old:
            await self._clean(old)
        return True

    async def projections(self) -> list[str]:
        text = "MATCH (c:PartyCheckpoint) WHERE c.side = $side AND c.sizes <> '{}' RETURN c.name ORDER BY c.name"
        (rows,) = await self._connection.read((text, {"side": self._side}))
        return [row[0] for row in rows]

    async def close(self) -> None:
        if self._side == "live":
            await self._connection.close()

    # What is asked

    async def query(self, cypher: str, parameters: Mapping[str, Any], limit: int = 10_000, seconds: float = 30) -> Rows:
        given = {"generation": (await self._look(""))["generation"], **parameters}
        return await ask_readonly(self._connection, cypher, given, limit, seconds)

    async def slices_of(self, name: str) -> int:
        return max(checkpoint_of(await self._look(name)).sizes, default=0) + 1

    async def ask_of(self, name: str, *statements: Asked) -> list[list[list[Any]]]:
        """Of one generation: where that was swapped away meanwhile, and may be half deleted, all is asked again."""
        if name not in self._generations:
            await self._look(name)
        for _ in range(_TRIES):
            generation = self._generations[name]
            asked = [(text, {**given, "generation": generation}) for text, given in statements]
            answers = await self._connection.read(*asked, self._standing(name))
            if self._seen(name, answers.pop())["generation"] == generation:
                return answers
        raise StoreBusyError("the graph is rebuilt all the time: ask again")

    # The projection's own node

    def _standing(self, name: str) -> tuple[str, dict[str, Any]]:
        """Asks for what is known of a projection; with no name, of the one that there is."""
        if name:
            text = f"MATCH (c:PartyCheckpoint {{key: $key}}) {_RETURN}"
            return text, {"key": f"{name} {self._side}"}
        return f"MATCH (c:PartyCheckpoint) WHERE c.side = $side {_RETURN} LIMIT 1", {"side": self._side}

    def _seen(self, name: str, rows: list[list[Any]]) -> dict[str, Any]:
        """What `_standing` found."""
        found = dict(zip(_ROW, rows[0], strict=True)) if rows else dict(_NOTHING, log=self._log)
        self._connection.check_log(str(found["log"]))
        self._generations[name] = str(found["generation"])
        return found

    async def _look(self, name: str) -> dict[str, Any]:
        (rows,) = await self._connection.read(self._standing(name))
        return self._seen(name, rows)

    async def _locked(self, tx: "AsyncTransaction", name: str) -> dict[str, Any]:
        """The same, and nobody else changes it before this transaction ends."""
        text = (
            "MERGE (c:PartyCheckpoint {key: $key}) ON CREATE SET c.name = $name, c.side = $side, c.log = $log, "
            f"c.turn = 0, c.sizes = '{{}}', c.version = 0, c.paused = '', c.generation = '' SET c.lock = true {_RETURN}"
        )
        given = {"key": f"{name} {self._side}", "name": name, "side": self._side, "log": self._log}
        row = await (await tx.run(text, given)).single(strict=True)
        self._connection.check_log(row["log"])
        return dict(row)

    async def _moved(self, tx: "AsyncTransaction", name: str, row: Mapping[str, Any]) -> None:
        text = "MATCH (c:PartyCheckpoint {key: $key}) SET c += $row"
        await (await tx.run(text, key=f"{name} {self._side}", row=dict(row))).consume()

    async def _clean(self, generation: str) -> None:
        """Delete a generation that nobody reads any more, a piece at a time. What a crash leaves the next one finds."""
        with contextlib.suppress(StoreError):
            for label in (*shared.LABELS.values(), "PartyLetter"):
                await self._connection.delete(label, generation, _CLEAN)


_RETURN = "RETURN " + ", ".join(f"c.{name} AS {name}" for name in _ROW)


async def _write_letters(tx: "AsyncTransaction", letters: Letters, generation: str) -> None:
    rows = [letter._asdict() for letter in letters.values() if letter]
    gone = [stream for stream, letter in letters.items() if letter is None]
    key = "{generation: $generation, id: row.stream}"
    if rows:
        text = f"UNWIND $rows AS row MERGE (l:PartyLetter {key}) SET l += row"
        await (await tx.run(text, rows=rows, generation=generation)).consume()
    if gone:
        text = "MATCH (l:PartyLetter {generation: $generation}) WHERE l.id IN $gone DELETE l"
        await (await tx.run(text, gone=gone, generation=generation)).consume()
