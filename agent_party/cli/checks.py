"""The checks of `party doctor` that need no open log."""

import importlib.metadata
import importlib.util
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .doctor import FINE, NOTE, PROBLEM, Finding

if TYPE_CHECKING:
    from ..cluster.settings import Settings
    from ..eventstore.keyring import Keyring

LITTLE, TOO_LITTLE = 1 << 30, 64 << 20
"""Bytes of free disk: below the first it is said, below the second it is a problem."""
_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "9p", "ceph", "glusterfs"})
EXTRAS = {
    "ray": "ray",
    "kafka": "aiokafka",
    "neo4j": "neo4j",
    "redis": "redis",
    "s3": "minio",
    "graph": "ladybug",
    "web": "starlette",
    "research": "bm25s",
    "models": "openai",
}
"""Each extra, and the module that shows that it is here."""


def python(version: tuple[int, ...]) -> Finding:
    """Whether this Python will do."""
    said = ".".join(str(part) for part in version[:3])
    if version[:2] < (3, 11):
        return Finding("python", PROBLEM, said, "install Python 3.11 or newer")
    return Finding("python", FINE, said)


def code(settings: "Settings") -> Iterator[Finding]:
    """Whether the app is found."""
    from ..apps import find_app, find_deciders

    if not settings.app:
        yield Finding("code", NOTE, "no app is set", "--app module:attribute, where a command is to run agents")
        return
    deciders = len(find_deciders(settings.app))
    names = [] if deciders else [agent.name for agent in find_app(settings.app)]
    yield Finding("code", FINE, f"{settings.app}: {', '.join(names) or f'{deciders} deciders'}")


def journal(settings: "Settings") -> Iterator[Finding]:
    """Folder, disk, locks and permissions of the log's file or of its caches. Nothing is made that is not there."""
    path, folder = settings.log_path if settings.embedded else None, settings.folder
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        yield Finding(
            "journal", PROBLEM, f"{there} may not be written", f"chmod u+rwx {there}, or choose another journal"
        )
        return
    yield from _disk(there)
    if path and (system := file_system(there)) in _NETWORK:
        yield Finding(
            "journal",
            PROBLEM,
            f"{there} is on {system}",
            "SQLite's locks do not hold there: use a disk of this machine",
        )
    if path and path.exists():
        yield _file(path)
    if folder.exists() and not (folder / ".gitignore").exists():
        yield Finding("journal", PROBLEM, f"{folder} has no .gitignore", f"echo '*' > {folder / '.gitignore'}")


def _disk(folder: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(folder).free
    said = f"{free / (1 << 30):.1f} GiB free"
    if free < LITTLE:
        yield Finding("disk", PROBLEM if free < TOO_LITTLE else NOTE, said, f"free some space on the disk of {folder}")
    else:
        yield Finding("disk", FINE, said)


def _file(path: Path) -> Finding:
    """Whether the log's file can be written now."""
    from ..eventstore.backends.sqlite_errors import translated
    from ..eventstore.errors import StoreBusyError

    if not os.access(path, os.R_OK | os.W_OK):
        return Finding("journal", PROBLEM, f"{path} may not be read and written", f"chmod u+rw {path}")
    with translated(path):
        db = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=2, isolation_level=None)
        try:
            with translated(path):
                db.execute("BEGIN IMMEDIATE")
                db.execute("ROLLBACK")
        except StoreBusyError:
            return Finding("journal", PROBLEM, f"{path} is locked", f"another process holds it: lsof {path}")
        finally:
            db.close()
    return Finding("journal", FINE, f"{path}: {path.stat().st_size:,} bytes, can be written")


def file_system(path: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """The type of the file system a path lies on; empty where that is not known."""
    try:
        lines = [line.split() for line in mounts.read_text().splitlines()]
    except OSError:
        return ""
    held = [(point, kind) for _, point, kind, *_ in lines if path.resolve().is_relative_to(point)]
    return max(held, key=lambda mount: len(mount[0]), default=("", ""))[1]


def keyring(held: "Keyring") -> Iterator[Finding]:
    """Permissions and sizes of every key of every log and person."""
    from ..eventstore.errors import KeyringError
    from ..eventstore.keyring import read_seed

    keys = sorted(held.folder.glob("logs/*/*.key")) + sorted(held.folder.glob("people/*.key"))
    bad = 0
    for path in keys:
        try:
            read_seed(path)
        except KeyringError as error:
            bad += 1
            yield Finding("keyring", PROBLEM, str(error))
    for folder in sorted({held.folder, *(path.parent for path in keys)}):
        if mode := folder.stat().st_mode & 0o077:
            bad += 1
            yield Finding("keyring", PROBLEM, f"others may enter {folder} ({mode:03o})", f"chmod 700 {folder}")
    if not bad:
        yield Finding("keyring", FINE, f"{held.folder}: {len(keys)} keys, only yours to read")


def runtime(settings: "Settings") -> Iterator[Finding]:
    """What `auto` comes to, and whether Ray is ready where it is needed."""
    from ..cluster.settings import chosen_runtime

    chosen, here = chosen_runtime(settings), _version("ray")
    if chosen == "ray" and not here:
        yield Finding("runtime", PROBLEM, "ray is asked for and not installed", _install("ray"))
        return
    with_ray = f"ray {here} is installed" if here else "ray is not installed"
    yield Finding("runtime", FINE, f"{settings.runtime} means {chosen} here; {with_ray}")
    if here:
        mode = os.environ.get("RAY_AUTH_MODE", "")
        said = f"RAY_AUTH_MODE={mode}" if mode else "a Ray that a party starts asks for a token"
        open_to_all = mode == "disabled"
        advice = "whoever reaches Ray's ports can run code: RAY_AUTH_MODE=token" if open_to_all else ""
        yield Finding("ray", NOTE if open_to_all else FINE, said, advice)


def extras() -> Iterator[Finding]:
    """Which extras are here; a missing one is no problem until something asks for it."""
    missing = [name for name, module in EXTRAS.items() if importlib.util.find_spec(module) is None]
    here = ", ".join(name for name in EXTRAS if name not in missing) or "none"
    if missing:
        advice = f"only if you need them: {_install(','.join(missing))}"
        yield Finding("extras", NOTE, f"here: {here}; not here: {', '.join(missing)}", advice)
    else:
        yield Finding("extras", FINE, f"here: {here}")


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _install(extra: str) -> str:
    return f"pip install 'agent-party-runtime[{extra}]'"
