"""A Ladybug file shared by the processes of a node, and its errors translated at the edge.

Ladybug lets one process write. What it says about readers beside a writer is not enough to rely on, so a lock file
decides: whoever writes holds it alone, and any number may read together. It is held for as long as one thing follows
another, and at most for `HOLD` seconds in a row; others wait for it up to a deadline. Who waits for it holds a second
one, the turnstile, through which everybody has to go: else readers who take turns would keep a writer out for ever.
"""

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ...eventstore.errors import StoreBusyError, StoreCorruptError, StoreError, StoreReadOnlyError

T = TypeVar("T")
DEADLINE = 30.0
"""Seconds to wait for other processes, and that a statement may take."""
LINGER, HOLD = 0.2, 1.0
_POLL, _TURN = 0.01, 0.03
_BUFFER = 256 * 1024 * 1024
_DAMAGED = ("corrupt", "checksum", "not a valid", "storage version", "magic")


class LadybugFile:
    """Everything here blocks: it belongs on a thread. ``schema``: the statements of a new file."""

    def __init__(self, path: Path, schema: Sequence[str]) -> None:
        self.path, self._schema = path, schema
        self._lock, self._turnstile = (path.with_name(path.name + end) for end in (".lock", ".turn"))
        self._guard = threading.RLock()
        self._held: int | None = None
        self._writes = False
        self._database: Any = None
        self._connection: Any = None
        self._since = 0.0
        self._timer: threading.Timer | None = None

    def reading(self, work: Callable[[Any], T]) -> T | None:
        """Do something with a connection that can only read; None if there is no file yet."""
        with self._guard, self._translated():
            if not self.path.exists():
                return None
            return self._with(False, work)

    def writing(self, work: Callable[[Any], T]) -> T:
        """Do something in a transaction, which is committed if nothing goes wrong."""

        def within(connection: Any) -> T:
            connection.execute("BEGIN TRANSACTION")
            try:
                done = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(RuntimeError):
                    connection.execute("ROLLBACK")
                raise
            return done

        with self._guard, self._translated():
            return self._with(True, within)

    def read_only(self, work: Callable[[Any], T]) -> T | None:
        """Do something with a connection that Ladybug itself opened for reading only."""
        with self._guard, self._translated():
            if not self.path.exists():
                return None
            if self._writes:
                self.let_go()
            return self._with(False, work)

    def replaced_by(self, other: "LadybugFile", ready: Callable[[Any, Any], bool]) -> bool:
        """The other file takes this one's place, at once, if ``ready`` says so of both; held by this process alone."""
        with self._guard, other._guard, self._translated():
            try:
                self._open(True)
                other._open(True)
                if not ready(self._connection, other._connection):
                    return False
                self._shut()
                other._shut()
                other.path.replace(self.path)
                return True
            finally:
                self.let_go()
                other.let_go()

    def let_go(self) -> None:
        """Close the file and let others have it."""
        with self._guard:
            self._shut()
            if self._timer:
                self._timer.cancel()
                self._timer = None
            if self._held is not None:
                os.close(self._held)  # which ends the lock
                self._held = None

    def _with(self, writes: bool, work: Callable[[Any], T]) -> T:
        self._open(writes)
        try:
            return work(self._connection)
        finally:
            if time.monotonic() - self._since > HOLD:
                self.let_go()
                time.sleep(_TURN)  # so that another process that waits for its turn gets it
            else:
                self._let_go_soon()

    def _let_go_soon(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = threading.Timer(LINGER, self.let_go)
        self._timer.daemon = True
        self._timer.start()

    def _open(self, writes: bool) -> None:
        if self._database is not None and (self._writes or not writes):
            return
        self.let_go()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        until = time.monotonic() + DEADLINE
        turnstile = self._locked(self._turnstile, fcntl.LOCK_EX, until)
        try:
            self._held = self._locked(self._lock, fcntl.LOCK_EX if writes else fcntl.LOCK_SH, until)
        finally:
            os.close(turnstile)
        self._since, self._writes = time.monotonic(), writes
        try:
            self._connect(writes)
        except BaseException:
            self.let_go()
            raise

    def _locked(self, path: Path, kind: int, until: float) -> int:
        """A file descriptor that holds a lock until it is closed."""
        held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        while True:
            try:
                fcntl.flock(held, kind | fcntl.LOCK_NB)
                return held
            except BlockingIOError:
                if time.monotonic() > until:
                    os.close(held)
                    raise StoreBusyError(
                        f"{self.path}: others have been at it for {DEADLINE:g} seconds: try again"
                    ) from None
                time.sleep(_POLL)

    def _connect(self, writes: bool) -> None:
        import ladybug

        def opened(path: Path) -> None:
            self._database = ladybug.Database(
                str(path), read_only=not writes, buffer_pool_size=_BUFFER, max_num_threads=2
            )
            self._connection = ladybug.Connection(self._database)
            self._connection.set_query_timeout(int(DEADLINE * 1000))

        if not self.path.exists():
            new = self.path.with_name(self.path.name + ".new")
            for left in new.parent.glob(f"{new.name}*"):  # of a process that died before it had made the file
                left.unlink()
            opened(new)
            for statement in self._schema:
                self._connection.execute(statement)
            self._shut()
            new.replace(self.path)
        opened(self.path)

    def _shut(self) -> None:
        for one in (self._connection, self._database):
            if one is not None:
                one.close()
        self._connection = self._database = None

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except ImportError as error:
            raise StoreError(
                "the embedded graph needs Ladybug: pip install 'agent-party-runtime[graph]', or set graph to a Neo4j "
                "(bolt://…)"
            ) from error
        except RuntimeError as error:
            raise self._ours(error) from error
        except OSError as error:
            raise StoreReadOnlyError(f"{self.path}: {error.strerror}") from error

    def _ours(self, error: RuntimeError) -> StoreError:
        said = str(error).strip().splitlines()[0] if str(error).strip() else "unknown"
        if "lock on file" in said:
            return StoreBusyError(f"{self.path}: a program that is not a party holds it ({said}): end that first")
        if "Interrupted" in said:
            return StoreBusyError(f"{self.path}: the answer took longer than {DEADLINE:g} seconds: ask for less")
        if any(word in said.lower() for word in _DAMAGED):
            return StoreCorruptError(f"{self.path} is damaged ({said}): delete it, it is made anew from the log")
        return StoreError(f"{self.path}: {said}")


def rows_of(connection: Any, text: str, given: Mapping[str, Any]) -> list[list[Any]]:
    """All rows of a statement."""
    result = connection.execute(text, dict(given))
    return [list(row) for row in result.get_all()]
