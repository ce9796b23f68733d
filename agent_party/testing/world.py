"""A world in memory: what outlives its processes. And whole parties over it, in virtual time."""

import asyncio
import contextlib
import logging
import os
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from ..actors.agent import Agent
from ..actors.events import CORE
from ..actors.host import Host
from ..actors.local import LocalRuntime
from ..actors.runtime import Runtime
from ..actors.task_state import TERMINAL
from ..cluster.settings import Settings
from ..cluster.wiring import Stack
from ..eventstore.ambient import Ambient, System, readable_id
from ..eventstore.backends.blob_memory import MemoryBlobs
from ..eventstore.backends.memory import MemoryTape
from ..eventstore.codec import Codec
from ..eventstore.errors import EventStoreError
from ..eventstore.export import export
from ..eventstore.founding import open_log
from ..eventstore.keyring import Keyring
from ..eventstore.log import Log
from ..party import Party
from ..projections.backends.views_memory import MemoryViews
from .clock import VirtualAmbient, VirtualLoop
from .faults import Faults
from .lives import Ledger, Life, LifeRuntime, WatchedEffects
from .running import virtual_loop

SLICES = 2
T = TypeVar("T")
_UNWINDING = 60.0


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder that goes away again, in memory where there is such a place."""
    fast = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=fast if os.access(fast, os.W_OK) else None) as name:
        yield Path(name)


class World:
    """What survives a process: the tape, the blobs, the keyring and the caches of ``folder``; and who lives in it.

    ``ledger``: every effect that ran; ``lives``: every process there was.
    """

    def __init__(self, folder: Path, ambient: Ambient | None = None, *, slices: int = SLICES) -> None:
        loop = asyncio.get_running_loop()
        self.folder, self.slices = folder, slices
        self.ambient = ambient or (VirtualAmbient(loop) if isinstance(loop, VirtualLoop) else System())
        self.tape, self.blobs = MemoryTape(), MemoryBlobs()
        self.keyring = Keyring(folder / "state", self.ambient.random)
        self.keyring.default_person(readable_id(self.ambient.random(10)))  # the same, whatever crashes
        self.settings = Settings(journal=f"sqlite:///{folder}/log.db", runtime="local", state=str(folder / "state"))
        self.ledger = Ledger()
        self.lives: list[Life] = []
        self._living: set[bytes] = set()
        self._codecs: list[Codec] = []

    def begin(self, faults: Faults | None = None, *, index: str = "") -> Life:
        """A new process, with nothing in it yet. The same ``index`` name means the same cache of the log."""
        number = len(self.lives) + 1
        index = index or f"index-{number}.db"
        life = Life(number, self.tape, self._living, self.ledger, faults or Faults(), index)
        self.lives.append(life)
        return life

    async def open_log(self, life: Life, *, events: Iterable[type] = CORE, ambient: Ambient | None = None) -> Log:
        """Open the log as a process does. ``ambient``: another clock and chance than the world's."""
        codec = Codec(events)
        self._codecs.append(codec)
        return await open_log(
            life.tape,
            self.keyring,
            journal=self.settings.journal,
            index=self.folder / life.index,
            blobs=self.blobs,
            codec=codec,
            slices=self.slices,
            ambient=ambient or self.ambient,
        )

    @contextlib.asynccontextmanager
    async def look(self) -> AsyncIterator[Log]:
        """The log as one finds it who opens it now, and knows every event that anybody has known here."""
        known = {cls for codec in self._codecs for cls, _, _ in codec._known.values()}
        log = await self.open_log(self.begin(), events=known)
        try:
            yield log
        finally:
            await log.close()

    @contextlib.asynccontextmanager
    async def party(self, agents: Sequence[Agent] = (), *, faults: Faults | None = None) -> AsyncIterator["WorldParty"]:
        """One more process, with these agents' code. Several may be open at once."""
        party = WorldParty(self, self.begin(faults), agents)
        async with party:
            yield party

    async def export(self) -> bytes:
        """The whole log, as one who opens it now finds it."""
        async with self.look() as log:
            return await export(log)

    async def close(self) -> None:
        """Let what is left of dead processes unwind, and close their files."""
        loop = asyncio.get_running_loop()
        with _silence():
            for life in self.lives:
                if isinstance(loop, VirtualLoop) and life.frozen and (left := loop.bury(life)):
                    done, _ = await asyncio.wait(left, timeout=_UNWINDING)
                    await asyncio.gather(*done, return_exceptions=True)  # what the dead had to say


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """The dead do not log."""
    logger = logging.getLogger("agent_party")
    was, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = was


