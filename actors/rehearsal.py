"""Rehearsals: a handler goes over what is recorded, and no further. No effect is run, nothing is written.

Where the record ends the handler stands still, for good: at what is recorded as open, and at what it asks for next.
Only the time and chance are given to it there, for what it would do with them has no effect by then.
"""

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import msgspec

from ..eventstore.ambient import System
from ..eventstore.artifacts import Artifact
from ..eventstore.codec import NIL
from .agent import Agent
from .cell import TaskCell
from .errors import PartyError, RefusedError, ReplayError
from .events import Completed, Failed, Stopped, WaitKind
from .host import Host
from .packing import failure_of, pack
from .past import Past, Recorded
from .replay import Replay
from .streaming import Streams
from .task import ContinueAsNew, Task
from .task_state import TaskState, WaitState
from .versions import chosen, lacking
from .waits import Waits
from .work import Work

PATIENCE = 2.0
"""Seconds that a rehearsal may stand still without having come to the end of the record."""
_ROUNDS = 50
"""Turns of the event loop in which nothing happens, after which nothing more is expected to."""


class Rehearsed(NamedTuple):
    """How far the handler got. ``reached``: how many of the recorded ``waits`` it asked for again.

    ``differs``: where it does not do what is recorded, in words, and ``wait`` the number there. ``asks``: what it asks
    for beyond the record. ``ended``: it returned ``result``, or raised ``error``. ``notes``: what else is different.
    """

    task: str
    agent: str
    version: str
    waits: Sequence[WaitState]
    reached: int
    differs: str = ""
    wait: int | None = None
    asks: tuple[str, ...] = ()
    ended: bool = False
    result: Any = None
    error: BaseException | None = None
    notes: tuple[str, ...] = ()


class _Waits(Waits):
    """The recorded waits; a new one is never opened."""

    def __init__(self, state: TaskState, stage: "_Stage") -> None:
        super().__init__(state, stage.refuse)
        self.replay = Replay(state.waits, self._diverge, stage.patience)
        self._stage = stage

    def open(self, kind: WaitKind, name: str, given: bytes = NIL, **options: Any) -> tuple[int, WaitState | None]:
        number, found = super().open(kind, name, given, **options)
        if found is None:
            self._stage.asks.append(f"{kind} {name!r}")
        return number, found

    async def opened(self, number: int) -> WaitState:
        await self._stage.forever()
        raise AssertionError

    async def flush(self, *after: Any) -> None:
        return

    def note(self, event: Any, *, soon: bool = True) -> None:
        return

    def _soon(self, seconds: float = 0) -> None:
        return


class _Stage:
    """Where a rehearsal takes place: what stands there for everything that could have an effect, and lets it wait."""

    def __init__(self, past: Past, agent: Agent, patience: float) -> None:
        self.agent, self.patience = agent, patience
        self.asks: list[str] = []
        self.still = asyncio.Event()
        self._past = past

    async def forever(self, *given: Any, **more: Any) -> Any:
        """Stand still."""
        for one in given:
            if inspect.iscoroutine(one):
                one.close()
        self.still.set()
        await asyncio.get_running_loop().create_future()

    async def refuse(self, events: Sequence[Any]) -> Any:
        """Nothing is recorded."""
        raise PartyError("a rehearsal records nothing")

    async def open(self, artifact: Artifact) -> bytes:
        """The content of an artifact: reading has no effect."""
        return await self._past.content(artifact)

    def pieces(self, artifact: Artifact) -> AsyncIterator[bytes]:
        """The same, piece by piece."""
        return self._past.pieces(artifact)

    def __getattr__(self, name: str) -> Any:
        return self.forever


class _Cell(TaskCell):
    """A task as far as it is recorded."""

    def __init__(self, before: Recorded, code: Sequence[Agent], stage: _Stage) -> None:
        self._before, self._stage = before, stage
        log = SimpleNamespace(ambient=System(), identity=SimpleNamespace(log_id=bytes(32)))
        host = SimpleNamespace(
            log=log, snapshots=None, code=list(code), agents={agent.name: agent for agent in reversed(code)},
            passivation=SimpleNamespace(touch=lambda task: None), runtime=None, streams=Streams(),
        )  # fmt: skip
        super().__init__(cast("Host", host), before.task)

    def _begin(self) -> None:
        super()._begin()
        self.waits = _Waits(self.state, self._stage)
        self.waits.own = self.id
        self.work = cast("Work", self._stage)
        if spending := getattr(self, "spending", None):
            for name in ("claim", "admitted"):
                setattr(spending, name, self._spend if name == "claim" else self._stage.forever)

    async def _spend(self, *given: Any) -> None:
        return

    @property
    def state(self) -> TaskState:
        return self._before.state

    async def unpaused(self) -> None:
        return

    def abandon(self, wait: int, kind: WaitKind) -> None:
        return

    async def answer(self, name: str, given: bytes) -> bytes:
        """What the handler answers to a query, from where it stands."""
        queries = self.messages._queries
        if name not in queries:
            known = ", ".join(sorted(queries)) or "none"
            raise RefusedError(f"task {self.id} takes no query {name!r}; it takes {known}")
        try:
            return pack(queries[name](**msgspec.msgpack.decode(given)), f"the answer to query {name}")
        except Exception as error:
            failure = failure_of(error)
            raise RefusedError(f"query {name!r} failed: {failure.kind}: {failure.message}") from error


