"""A disk whose power can be cut: SQLite files whose writes are lost unless they were synced.

A shim of SQLite's VFS, in Python by `apsw`, passes every call on to the real files and keeps beside them what a disk
would hold for certain: of each file the bytes as of its last sync, of each folder the entries as of its last sync
(which SQLite does when it first syncs a journal that it made, and when it is told to on deleting). From a chosen
operation on every write fails, as when the power goes; what is on the disk then is written elsewhere and opened anew.
All SQLite files of a site lie on one such disk: the tape, the data keys, the index.

Why not a recorder under the C library (LD_PRELOAD)? It would see the key files too, but needs a compiler wherever the
tests run, and those files are synced by three lines of Python that a test of their own watches. Why not a block device?
It needs root. What this shim cannot show is a fault of the Python build's own copy of SQLite, which is not the one in
apsw; its write-ahead log is the same code. That the shim loses what it must lose is tested with `synchronous=OFF`.
"""

import contextlib
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import apsw

SECTOR = 512


class Disk:
    """The SQLite files below a folder. ``cut_at``: the write, sync, truncation or deletion with which power ends."""

    def __init__(self, folder: Path, cut_at: int | None = None, *, synchronous: str | None = None) -> None:
        self.folder, self.cut_at, self.synchronous = folder, cut_at, synchronous
        self.operations = 0
        files = [path for path in folder.rglob("*") if path.is_file()]
        self.live = {str(path): Content(path.read_bytes()) for path in files if ".db" in path.name}
        self.durable = dict(self.live)
        self.vfs = _Vfs(self)

    @property
    def dead(self) -> bool:
        """Whether the power is off."""
        return self.cut_at is not None and self.operations >= self.cut_at

    def operate(self) -> None:
        """Count one operation; it fails once the power is off."""
        self.operations += 1
        if self.dead:
            error = apsw.IOError("the power is off")
            vars(error).update(result=apsw.SQLITE_IOERR, extendedresult=apsw.SQLITE_IOERR_WRITE)
            raise error

    def sync_folder(self, name: str) -> None:
        """The entries of a file's folder are safe: what was made is there, what was deleted is gone."""
        folder = Path(name).parent
        kept = {other: content for other, content in self.durable.items() if Path(other).parent != folder}
        self.durable = kept | {other: content for other, content in self.live.items() if Path(other).parent == folder}

    def write_image(self, target: Path, torn: random.Random | None = None) -> None:
        """What the disk holds, written below another folder.

        Nothing that was not synced; with ``torn``, any of it, in any order, some in part.
        """
        for name in sorted({*self.durable, *(self.live if torn else ())}):
            content = self.durable.get(name)
            if torn and (content is None or torn.random() < 0.5):
                content = self.live.get(name)
            if content is None:
                continue
            path = target / Path(name).relative_to(self.folder)
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.write_bytes(content.torn(torn) if torn else content.synced)

    @contextlib.contextmanager
    def mounted(self) -> Iterator[None]:
        """Whoever opens an SQLite file meanwhile opens it on this disk."""
        with mock.patch("sqlite3.connect", self.connect):
            yield
        self.vfs.unregister()

    def connect(self, path: Path, *, timeout: float = 5, **_: object) -> "Connection":
        """A connection to a file on this disk, as `sqlite3.connect` gives one."""
        return Connection(self, path, timeout)


class Content:
    """What is in a file: safe bytes, and what was done since: bytes at an offset, or (None) a cut at a length."""

    def __init__(self, synced: bytes = b"") -> None:
        self.synced, self.pending = synced, list[tuple[int, bytes | None]]()

    def sync(self) -> None:
        """What was done is safe."""
        self.synced, self.pending = _applied(self.synced, self.pending), []

    def torn(self, order: random.Random) -> bytes:
        """As it may be after a power cut on a disk that reorders."""
        kept = [_torn(write, order) for write in self.pending if order.random() < 0.5]
        order.shuffle(kept)
        return _applied(self.synced, kept)


