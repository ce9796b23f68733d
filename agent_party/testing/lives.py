"""Lives: what runs as one process over a world that outlives it, until it closes or dies."""

import asyncio
import contextlib
import contextvars
import functools
import inspect
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ..actors.effects import Effects, current_step
from ..actors.events import Requested, Settled
from ..actors.local import LocalRuntime
from ..actors.packing import name_of
from ..actors.presence import Presence
from ..eventstore.backends.memory import MemoryTape
from ..eventstore.errors import StoreBusyError, StoreError
from ..eventstore.tape import Attempt, Entry, Indefinite
from ..eventstore.verify import Cause, Identity, parse
from .clock import VIRTUAL_LIMIT, VirtualLoop, current_life
from .faults import Cut, Faults, Kind, When

T = TypeVar("T")
_DEAD = "this process has died"


class Effect(NamedTuple):
    """One run of an effect's function. ``records``: how many the tape held when it began."""

    task: str
    wait: int
    attempt: int
    name: str
    life: int
    records: int


class Ledger:
    """Every effect of a run, whoever ran it, in order; and how often each step was called."""

    def __init__(self) -> None:
        self.effects: list[Effect] = []
        self.calls: Counter[str] = Counter()


class Life:
    """One process. ``gone``: it has died, at ``cut`` if that was planned. ``index``: the file of its index."""

    def __init__(
        self, number: int, tape: MemoryTape, living: set[bytes], ledger: Ledger, faults: Faults, index: str
    ) -> None:
        self.number, self.ledger, self.faults, self.index = number, ledger, faults, index
        self.gone = self.frozen = False
        self.cut: Cut | None = None
        self.cuts: list[Cut] = []
        self.tape = LifeTape(tape, self)
        self._living, self.holder = living, b""
        loop = asyncio.get_running_loop()
        self._virtual = isinstance(loop, VirtualLoop)
        self.died: asyncio.Future[None] = loop.create_future()
        self._context = contextvars.copy_context()
        self._context.run(current_life.set, self)

    def spawn(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Run something as part of this process."""
        return asyncio.get_running_loop().create_task(work, context=self._context.copy())

    def presence(self, holder: bytes) -> "LifePresence":
        """How this process shows the others that it lives."""
        self.holder = holder
        return LifePresence(self._living, holder)

    def reach(self, kind: Kind, when: When, name: str) -> tuple[int, int]:
        """A cut point is reached; the process may be gone after it. The point's place."""
        place = self.number, len(self.cuts) + 1
        if not self.gone:
            cut = Cut(*place, kind, when, name)
            self.cuts.append(cut)
            if place in self.faults.dies:
                self.cut = cut
                self.die()
        return place

    def die(self) -> None:
        """From now on nothing that this process does has any effect, and in virtual time nothing of it runs."""
        if self.gone:
            return
        self.gone = True
        self._living.discard(self.holder)
        loop = self.died.get_loop()
        if isinstance(loop, VirtualLoop):
            self.frozen = True
            loop.news()
        if not self.died.done():
            self.died.set_result(None)

    async def answer(self) -> None:
        """Go on only as a living process. One that is unwinding after its end is told so."""
        while self.gone and (self.frozen or not self._virtual):
            await asyncio.get_running_loop().create_future()
        if self.gone:
            raise StoreError(_DEAD)


class LifeTape:
    """One process's way to the tape, until it is gone."""

    lanes = 1
    conditional = True

    def __init__(self, tape: MemoryTape, life: Life) -> None:
        self.under, self._life = tape, life

    @property
    def dead(self) -> bool:
        """Whether its process has gone."""
        return self._life.gone

    async def identity(self) -> Identity | None:
        await self._life.answer()
        return await self.under.identity()

    async def found(self, log: Identity) -> None:
        await self._life.answer()
        await self.under.found(log)

    async def append(self, lane: int, records: Sequence[bytes], after: Entry) -> Attempt:
        faults, name = self._life.faults, _name(records)
        place = self._life.reach("append", "before", name)
        await self._life.answer()
        if faults.slow:
            await asyncio.sleep(faults.slow)
            await self._life.answer()
        if place in faults.refused:
            raise StoreBusyError(f"append {name} was made to fail")
        attempt = await self.under.append(lane, records, after)
        if attempt.placed:
            _news()
        place = self._life.reach("append", "after", name)
        await self._life.answer()
        if place in faults.unanswered:
            raise Indefinite(f"the answer to append {name} was made to be lost")
        return attempt

    def append_at_once(self, lane: int, records: Sequence[bytes], after: Entry) -> Attempt | None:
        return None

    async def read(self, lane: int, after: int, limit: int) -> list[Entry]:
        await self._life.answer()
        return await self.under.read(lane, after, limit)

    async def fetch(self, lane: int, places: Sequence[int]) -> list[Entry]:
        await self._life.answer()
        return await self.under.fetch(lane, places)

    async def wait(self, lane: int, after: int, timeout: float) -> None:
        await self._life.answer()
        await self.under.wait(lane, after, timeout)

    async def close(self) -> None:
        return


def _name(records: Sequence[bytes]) -> str:
    """What is appended: streams and the revisions they come to (0: a control commit)."""
    headers = [parse(raw).header for raw in records]
    return ", ".join(f"{header.stream.decode()}@{header.revision}" for header in headers)


def _news() -> None:
    loop = asyncio.get_running_loop()
    if isinstance(loop, VirtualLoop):
        loop.news()


class LifePresence(Presence):
    """Who lives, in memory."""

    def __init__(self, living: set[bytes], holder: bytes) -> None:
        self.folder, self.holder, self._living = Path(), holder, living
        living.add(holder)

    def alive(self, holder: bytes) -> bool:
        return holder == self.holder or holder in self._living

    def close(self) -> None:
        self._living.discard(self.holder)


class WatchedEffects(Effects):
    """Effects that are counted, and can be made to fail. ``step`` and ``function`` are `Effects.run`'s first two."""

    def __init__(self, life: Life) -> None:
        super().__init__()
        self._life = life

    async def run(self, step: Any, function: Callable[..., Any], *rest: Any, **options: Any) -> Settled:
        """As `Effects.run`, with the function watched."""
        return await super().run(step, self._watched(function), *rest, **options)

    def _watched(self, function: Callable[..., Any]) -> Callable[..., Any]:
        name = name_of(function)

        async def awaited(value: Any) -> Any:
            try:
                return await value
            finally:
                self._life.reach("effect", "after", name)
                await self._life.answer()

        @functools.wraps(function)
        async def of_loop(*args: Any, **kwargs: Any) -> Any:
            await self._begin(name)
            return await awaited(function(*args, **kwargs))

        @functools.wraps(function)
        def of_thread(*args: Any, **kwargs: Any) -> Any:
            if coming := self._enter(name):
                return coming()
            result = None
            try:
                result = function(*args, **kwargs)
            finally:
                if not inspect.isawaitable(result):
                    self._life.reach("effect", "after", name)
            return awaited(result) if inspect.isawaitable(result) else result

        watched = of_loop if inspect.iscoroutinefunction(function) else of_thread
        watched.__qualname__ = name
        return watched

    async def _begin(self, name: str) -> None:
        if self._life.gone:
            await self._life.answer()
        if coming := self._enter(name):
            await coming()

    def _enter(self, name: str) -> Callable[[], Coroutine[Any, Any, None]] | None:
        """An effect's function is about to run: None, or what comes instead. Raises in a process that dies."""
        step, life = current_step(), self._life
        life.reach("effect", "before", f"{name} of {step.task}, wait {step.wait}")
        if life.gone:
            raise StoreError(_DEAD)
        life.ledger.effects.append(
            Effect(step.task, step.wait, step.attempt, name, life.number, len(life.tape.under.records))
        )
        life.ledger.calls[name] += 1
        fault = life.faults.step_fault(name, life.ledger.calls[name])
        if fault is None:
            return None
        if fault.error is not None:
            raise fault.error
        return _never


async def _never() -> None:
    """Nothing, for as long as anybody waits; whoever waits without a limit is told at once that time is up."""
    await asyncio.sleep(VIRTUAL_LIMIT / 2)
    raise TimeoutError("a step that was made to time out has no time-out of its own")


class LifeRuntime(LocalRuntime):
    """The local runtime, as part of a process, whoever calls; delivering twice where that is planned."""

    def __init__(self, runtime: LocalRuntime, life: Life) -> None:
        super().__init__(runtime.host)
        self._life = life
        if life.faults.twice:
            self.host.runtime = self  # so that a child's request comes this way too

    async def _deliver(self, message: Callable[[], Coroutine[Any, Any, T]]) -> T:
        value = await self._life.spawn(message())
        return await self._life.spawn(message()) if self._life.faults.twice else value

    async def place(self, task: str, requested: Requested, cause: Cause | None = None) -> None:
        place = super().place
        await self._deliver(lambda: place(task, requested, cause))

    async def cancel(self, task: str, by: str, reason: str) -> None:
        cancel = super().cancel
        await self._deliver(lambda: cancel(task, by, reason))

    async def send(self, *args: Any, **options: Any) -> Any:
        send = super().send
        return await self._deliver(lambda: send(*args, **options))

    async def remember(self, agent: str, key: str, value: bytes, command_id: bytes) -> None:
        remember = super().remember
        with self._here():
            await self._deliver(lambda: remember(agent, key, value, command_id))

    async def recall(self, agent: str, key: str) -> bytes | None:
        with self._here():
            return await super().recall(agent, key)

    @contextlib.contextmanager
    def _here(self) -> Iterator[None]:
        """The host does it itself, instead of asking this runtime to have it done by the host."""
        runtime, self.host.runtime = self.host.runtime, None
        try:
            yield
        finally:
            self.host.runtime = runtime