async def rehearse(before: Recorded, code: Sequence[Agent], past: Past, *, patience: float = PATIENCE) -> Rehearsed:
    """Have the handler of a task go over what is recorded of it. ``code``: as `newest_first` gives it."""
    return (await _rehearsed(before, code, past, patience, None))[0]


async def answer(before: Recorded, code: Sequence[Agent], past: Past, name: str, given: bytes) -> bytes:
    """What a task's handler answers to a query, where it has come to by the record. `RefusedError`, `ReplayError`."""
    told, answered = await _rehearsed(before, code, past, PATIENCE, (name, given))
    if told.differs:
        raise ReplayError(f"task {before.task} cannot be asked: {told.differs}")
    assert answered is not None
    return answered


async def _rehearsed(
    before: Recorded, code: Sequence[Agent], past: Past, patience: float, query: tuple[str, bytes] | None
) -> tuple[Rehearsed, bytes | None]:
    found = chosen(code, before.state)
    if found is None:
        lacks = f"it waits for {lacking(before.state)}: no code here does that"
        return Rehearsed(before.task, before.state.agent, "", before.state.waits, 0, lacks), None
    agent, capability = found
    stage = _Stage(past, agent, patience)
    cell = _Cell(before, code, stage)

    async def handle() -> Any:
        arguments = capability.arguments(msgspec.msgpack.decode(before.state.input))
        return await capability.handler(Task(cell), **arguments)

    run = cell._run = asyncio.get_running_loop().create_task(handle())
    try:
        await _to_its_end(cell, stage, run)
        told = _told(before, agent, cell, stage, run)
        return told, await cell.answer(*query) if query and not told.differs else None
    finally:
        cell.closed = True
        left = [run, *cell._services]
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=patience)


async def _to_its_end(cell: _Cell, stage: _Stage, run: asyncio.Task[Any]) -> None:
    """Until the handler has ended, or stands still where the record ends, or stands still before."""
    replay, still, late, loop = cell.waits.replay, 0, 0, asyncio.get_running_loop()
    before, until = replay.reached, loop.time() + stage.patience
    while not run.done():
        await asyncio.sleep(0 if still < _ROUNDS else 0.01)
        still += 1
        if replay.reached != before:
            before, until, still, late = replay.reached, loop.time() + stage.patience, 0, 0
        at_the_end = stage.still.is_set() and not replay.running and still >= _ROUNDS
        late += loop.time() > until + stage.patience  # what held this up for so long has held up the handler too
        if at_the_end or replay.error or late > _ROUNDS:
            break
    for _ in range(_ROUNDS):
        await asyncio.sleep(0)


def _told(before: Recorded, agent: Agent, cell: _Cell, stage: _Stage, run: asyncio.Task[Any]) -> Rehearsed:
    replay, waits = cell.waits.replay, before.state.waits
    error, result, how = None, None, ""
    if run.done():
        with contextlib.suppress(asyncio.CancelledError):
            error = run.exception()
            result = None if error else run.result()
        how = f"raises {failure_of(error).kind}" if error else "returns"
        with contextlib.suppress(ReplayError):
            replay.ended("continues as new" if isinstance(error, ContinueAsNew) else how)
    elif not replay.error and (missing := replay.missing):
        with contextlib.suppress(ReplayError):
            raise replay._fail(f"{missing}, and the handler does not ask for it")
    differs = str(replay.error or "")
    told = Rehearsed(before.task, agent.name, agent.version, waits, replay.reached, differs)
    if differs:
        return told._replace(wait=min(replay.reached, len(waits) - 1), error=error)
    ended = run.done() and not isinstance(error, ContinueAsNew)
    asks = tuple(stage.asks)
    told = told._replace(asks=asks, ended=ended, result=result, error=error if ended else None)
    return told._replace(notes=tuple(_notes(before, told, how)))


def _notes(before: Recorded, told: Rehearsed, how: str) -> list[str]:
    """What is not as it was, and breaks no replay."""
    ending = before.ending
    if ending is None or isinstance(ending, Stopped):
        return []
    if told.asks:
        return [f"it had come to its end, and now asks for {told.asks[0]}"]
    if isinstance(ending, Completed) and told.ended:
        same = told.error is None and msgspec.msgpack.decode(ending.result) == _plain(told.result)
        return [] if same else [f"its result is recorded, and it now {how} something else"]
    if isinstance(ending, Failed) and told.ended:
        now = failure_of(told.error) if told.error else None
        return [] if now == ending.failure else [f"it failed with {ending.failure.kind}, and now {how}"]
    return []


def _plain(value: Any) -> Any:
    return msgspec.msgpack.decode(pack(value, "the result"))
