"""Shard logs as Ray actors: a few clients of Kafka for all hosts of a party, each serving some of the lanes.

An actor that dies is started again by Ray. One that is silent, or gone for good, is given up: whoever notices goes on
with the next of the same lanes, which whoever comes first makes. That two serve the same lanes is harmless, so nobody
has to agree on which is the right one, and the silent one may wake up whenever it likes.
"""

import asyncio
import os
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayActorError, RayError

from ..eventstore.backends.kafka import KafkaTape
from . import ray_calls
from .placement import Placement, options_here
from .settings import Settings, kafka_address
from .shard_calls import Lost
from .shard_serving import Shard
from .shard_tape import ShardTape

QUIET = 5.0
"""Seconds after which one that says nothing, not even that there is nothing yet, is given up."""
_START = 60.0
_RESTART = 20.0
_AGAIN = 0.1


class ShardLogActor:
    """A shard log of a Kafka journal."""

    def __init__(self, journal: str) -> None:
        self._journal = journal
        self._shard: Shard | None = None

    async def ready(self) -> int:
        """The process id, once it runs."""
        return os.getpid()

    async def ask(self, message: bytes) -> bytes:
        """See `shard_wire`."""
        if self._shard is None:
            self._shard = Shard(KafkaTape(kafka_address(self._journal)))
        return await self._shard.answer(message)


class RayLine:
    """A way to the shard log of some lanes, whichever one it is by now.

    Unless it is detached, Ray ends one that was given up by whoever made it, as soon as that can be done.
    """

    def __init__(self, settings: Settings, placement: Placement, number: int) -> None:
        self._settings, self._placement, self._number = settings, placement, number
        self._turn = asyncio.Lock()
        self._handle: Any = None
        self.generation = 0

    async def ask(self, message: bytes) -> bytes:
        handle = await self.reached()
        try:
            answer: bytes = await asyncio.wait_for(ray_calls.ask(handle.ask, message), QUIET)
        except TimeoutError:
            self._leave(handle, self.generation + 1)
            raise Lost(f"{self.name} said nothing for {QUIET:g} s") from None
        except RayActorError as error:
            self._leave(handle, self.generation + isinstance(error, ActorDiedError))
            raise Lost(f"{self.name} is not there: {type(error).__name__}") from error
        except RayError as error:
            raise Lost(f"{self.name} failed: {error}") from error
        return answer

    @property
    def name(self) -> str:
        """What it is called on Ray."""
        return self._placement.log(self._number, self.generation)

    async def reached(self) -> Any:
        """The actor's handle; one that is not there is made. `Lost` if none can be had."""
        async with self._turn:
            until = asyncio.get_running_loop().time() + _START
            while self._handle is None:
                generation = self.generation
                try:
                    handle = await ray_calls.in_thread(
                        make, self._settings.journal, self._placement, self._number, generation
                    )
                    await asyncio.wait_for(ray_calls.ask(handle.ready), _START if generation else _RESTART)
                    self._handle = handle
                except (RayError, ValueError, TimeoutError) as error:
                    if asyncio.get_running_loop().time() >= until:
                        raise Lost(f"{self.name} cannot be reached: {error!r}", sent=False) from error
                    if isinstance(error, ActorDiedError | TimeoutError):
                        self.generation += 1
                    await asyncio.sleep(_AGAIN)
        return self._handle

    def _leave(self, handle: Any, generation: int) -> None:
        """This one does not answer, so it is asked nothing any more."""
        if self._handle is handle:
            self._handle, self.generation = None, generation


def make(journal: str, placement: Placement, number: int, generation: int = 0) -> Any:
    """A shard log's handle: it is made, unless it is there."""
    options = options_here(placement.namespace, soft=True, stay=placement.stay)
    name = placement.log(number, generation)
    return ray.remote(ShardLogActor).options(name=name, get_if_exists=True, **options).remote(journal)


def end(placement: Placement) -> None:
    """End all shard logs of a party, those that were given up too."""
    prefix = placement.log(0, 0).removesuffix("0:0")
    for listed in ray.util.list_named_actors(all_namespaces=True):
        if listed["namespace"] == placement.namespace and listed["name"].startswith(prefix):
            try:
                ray.kill(ray.get_actor(listed["name"], namespace=placement.namespace))
            except (RayError, ValueError):
                continue


def open_shard_tape(settings: Settings, placement: Placement) -> ShardTape:
    """The journal's tape by way of the party's shard logs."""
    return ShardTape([RayLine(settings, placement, number) for number in range(placement.logs)])
