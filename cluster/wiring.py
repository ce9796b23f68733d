"""From settings to open stores: the same in the driver, in every host and in the command line."""

import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

from ..actors.dj import AgentRow, TaskRow
from ..actors.errors import ConfigurationError
from ..actors.events import CORE
from ..actors.host import Host
from ..actors.presence import Presence
from ..eventstore.audit import Audit, audit_journal
from ..eventstore.backends.blob_folder import FolderBlobs
from ..eventstore.backends.sqlite import SqliteTape
from ..eventstore.codec import Codec
from ..eventstore.datakeys import DataKeys
from ..eventstore.founding import open_log
from ..eventstore.keyring import Keyring, state_folder
from ..eventstore.log import Log
from ..eventstore.snapshots import Snapshots
from ..eventstore.verify import Identity
from ..projections.agents_and_tasks import AgentsAndTasks
from ..projections.backends.views_sqlite import SqliteViews
from ..projections.projection import Views
from ..projections.worker import Worker
from .settings import Settings

_COUNT_EVERY = 1.0


class Stack:
    """The open stores of one process."""

    def __init__(self, settings: Settings, keyring: Keyring, log: Log, views: SqliteViews, presence: Presence) -> None:
        self.settings, self.keyring, self.log, self.views, self.presence = settings, keyring, log, views, presence
        self.snapshots = Snapshots(settings.folder / "snapshots.db", log.identity.log_id, log.keys, log.ambient)
        self.worker = Worker(log, AgentsAndTasks(), views)
        self.registry = ViewRegistry(self.worker, views, presence)

    def host(self, **options: Any) -> Host:
        """A host over these stores."""
        return Host(self.log, self.registry, self.presence, self.snapshots, **options)

    async def close(self) -> None:
        """Close everything; what is on the log stays."""
        self.snapshots.close()
        try:
            await self.log.close()
        finally:
            await self.views.close()
            self.presence.close()


async def open_stack(settings: Settings, *, create: bool = True) -> Stack:
    """Open the stores; founds the log if it is missing and ``create`` allows it."""
    keyring = Keyring(Path(settings.state) if settings.state else state_folder())
    folder = settings.folder
    if not create and not settings.log_path.exists() and keyring.pinned(settings.journal) is None:
        raise ConfigurationError(f"there is no log at {settings.journal}: start a party there, or name it by --journal")
    make_private(folder)
    log = await open_log(
        SqliteTape(settings.log_path),
        keyring,
        journal=settings.journal,
        index=folder / "index.db",
        blobs=FolderBlobs(settings.blobs_path),
        codec=Codec(CORE),
        create=create,
    )
    return Stack(
        settings,
        keyring,
        log,
        SqliteViews(settings.views_path, log.identity.log_id),
        Presence(folder / "hosts", os.urandom(16)),
    )


async def audit_file(path: Path, identity: Identity, keyring: Keyring) -> Audit:
    """Audit a log's file, wherever it lies, with the keyring of the log it must be."""
    stored, tape = keyring.log_folder(identity) / "keys.db", SqliteTape(path)
    keys = DataKeys(stored, keyring.secret(identity, "wrapping")) if stored.exists() else None
    try:
        return await audit_journal(tape, identity, keyring, keys)
    finally:
        if keys:
            keys.close()
        await tape.close()


def make_private(folder: Path) -> None:
    """Make the party's folder, which version control and uploads of the working directory skip."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        ignore = folder / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be used: {error.strerror}") from error


class ViewRegistry:
    """The registry over the views of agents and tasks; catches up before it answers."""

    def __init__(self, worker: Worker, views: Views, presence: Presence) -> None:
        self._worker, self._views, self._presence = worker, views, presence
        self._loads: Counter[str] = Counter()
        self._counted = -_COUNT_EVERY

    async def agents_with(self, capability: str) -> list[AgentRow]:
        await self._worker.catch_up()
        names = [fields["agent"] for _, fields in await self._views.scan("capability", f"{capability}/")]
        rows = await self._rows(names)
        return [row for row in rows if capability in row.capabilities]

    async def agents(self) -> list[AgentRow]:
        await self._worker.catch_up()
        return await self._rows([name for name, _ in await self._views.scan("agent")])

    async def _rows(self, names: list[str]) -> list[AgentRow]:
        load = await self._load()
        return [row for name in names if (row := await self._agent(name, load[name]))]

    async def _load(self) -> Counter[str]:
        """Unfinished tasks by agent; counted at most once a second, because it takes reading all of them."""
        now = time.monotonic()
        if now > self._counted + _COUNT_EVERY:
            self._counted = now
            self._loads = Counter(fields.get("agent", "") for _, fields in await self._views.scan("open-task"))
        return self._loads

    async def _agent(self, name: str, load: int) -> AgentRow | None:
        fields = await self._views.get("agent", name)
        if not fields:
            return None
        holders = [key.rpartition("/")[2] for key, _ in await self._views.scan("host", f"{name}/")]
        hosts = sum(self._presence.alive(bytes.fromhex(holder)) for holder in holders)
        capabilities = tuple(fields.get("capabilities", ()))
        return AgentRow(name, fields.get("version", ""), fields.get("phase", ""), capabilities, hosts, load)

    async def tasks(self, *, unfinished: bool = False, limit: int = 1_000) -> list[TaskRow]:
        await self._worker.catch_up()
        if unfinished:
            keys = [key for key, _ in await self._views.scan("open-task", limit=limit)]
            found = [(key, fields) for key in keys if (fields := await self._views.get("task", key))]
        else:
            found = await self._views.scan("task", limit=100_000)
        rows = sorted((_task(key, fields) for key, fields in found), key=lambda row: (-row.created, row.id))
        return rows[:limit]


def _task(key: str, fields: dict[str, Any]) -> TaskRow:
    waits = tuple(f"{value} {name[5:]}" for name, value in sorted(fields.items()) if name.startswith("open."))
    status = fields.get("status", "")
    if status == "running" and waits and all(wait.split()[0] in ("approval", "child", "sleep") for wait in waits):
        status = "waiting"
    return TaskRow(
        id=key,
        capability=fields.get("capability", ""),
        agent=fields.get("agent", ""),
        status=status,
        steps=fields.get("settled", 0),
        open=waits,
        created=fields.get("created", 0),
        updated=fields.get("updated", 0),
        parent=fields.get("parent", ""),
        done=fields.get("done", 0),
        total=fields.get("total", 0),
    )
