"""Which host a cell belongs to, and calling it: names on Ray, so that every process agrees and none is told."""

import asyncio
import hashlib
from typing import Any

import msgspec
import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ..actors.decider import Decider, Reply
from ..actors.errors import DeadlineError, RuntimeUnavailableError
from ..actors.events import Answered, Received, Requested
from ..actors.streaming import Piece
from ..eventstore.verify import Cause
from . import ray_calls
from .pickling import Sent

CALL = 60.0
_AGAIN = 0.2
_ON_THE_WAY = 5.0


def options_here(namespace: str, *, concurrency: int = 1_000, soft: bool = False, stay: bool = False) -> dict[str, Any]:
    """The options of a party's actor: Ray starts it again, on this process's node, where the keyring is, and repeats no
    call. ``soft``: on another node if this one is gone; ``stay``: it goes on without the driver."""
    options: dict[str, Any] = {
        "namespace": namespace,
        "num_cpus": 0,
        "max_restarts": -1,
        "max_task_retries": 0,
        "max_concurrency": concurrency,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=soft),
    }
    return options | ({"lifetime": "detached"} if stay else {})


class Placement(msgspec.Struct, frozen=True):
    """``session`` names the hosts that one open party started; ``hosts``: how many pooled ones there are; ``shared``:
    the agents that have no actor of their own; ``logs``: how many shard logs the hosts share, 0 if each has a client of
    its own; ``stay``: whether all of them go on without the driver."""

    namespace: str
    session: str
    hosts: int
    shared: tuple[str, ...] = ()
    logs: int = 0
    stay: bool = False

    def index_of(self, key: str) -> int:
        """The pooled host of a task's id or an entity's stream."""
        return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4]) % self.hosts

    def pooled(self, index: int) -> str:
        """The actor name of a pooled host."""
        return f"host:{self.session}:{index}"

    def host_of(self, key: str) -> str:
        """The actor name of the pooled host of a task or an entity."""
        return self.pooled(self.index_of(key))

    def agent(self, name: str) -> str:
        """The actor that owns an agent's stream: its own, or one of the pooled hosts."""
        return self.host_of(f"agent/{name}") if name in self.shared else self.dedicated(name)

    def dedicated(self, name: str) -> str:
        """The name of an agent's own actor."""
        return f"agent:{name}"

    def log(self, number: int, generation: int) -> str:
        """The actor name of a shard log; ``generation``: how many of the same lanes were given up before it."""
        return f"log:{self.session}:{number}:{generation}"

    async def call(self, actor: str, method: str, *arguments: Any, deadline: float = CALL) -> Any:
        """Call a host; while it restarts, resolve it again and send the same again until the deadline (seconds)."""
        loop = asyncio.get_running_loop()
        until = loop.time() + deadline
        while True:
            try:
                handle = await ray_calls.in_thread(ray.get_actor, actor, namespace=self.namespace)
                called = ray_calls.ask(getattr(handle, method), *arguments)
                del handle
                return await asyncio.wait_for(called, until - loop.time())
            except RayTaskError as error:
                raise error.cause from error
            except TimeoutError:
                raise DeadlineError(
                    f"{actor} did not answer within {deadline:g} s: ask again with the same id"
                ) from None
            except (ActorDiedError, ActorUnavailableError, ValueError) as error:
                if loop.time() + _AGAIN >= until:
                    raise RuntimeUnavailableError(f"{actor} is not there: {type(error).__name__}: {error}") from error
                await asyncio.sleep(_AGAIN)


class Remote:
    """The part of the runtime's contract that is the same wherever it is called from: ask the host where it lives."""

    def __init__(self, placement: Placement) -> None:
        self.placement = placement

    async def place(self, task: str, requested: Requested, cause: Cause | None = None) -> None:
        await self.placement.call(self.placement.host_of(task), "place", task, requested, cause)

    async def cancel(self, task: str, by: str, reason: str) -> None:
        await self.placement.call(self.placement.host_of(task), "cancel", task, by, reason)

    async def deliver(self, task: str, message: Received, deadline: float) -> Answered | None:
        arguments = (task, message, deadline)
        answered: Answered | None = await self.placement.call(
            self.placement.host_of(task), "deliver", *arguments, deadline=deadline + _ON_THE_WAY
        )
        return answered

    async def query(self, task: str, name: str, given: bytes, deadline: float) -> bytes:
        arguments = (task, name, given, deadline)
        answer: bytes = await self.placement.call(
            self.placement.host_of(task), "query", *arguments, deadline=deadline + _ON_THE_WAY
        )
        return answer

    async def stream_since(self, task: str, cursor: int | None) -> tuple[list[Piece], int]:
        found: tuple[list[Piece], int] = await self.placement.call(
            self.placement.host_of(task), "stream_since", task, cursor
        )
        return found

    async def send(
        self, decider: type[Decider[Any, Any, Any]], name: str, command: Any, command_id: bytes, deadline: float
    ) -> Reply[Any]:
        host = self.placement.host_of(f"{decider.kind}/{name}")
        arguments = (Sent(decider), name, Sent(command), command_id, deadline)
        reply: Reply[Any] = await self.placement.call(host, "send", *arguments, deadline=deadline + _ON_THE_WAY)
        return reply

    async def recall(self, agent: str, key: str) -> bytes | None:
        found: bytes | None = await self.placement.call(self.placement.agent(agent), "recall", agent, key)
        return found

    async def remember(self, agent: str, key: str, value: bytes, command_id: bytes) -> None:
        await self.placement.call(self.placement.agent(agent), "remember", agent, key, value, command_id)
