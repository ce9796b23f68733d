"""A host as a Ray actor: its own thread runs the host, so that it recovers by itself when Ray starts it again.

Ray's retries stay off for commands; a caller that lost its answer resolves the actor again and resends the same id.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import msgspec
import ray

from ..actors.activation import load
from ..actors.agent import Agent
from ..actors.agent_state import AGENT
from ..actors.decider import Decider, stream_of
from ..actors.endings import ended, value_of
from ..actors.errors import (
    DeadlineError,
    PartyError,
    RuntimeUnavailableError,
    UnknownTaskError,
)
from ..actors.events import Answered, Received, Requested
from ..actors.packing import pack_input
from ..actors.streaming import Piece
from ..actors.task_state import TASK
from ..eventstore.ambient import readable_id
from ..eventstore.errors import EventStoreError
from ..eventstore.verify import Cause
from .ending import LIMIT, before_threads_end
from .pickling import Sent
from .placement import Placement, Remote
from .ray_environment import when_told_to_end
from .remote_steps import on_ray
from .settings import Settings
from .shard_log import open_shard_tape
from .wiring import open_stack

T = TypeVar("T")
_START = 60.0
_AGAIN = 2.0
_log = logging.getLogger("agent_party")


class HostActor:
    """One process of a party on Ray. ``index`` < 0: the dedicated host of an agent; else one of the pooled ones."""

    def __init__(self, settings: Settings, agents: Sequence[Agent], placement: Placement, index: int) -> None:
        self._settings, self._agents, self._placement, self._index = settings, list(agents), placement, index
        self._loop = asyncio.new_event_loop()
        self._stopped, self._ending, self._held = False, False, ""
        self._restarted = bool(ray.get_runtime_context().was_current_actor_reconstructed)
        threading.Thread(target=self._loop.run_forever, name="host", daemon=True).start()
        self._ready: Future[None] = asyncio.run_coroutine_threadsafe(self._begin(), self._loop)
        before_threads_end(self._end)
        when_told_to_end(self._told)

    async def _begin(self) -> None:
        """Start. One that Ray has started again tries until it can: there is nobody whom its error would reach."""
        while True:
            try:
                return await self._start()
            except (EventStoreError, PartyError) as error:
                if not self._restarted:
                    raise
                if (said := str(error)) != self._held:
                    _log.warning("a host that was started again cannot begin yet: %s", said)
                self._held = said
            await asyncio.sleep(_AGAIN)

    async def _start(self) -> None:
        tape = open_shard_tape(self._settings, self._placement) if self._placement.logs else None
        self._stack = await open_stack(self._settings, tape=tape)
        pooled, place, index = self._index >= 0, self._placement, self._index
        self._host = self._stack.host(wants=lambda task: pooled and place.index_of(task) == index)
        if self._ending:
            self._host.begin_nothing()
        try:
            await self._join(pooled, place, index)
        except BaseException:
            await self._stop()
            raise

    async def _join(self, pooled: bool, place: Placement, index: int) -> None:
        self._host.runtime = RemoteRuntime(place, self)
        self._host.effects.elsewhere = on_ray
        own = self._host.join
        shared = [a for a in self._agents if a.name in place.shared and place.index_of(a.stream) == index]
        owned = shared if pooled else self._agents
        await own([agent for agent in self._agents if agent not in owned], owner=False)
        await own(owned)

    async def _do(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            await self._begun()
        except BaseException:
            work.close()
            raise
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def _begun(self) -> None:
        try:
            await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(self._ready)), _START)
        except TimeoutError:
            why = self._held or "it still reads the log"
            raise DeadlineError(f"a host has not begun within {_START:g} s; it goes on trying: {why}") from None

    # What the runtime asks of a host

    async def ready(self) -> int:
        """The process id, once the host runs."""
        await self._begun()
        return os.getpid()

    async def place(self, task: str, requested: Requested, cause: Cause | None) -> None:
        """Start a task here."""
        await self._do(self._host_call(lambda host: host.start_task(task, requested, cause)))

    async def cancel(self, task: str, by: str, reason: str) -> None:
        """Cancel a task that lives here."""
        await self._do(self._host_call(lambda host: host.cancel_here(task, by, reason)))

    async def deliver(self, task: str, message: Received, deadline: float) -> Answered | None:
        """Take a message to a task that lives here."""
        return await self._do(self._host_call(lambda host: host.deliver(task, message, deadline)))

    async def query(self, task: str, name: str, given: bytes, deadline: float) -> bytes:
        """What a task that lives here answers to a query."""
        return await self._do(self._host_call(lambda host: host.query(task, name, given, deadline)))

    async def stream_since(self, task: str, cursor: int | None) -> tuple[list[Piece], int]:
        """What the steps of a task that lives here have said since a cursor, and the next cursor."""
        return await self._do(self._said(task, cursor))

    async def _said(self, task: str, cursor: int | None) -> tuple[list[Piece], int]:
        return self._host.streams.since(task, cursor)

    async def send(
        self, decider: type[Decider[Any, Any, Any]], name: str, command: Any, command_id: bytes, deadline: float
    ) -> Sent:
        """Have an entity handle a command; gives its `Reply`."""
        call = self._host_call(lambda host: host.send(decider, name, command, command_id, deadline))
        return Sent(await self._do(call))

    async def recall(self, agent: str, key: str) -> bytes | None:
        """What an agent remembers."""
        return await self._do(self._host_call(lambda host: host.recall(agent, key)))

    async def remember(self, agent: str, key: str, value: bytes, command_id: bytes) -> None:
        """Have an agent remember."""
        await self._do(self._host_call(lambda host: host.remember(agent, key, value, command_id)))

    async def drain(self, limit: float) -> None:
        """Take no more work, let the effects in flight end within ``limit`` seconds, and passivate everything."""
        await self._do(self._host_call(lambda host: host.drain(limit)))

    async def stop(self) -> None:
        """Passivate everything and close the stores."""
        if not self._stopped:
            self._stopped = True
            await self._do(self._stop())

    def _told(self) -> None:
        """This process was told to end. Ray waits for the steps that are elsewhere, and then for nothing: another one
        that the host began meanwhile would be killed."""
        self._loop.call_soon_threadsafe(self._begin_nothing)

    def _begin_nothing(self) -> None:
        """Also if it has not begun itself, which may take its time."""
        self._ending = True
        if hasattr(self, "_host"):
            self._host.begin_nothing()

    def _end(self) -> None:
        """This process was told to end: Ray has let go of it by now, and starts another one for the same host."""
        if not self._stopped and self._ready.done() and not self._ready.exception():
            self._stopped = True
            asyncio.run_coroutine_threadsafe(self._drain_and_stop(), self._loop).result(2 * LIMIT)

    async def _drain_and_stop(self) -> None:
        await self._host.drain(LIMIT)
        await self._stop()

    async def _stop(self) -> None:
        await self._host.close()
        await self._stack.close()

    async def _host_call(self, call: Any) -> Any:
        return await call(self._host)

    # What anyone may ask of an agent's handle

    async def ask(
        self,
        capability: str,
        input: dict[str, Any] | None = None,  # noqa: A002 - the name is the contract
        meta: dict[str, Any] | None = None,
    ) -> str:
        """Start a task; gives its id. ``meta``: ``command_id`` (the same id, the same task), ``deadline`` (seconds)."""
        return await self._do(self._ask(capability, input or {}, meta or {}))

    async def _ask(self, capability: str, given: dict[str, Any], meta: dict[str, Any]) -> str:
        log = self._stack.log
        seed = meta.get("command_id")
        data = self._host.command_id(f"ask\0{seed}")[:10] if seed else log.ambient.random(10)
        task, agent = readable_id(data), self._agents[0].name if self._index < 0 else ""
        declared = self._agents[0].capabilities.get(capability) if agent else None
        if declared:
            declared.arguments(given)
        packed = pack_input(given, f"the input of {capability}")
        who, _ = self._host.doorman.person(self._settings.person or None)
        within = float(meta.get("deadline") or 0)
        await self._host.place(task, Requested(capability, packed, agent, by=who, within=within))
        return task

    async def result(self, task: str, timeout: float = 30.0) -> Any:
        """A task's result, waited for up to ``timeout`` seconds; raises what the task came to."""
        return await self._do(self._result(task, timeout))

    async def _result(self, task: str, timeout: float) -> Any:
        await self._known(task)
        if ending := await ended(self._stack.log, self._host.watch, stream_of("task", task), timeout):
            return value_of(task, ending)
        raise DeadlineError(f"task {task} has not finished after {timeout:g} s; it goes on: ask again")

    async def state(self, task: str | None = None, at: int | None = None) -> dict[str, Any]:
        """The agent's state, or a task's, at a revision; as plain data."""
        return await self._do(self._state(task, at))

    async def _state(self, task: str | None, at: int | None) -> dict[str, Any]:
        await self._stack.log.refresh()
        if task:
            await self._known(task)
            folded: Any = await load(self._stack.log, TASK, stream_of("task", task), snapshots=None, at=at)
        else:
            folded = await load(self._stack.log, AGENT, self._agents[0].stream, snapshots=None, at=at)
        plain: dict[str, Any] = msgspec.to_builtins(folded.state, builtin_types=(bytes,))
        return {**plain, "revision": folded.revision}

    async def history(self, from_revision: int = 1, task: str | None = None) -> list[dict[str, Any]]:
        """The agent's events, or a task's, from a revision; as plain data."""
        return await self._do(self._history(from_revision, task))

    async def _history(self, first: int, task: str | None) -> list[dict[str, Any]]:
        await self._stack.log.refresh()
        stream = stream_of("task", task) if task else self._agents[0].stream
        return [
            {
                "revision": commit.revision,
                "time": commit.time,
                "type": type(event).__event__.name.decode(),
                "event": msgspec.to_builtins(event, builtin_types=(bytes,)),
            }
            async for commit in self._stack.log.read(stream, first)
            for event in commit.events
        ]

    async def _known(self, task: str) -> None:
        await self._stack.log.refresh()
        if not (await self._stack.log.state(stream_of("task", task))).revision:
            raise UnknownTaskError(task)


class RemoteRuntime(Remote):
    """The runtime as a host sees it: what does not belong here goes to the host where it does."""

    def __init__(self, placement: Placement, actor: HostActor) -> None:
        super().__init__(placement)
        self._actor = actor

    async def join(self, agents: Sequence[Agent]) -> None:
        raise RuntimeUnavailableError("agents join by Party.open, not from inside a host")

    async def leave(self) -> None:
        return

    async def place(self, task: str, requested: Requested, cause: Cause | None = None) -> None:
        if self.placement.index_of(task) == self._actor._index:
            await self._actor._host.start_task(task, requested, cause)
        else:
            await super().place(task, requested, cause)

    async def cancel(self, task: str, by: str, reason: str) -> None:
        if self.placement.index_of(task) == self._actor._index:
            await self._actor._host.cancel_here(task, by, reason)
        else:
            await super().cancel(task, by, reason)

    async def close(self) -> None:
        return
