"""From settings to open stores: the same in the driver, in every host and in the command line."""

import contextlib
import os
from pathlib import Path
from typing import Any

from ..actors.errors import ConfigurationError
from ..actors.events import CORE
from ..actors.host import Host
from ..actors.presence import Presence
from ..eventstore.audit import Audit, audit_journal
from ..eventstore.backends.sqlite import SqliteTape
from ..eventstore.codec import Codec
from ..eventstore.datakeys import DataKeys
from ..eventstore.founding import open_log
from ..eventstore.keyring import Keyring, state_folder
from ..eventstore.log import Log
from ..eventstore.moves import Movable
from ..eventstore.snapshots import Snapshots
from ..eventstore.tape import Tape
from ..eventstore.verify import Identity
from ..projections.agents_and_tasks import AgentsAndTasks
from ..projections.graph import Graph
from ..projections.projection import Views
from ..projections.worker import Worker
from .registry import ViewRegistry
from .settings import Settings, kafka_address
from .stores import open_blobs, open_graph, open_tape, open_views, slices_of


class Stack:
    """The open stores of one process."""

    def __init__(self, settings: Settings, keyring: Keyring, log: Log, views: Views, presence: Presence) -> None:
        self.settings, self.keyring, self.log, self.views, self.presence = settings, keyring, log, views, presence
        self.snapshots = Snapshots(settings.folder / "snapshots.db", log.identity.log_id, log.keys, log.ambient)
        self.worker = Worker(log, AgentsAndTasks(), views)
        self._graph: Graph | None = None
        self.registry = ViewRegistry(self.worker, views, presence)

    def host(self, **options: Any) -> Host:
        """A host over these stores."""
        options.setdefault("idle", self.settings.idle)
        return Host(self.log, self.registry, self.presence, self.snapshots, **options)

    @property
    def graph(self) -> Graph:
        """Where the graph lies; opened when it is first asked."""
        if self._graph is None:
            self._graph = open_graph(self.settings, self.log.identity.log_id)
        return self._graph

    async def close(self) -> None:
        """Close everything; what is on the log stays."""
        self.snapshots.close()
        try:
            await self.log.close()
        finally:
            await self.views.close()
            if self._graph is not None:
                await self._graph.close()
            await self.presence.leave()
            self.presence.close()


async def open_stack(settings: Settings, *, create: bool = True, tape: Tape | None = None) -> Stack:
    """Open the stores; founds the log if it is missing and ``create`` allows it. ``tape``: instead of one that this
    process opens itself."""
    keyring = Keyring(Path(settings.state) if settings.state else state_folder())
    folder = settings.folder
    if not create and settings.embedded and not settings.log_path.exists() and keyring.pinned(settings.address) is None:
        raise ConfigurationError(f"there is no log at {settings.address}: start a party there, or name it by --journal")
    make_private(folder)
    log = await open_log(
        tape or open_tape(settings),
        keyring,
        journal=settings.address,
        index=folder / "index.db",
        blobs=open_blobs(settings),
        codec=Codec(CORE),
        slices=slices_of(settings),
        create=create,
    )
    async with contextlib.AsyncExitStack() as opened:
        opened.push_async_callback(log.close)
        views = open_views(settings, log.identity.log_id)
        opened.push_async_callback(views.close)
        presence = await _presence(settings)
        opened.push_async_callback(presence.leave)
        opened.callback(presence.close)
        stack = Stack(settings, keyring, log, views, presence)
        opened.pop_all()
    return stack


async def _presence(settings: Settings) -> Presence:
    """This process among those of its node, or of all nodes that share the log."""
    folder, holder = settings.folder / "hosts", os.urandom(16)
    if settings.embedded:
        return Presence(folder, holder)
    from .kafka_presence import KafkaPresence

    presence = KafkaPresence(folder, holder, kafka_address(settings.journal))
    try:
        await presence.start()
    except BaseException:
        await presence.leave()
        presence.close()
        raise
    return presence


async def audit_file(path: Path, identity: Identity, keyring: Keyring) -> Audit:
    """Audit a log's file, wherever it lies, with the keyring of the log it must be."""
    return await audit_tape(SqliteTape(path), identity, keyring)


async def audit_tape(tape: Tape, identity: Identity, keyring: Keyring) -> Audit:
    """Audit what lies on a tape, with the keyring of the log it must be; the tape is closed afterwards."""
    if isinstance(tape, Movable):
        tape.to_the_mark = True
    stored = keyring.log_folder(identity) / "keys.db"
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