class WorldParty(Party):
    """A party over a world: the public API, on stores in memory."""

    def __init__(self, world: World, life: Life, agents: Sequence[Agent]) -> None:
        super().__init__(world.settings, agents, stay=False)
        self.world, self.life = world, life

    async def start(self, *, create: bool = True) -> None:
        await self.life.spawn(super().start(create=create))

    async def _open_stack(self, create: bool) -> Stack:
        log = await self.world.open_log(self.life)
        presence = self.life.presence(self.world.ambient.random(16))
        return _Stack(self.settings, self.world.keyring, log, MemoryViews(), presence, self.life)

    async def _choose_runtime(self) -> Runtime:
        runtime = await super()._choose_runtime()
        assert isinstance(runtime, LocalRuntime)
        if isinstance(loop := asyncio.get_running_loop(), VirtualLoop):
            loop.reporters.append(self._unfinished)
        return LifeRuntime(runtime, self.life)

    def _unfinished(self) -> list[str]:
        """What the tasks of this party wait for, as far as its views know; for those who ask why nothing happens."""
        if self.life.gone:
            return []
        return [
            f"task {key} ({fields.get('capability', '')}): "
            + (", ".join(f"wait {wait}, {kind}" for wait, kind in fields.get("open", {}).items()) or "no open wait")
            for key, fields in _at_once(self.stack.views.scan("task"))
            if fields.get("status") not in TERMINAL
        ]

    async def leave_in_inbox(self, stream: str, *args: Any, **options: Any) -> None:
        for _ in range(1 + self.life.faults.twice):
            await super().leave_in_inbox(stream, *args, **options)

    def kill(self) -> None:
        """The process dies as it stands: nothing of it runs any more, nothing it knew is known."""
        self.life.die()

    async def close(self) -> None:
        if not self.life.gone:
            await self.life.spawn(super().close())
        elif not self.life.frozen:
            await self._close_dead()

    async def _close_dead(self) -> None:
        """Close the files of a process that has died; what it would have written is lost."""
        if stack := getattr(self, "stack", None):
            stack.snapshots.close()
            with contextlib.suppress(EventStoreError):
                await stack.log.close()


def _at_once(coming: Coroutine[Any, Any, T]) -> T:
    """What a coroutine gives that has nothing to wait for."""
    try:
        coming.send(None)
    except StopIteration as done:
        return cast("T", done.value)
    raise AssertionError("views in memory do not wait")


class _Stack(Stack):
    """The stores of one life."""

    def __init__(self, *args: Any) -> None:
        *given, self._life = args
        super().__init__(*given)

    def host(self, **options: Any) -> Host:
        host = super().host(**options)
        host.effects = WatchedEffects(self._life)
        return host


@contextlib.asynccontextmanager
async def world(*, seed: int | None = None) -> AsyncIterator[World]:
    """A world for several parties, one beside the other or one after the other. Needs virtual time, see `run`."""
    loop = virtual_loop()
    if seed is not None:
        loop.reseed(seed)
    with folder() as path:
        made = World(path)
        try:
            yield made
        finally:
            await made.close()


@contextlib.asynccontextmanager
async def party(
    agents: Sequence[Agent] = (), *, seed: int | None = None, faults: Faults | None = None
) -> AsyncIterator[WorldParty]:
    """A whole party in one process, in memory and in virtual time, with the API that users call.

    The same seed gives the same log, byte for byte. Needs virtual time: see `run` and `virtual`.
    """
    async with world(seed=seed) as made, made.party(agents, faults=faults) as opened:
        yield opened
