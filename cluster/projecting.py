"""Projections carried by Ray actors: one owner for each range of slices, by name.

    ray.get_actor("projection:task-lists", namespace="agent-party").status.remote()

Names keep a second owner from starting; if two run all the same, as they may for a while where a node is cut off, the
stored checkpoint decides whose batch counts. An owner that dies is started again by Ray, and goes on from there.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

import ray

from ..actors.errors import RuntimeUnavailableError
from ..projections.parts import Part
from . import ray_calls
from .ending import until_told
from .placement import options_here
from .projections import LIMITS, part_worker
from .ray_runtime import connect
from .settings import Settings
from .wiring import open_stack

T = TypeVar("T")
_START = 120.0
_CALL = 30.0
_LOOK = 2.0
_AGAIN = 0.2
_log = logging.getLogger("agent_party")


class ProjectionActor:
    """The owner of a part of a projection. Its own thread carries commits, so that it goes on by itself."""

    def __init__(self, settings: Settings, name: str, part: Part) -> None:
        self._settings, self._name, self._part = settings, name, part
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="projection", daemon=True).start()
        self._ready: Future[None] = asyncio.run_coroutine_threadsafe(self._start(), self._loop)

    async def _start(self) -> None:
        self._stack = await open_stack(self._settings, create=False)
        self._worker = part_worker(self._stack, self._name, self._part, LIMITS)
        self._carrying = asyncio.ensure_future(self._worker.run())

    async def _do(self, work: Coroutine[Any, Any, T]) -> T:
        await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(self._ready)), _START)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def status(self) -> dict[str, Any]:
        """How far it has come: commits projected, and how many it is behind. Raises what ended it."""
        return await self._do(self._status())

    async def _status(self) -> dict[str, Any]:
        if self._carrying.done():
            self._carrying.result()
        stands = await self._worker.sink.checkpoint(self._worker.projection)
        lag = await self._worker.lag()
        told = {"name": self._worker.projection.name, "commits": sum(stands.sizes.values()), "paused": stands.paused}
        return {**told, "lag": lag.commits, "lag_seconds": lag.seconds}

    async def stop(self) -> None:
        """Let go of the stores."""
        await self._do(self._stop())

    async def _stop(self) -> None:
        self._carrying.cancel()
        await asyncio.gather(self._carrying, return_exceptions=True)
        await self._stack.close()


def actor_name(name: str, part: Part) -> str:
    """What the owner of a part is called on Ray."""
    return f"projection:{part.name(name)}"


async def carry_on_ray(settings: Settings, name: str, owners: int, say: Callable[[str], None]) -> int:
    """Start the owners, and watch them until this program is told to end. How many commits were projected.

    `RuntimeUnavailableError` if another program owns one of the parts already, or if one does not start, at first or
    again.
    """
    connected = await asyncio.to_thread(connect, settings)
    parts, handles = [Part(index, owners) for index in range(owners)], list[Any]()
    try:
        await ray_calls.in_thread(_create, settings, name, parts, handles)
        told = await _begun(handles)
        say(f"carrying {name} by {', '.join(actor_name(name, part) for part in parts)}, until it is interrupted")
        ending = asyncio.ensure_future(until_told())
        until = asyncio.get_running_loop().time() + _START
        while not ending.done():
            await asyncio.wait([ending], timeout=_LOOK)
            try:
                told = await _statuses(handles, _CALL)
                until = asyncio.get_running_loop().time() + _START
            except ray.exceptions.ActorUnavailableError:  # it is being started again
                continue
            except TimeoutError as error:  # it reads the log again, as at its first start
                if asyncio.get_running_loop().time() >= until:
                    raise _silent(_START) from error
        return sum(one["commits"] for one in told)
    finally:
        await ray_calls.end(handles, _CALL)
        if connected:
            await ray_calls.leave()


def _create(settings: Settings, name: str, parts: list[Part], handles: list[Any]) -> None:
    options = options_here(settings.name, concurrency=100)
    actor = ray.remote(ProjectionActor)
    for part in parts:
        try:
            handles.append(actor.options(name=actor_name(name, part), **options).remote(settings, name, part))
        except ValueError as error:
            raise RuntimeUnavailableError(
                f"{actor_name(name, part)} runs on this cluster already: end the program that runs it"
            ) from error


async def _begun(handles: list[Any]) -> list[dict[str, Any]]:
    """What the owners say once all of them carry, also if one dies meanwhile and is started again."""
    loop = asyncio.get_running_loop()
    until = loop.time() + _START
    while True:
        try:
            return await _statuses(handles, max(_LOOK, until - loop.time()))
        except TimeoutError as error:
            raise _silent(_START) from error
        except ray.exceptions.ActorUnavailableError as error:
            if loop.time() >= until:
                raise RuntimeUnavailableError(f"an owner is not there after {_START:g} s: {error}") from error
            await asyncio.sleep(_AGAIN)


async def _statuses(handles: list[Any], deadline: float) -> list[dict[str, Any]]:
    try:
        told: list[dict[str, Any]] = await ray_calls.ask_all([handle.status for handle in handles], deadline)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.ActorDiedError as error:
        raise RuntimeUnavailableError("an owner was ended by another program: run the projection again") from error
    return told


def _silent(seconds: float) -> RuntimeUnavailableError:
    return RuntimeUnavailableError(f"an owner does not answer within {seconds:g} s")