def _applied(content: bytes, writes: list[tuple[int, bytes | None]]) -> bytes:
    image = bytearray(content)
    for offset, data in writes:
        if data is None:
            del image[offset:]
            continue
        image.extend(bytes(max(0, offset - len(image))))
        image[offset : offset + len(data)] = data
    return bytes(image)


def _torn(write: tuple[int, bytes | None], order: random.Random) -> tuple[int, bytes | None]:
    offset, data = write
    if data is None or order.random() < 0.7:
        return write
    return offset, data[: order.randrange(0, len(data) + 1, SECTOR)]


class _Vfs(apsw.VFS):
    def __init__(self, disk: Disk) -> None:
        self.disk, self.name = disk, f"disk-{id(disk)}"
        super().__init__(self.name, base="")

    def xOpen(self, name: Any, flags: list[int]) -> "_File":  # noqa: N802 (SQLite's own name)
        return _File(self.disk, name, flags)

    def excepthook(self, etype: Any, evalue: Any, etb: Any) -> bool:
        """SQLite goes on over some failures; so may this."""
        return True

    def xDelete(self, name: str, syncdir: bool) -> None:  # noqa: N802
        self.disk.operate()
        super().xDelete(name, syncdir)
        self.disk.live.pop(name, None)
        if syncdir:
            self.disk.sync_folder(name)


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        self.disk = disk
        self.name = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        journal = flags[0] & (apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_WAL)
        self.new = bool(journal) and self.name not in disk.live
        self.content = disk.live.setdefault(self.name, Content())
        super().__init__("", name, flags)

    def excepthook(self, etype: Any, evalue: Any, etb: Any) -> bool:
        """SQLite goes on over some failures; so may this."""
        return True

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self.disk.operate()
        self.content.pending.append((offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        self.disk.operate()
        self.content.pending.append((newsize, None))
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self.disk.operate()
        self.content.sync()
        if self.new:
            self.disk.sync_folder(self.name)
            self.new = False


class Connection:
    """As much of `sqlite3.Connection` as the stores use, over apsw; its errors too."""

    def __init__(self, disk: Disk, path: Path, timeout: float) -> None:
        self._disk = disk
        with _translated():
            self._db = apsw.Connection(str(path), vfs=disk.vfs.name)
            self._db.set_busy_timeout(int(timeout * 1000))
            self._db.execute("PRAGMA wal_autocheckpoint=30")  # so that checkpoints are among what is cut

    def execute(self, statement: str, values: Any = ()) -> "Cursor":
        """Run one statement."""
        if self._disk.synchronous and statement.startswith("PRAGMA synchronous"):
            statement = f"PRAGMA synchronous={self._disk.synchronous}"
        with _translated():
            before = self._db.total_changes()
            rows = list(self._db.execute(statement, values))
            return Cursor(rows, self._db.total_changes() - before)

    def executemany(self, statement: str, values: Any) -> None:
        """Run one statement for each of many values."""
        with _translated():
            self._db.executemany(statement, values)

    def close(self) -> None:
        """Close it, whatever the disk says."""
        with contextlib.suppress(apsw.Error):
            self._db.close(True)


class Cursor:
    """Rows that were read already."""

    def __init__(self, rows: list[Any], rowcount: int) -> None:
        self._rows, self.rowcount = iter(rows), rowcount

    def fetchone(self) -> Any:
        """The next row or None."""
        return next(self._rows, None)

    def fetchall(self) -> list[Any]:
        """The rows that are left."""
        return list(self._rows)

    def __iter__(self) -> Iterator[Any]:
        return self._rows


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except apsw.Error as error:
        ours = sqlite3.OperationalError(str(error))
        code = getattr(error, "extendedresult", 1)
        ours.sqlite_errorcode = code
        names: dict[int, str] = {**apsw.mapping_result_codes, **apsw.mapping_extended_result_codes}  # type: ignore[dict-item]
        ours.sqlite_errorname = names.get(code, "SQLITE_ERROR")
        raise ours from error
