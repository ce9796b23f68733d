"""A connection to Neo4j: opened when it is first needed, checked once, and its errors translated at the edge."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit, urlunsplit

from ...eventstore.errors import StoreBusyError, StoreError, StoreFullError, StoreReadOnlyError, WrongLogError
from .graph_cypher import LABELS

if TYPE_CHECKING:
    from neo4j import AsyncDriver, AsyncManagedTransaction, AsyncSession, AsyncTransaction

DEADLINE = 60.0
"""Seconds that any one transaction may take."""
_CONNECT = 5.0


class Connection:
    """``url``: ``bolt://user:password@host:port/database`` or ``neo4j+s://…``; the user is neo4j if none is given, the
    database the server's default. ``password``: where the URL has none."""

    def __init__(self, url: str, password: str = "") -> None:
        parts = urlsplit(url)
        self.shown = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], "", "", ""))
        self._user, self._password = unquote(parts.username or "neo4j"), unquote(parts.password or password)
        self._database = parts.path.strip("/") or None
        self.log = ""
        self._driver: AsyncDriver | None = None
        self._ready = asyncio.Lock()
        self._checked = False

    @contextlib.asynccontextmanager
    async def reading(self, seconds: float = DEADLINE) -> "AsyncIterator[AsyncTransaction]":
        """A transaction in which the server refuses to write; it is rolled back."""
        async with self._transaction("READ", seconds) as tx:
            yield tx

    @contextlib.asynccontextmanager
    async def writing(self, seconds: float = DEADLINE) -> "AsyncIterator[AsyncTransaction]":
        """A transaction that is rolled back unless it is committed inside."""
        async with self._transaction("WRITE", seconds) as tx:
            yield tx

    @contextlib.asynccontextmanager
    async def _transaction(self, mode: str, seconds: float) -> "AsyncIterator[AsyncTransaction]":
        async with self._translated(), asyncio.timeout(seconds + _CONNECT):
            driver = await self._open()
            async with (
                driver.session(database=self._database, default_access_mode=mode) as session,
                await session.begin_transaction(timeout=seconds) as tx,
            ):
                yield tx

    async def read(self, *statements: tuple[str, Mapping[str, Any]]) -> list[list[list[Any]]]:
        """The rows of each statement, each in a transaction of its own in which the server refuses to write: one way
        there and back, where an explicit one takes four."""
        import neo4j

        async with self._translated(), asyncio.timeout(DEADLINE + _CONNECT):
            driver = await self._open()
            async with driver.session(database=self._database, default_access_mode="READ", fetch_size=-1) as session:
                answers = []
                for text, given in statements:
                    result = await session.run(neo4j.Query(text, timeout=DEADLINE), dict(given))
                    answers.append([list(row.values()) async for row in result])
                return answers

    async def delete(self, label: str, generation: str, many: int) -> None:
        """Delete all nodes of a generation, so many in a transaction."""
        text = (
            f"MATCH (n:{label}) WHERE n.generation = $generation AND n.id >= '' "
            f"CALL (n) {{ DETACH DELETE n }} IN TRANSACTIONS OF {many:d} ROWS"
        )
        async with self._translated():
            driver = await self._open()
            async with driver.session(database=self._database) as session:
                await (await session.run(text, generation=generation)).consume()

    async def close(self) -> None:
        """Let go of the server."""
        if self._driver:
            await self._driver.close()

    def check_log(self, log: str) -> None:
        """Raise `WrongLogError` for the graph of another log."""
        if log != self.log:
            raise WrongLogError(
                f"{self.shown} holds the graph of another party (log {log[:16]}): give this one a Neo4j of its own, or "
                "empty that one if it is not needed"
            )

    async def _open(self) -> "AsyncDriver":
        async with self._ready:
            if self._driver is None:
                self._driver = self._connect()
            if not self._checked:
                await self._check(self._driver)
                self._checked = True
            return self._driver

    def _connect(self) -> "AsyncDriver":
        import neo4j

        auth = (self._user, self._password) if self._password else None
        return neo4j.AsyncGraphDatabase.driver(
            self.shown, auth=auth, connection_timeout=_CONNECT, connection_acquisition_timeout=2 * _CONNECT,
            notifications_min_severity="OFF", user_agent="agent-party", keep_alive=True,
        )  # fmt: skip

    async def _check(self, driver: "AsyncDriver") -> None:
        """Refuse a database that is somebody else's, and have the constraints that writes and look-ups rely on."""
        async with driver.session(database=self._database) as session:
            ours = await (await session.run("MATCH (c:PartyCheckpoint) RETURN c.log LIMIT 1")).single()
            if ours:
                self.check_log(ours[0])
            elif await (await session.run("MATCH (n) RETURN 1 LIMIT 1")).single():
                raise StoreError(
                    f"{self.shown} holds data that is not a party's: give it a Neo4j of its own, or empty this one"
                )
            await self._constrain(session)

    async def _constrain(self, session: "AsyncSession") -> None:
        """Have all constraints. They are looked for first, because to make one that is there waits for all who write;
        made in one transaction, which is one wait for the disk; and again where somebody else makes them too."""
        keys = {"PartyCheckpoint": "n.key", "PartyLetter": "n.generation, n.id"}
        keys |= dict.fromkeys(LABELS.values(), "n.generation, n.id")
        named = {f"party_{label.lower()}": (label, fields) for label, fields in keys.items()}
        there = {row["name"] async for row in await session.run("SHOW CONSTRAINTS YIELD name")}
        missing = [(name, *named[name]) for name in sorted(named.keys() - there)]

        async def make(tx: "AsyncManagedTransaction") -> None:
            for name, label, fields in missing:
                text = f"CREATE CONSTRAINT {name} IF NOT EXISTS FOR (n:{label}) REQUIRE ({fields}) IS UNIQUE"
                await (await tx.run(text)).consume()

        if missing:
            await session.execute_write(make)
            await (await session.run("CALL db.awaitIndexes(60)")).consume()

    @contextlib.asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        try:
            import neo4j.exceptions as driver
        except ImportError as error:
            raise StoreError(
                f"{self.shown} needs the Neo4j driver: pip install 'agent-party-runtime[neo4j]'"
            ) from error
        try:
            yield
        except TimeoutError as error:
            raise StoreBusyError(f"{self.shown} has not answered in time: look at it, and try again") from error
        except (driver.Neo4jError, driver.DriverError, OSError, ValueError) as error:
            raise self._ours(error) from error

    def _ours(self, error: Any) -> StoreError:
        code, said = str(getattr(error, "code", "") or ""), str(getattr(error, "message", "") or error)
        if "Security" in code:
            return StoreReadOnlyError(
                f"{self.shown} does not let {self._user} in ({said}): put the password into the URL, or into "
                "PARTY_GRAPH_PASSWORD"
            )
        if "DatabaseNotFound" in code:
            return StoreError(f"{self.shown} has no database {self._database!r}: name one that there is, or none")
        if "AccessMode" in code or "ReadOnly" in code or "Forbidden" in code:
            return StoreReadOnlyError(f"{self.shown} does not allow that: {said}")
        if "TransactionTimedOut" in code:
            return StoreBusyError(f"{self.shown} has not answered in time: ask for less, or try again")
        if "Transient" in code or "OutOfMemory" in code:
            kind = StoreFullError if "Memory" in code else StoreBusyError
            return kind(f"{self.shown}: {said}: try again")
        if type(error).__name__ in ("ServiceUnavailable", "SessionExpired", "ConnectionAcquisitionTimeoutError"):
            return StoreBusyError(f"{self.shown} cannot be reached ({said}): start it, or correct the setting graph")
        return StoreError(f"{self.shown}: {said} {code}".rstrip())
