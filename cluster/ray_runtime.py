"""The Ray runtime: pooled hosts for tasks and entities, a named actor for each agent.

    ray.get_actor("agent:writer", namespace="agent-party").ask.remote("text.write", {"topic": "ravens"})

All hosts run on the driver's node, where its keyring is. An embedded log is one file, so a cluster of several nodes is
refused for it; a log on Kafka may have drivers on many nodes.
"""

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Sequence
from typing import Any

import ray

from ..actors.agent import Agent
from ..actors.errors import RuntimeUnavailableError
from ..eventstore.ambient import readable_id
from . import ray_calls, shard_log
from .host_actor import HostActor
from .pickling import Sent
from .placement import Placement, Remote, options_here
from .settings import Settings, in_a_job

_START, _STOP = 120.0, 30.0
_REACH = 10.0


class RayRuntime(Remote):
    """The driver's side. Hosts end with the driver unless ``stay``; then they are detached and go on."""

    def __init__(self, settings: Settings, placement: Placement, stay: bool) -> None:
        super().__init__(placement)
        self.settings, self.stay = settings, stay
        self._handles: dict[str, Any] = {}
        self._logs: list[Any] = []
        self._connected = False

    @classmethod
    async def start(cls, settings: Settings, agents: Sequence[Agent] = (), *, stay: bool) -> "RayRuntime":
        """Connect to Ray, or start it on this machine; `RuntimeUnavailableError` says what is missing.

        ``agents``: those that will join, of which some may share the pooled hosts.
        """
        connected = await asyncio.to_thread(connect, settings)
        nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        if len(nodes) > 1 and settings.embedded:
            raise RuntimeUnavailableError(
                f"this cluster has {len(nodes)} nodes, and {settings.journal} is a file of one: "
                "use a Kafka journal on several nodes, or a cluster of one node"
            )
        hosts = settings.hosts or max(1, (os.cpu_count() or 2) // 2)
        shared = tuple(sorted(agent.name for agent in agents if not agent.dedicated))
        logs = 0 if settings.embedded else settings.shard_logs
        placement = Placement(settings.name, readable_id(os.urandom(5)), hosts, shared, logs, stay)
        runtime = cls(settings, placement, stay)
        runtime._connected = connected
        return runtime

    async def join(self, agents: Sequence[Agent]) -> None:
        """Start the hosts with the agents' code; returns when all of them run."""
        names = [(self.placement.pooled(index), list(agents), index) for index in range(self.placement.hosts)]
        if self.placement.logs:
            await ray_calls.in_thread(self._create_logs)
        own = dict.fromkeys(agent.name for agent in agents if agent.name not in self.placement.shared)
        names += [(self.placement.dedicated(name), [a for a in agents if a.name == name], -1) for name in own]
        await ray_calls.in_thread(self._create, names)
        try:
            await ray_calls.ask_all([handle.ready for handle in self._handles.values()], _START)
        except (ray.exceptions.RayError, TimeoutError) as error:
            cause = getattr(error, "cause", None) or error
            raise RuntimeUnavailableError(f"the hosts did not start: {cause}") from error

    def _create_logs(self) -> None:
        """Begin the shard logs. They live as long as they are known here, or are detached."""
        journal, place = self.settings.journal, self.placement
        self._logs = [shard_log.make(journal, place, number) for number in range(place.logs)]

    def _create(self, hosts: list[tuple[str, list[Agent], int]]) -> None:
        options = options_here(self.placement.namespace, stay=self.stay)
        actor = ray.remote(HostActor)
        for name, agents, index in hosts:
            with contextlib.suppress(ValueError):
                ray.kill(ray.get_actor(name, namespace=self.placement.namespace))
            self._await_gone(name)
            self._handles[name] = actor.options(name=name, **options).remote(
                self.settings, Sent(agents), self.placement, index
            )

    def _await_gone(self, name: str) -> None:
        """The newest to join runs the agent: wait until Ray has let go of the one before."""
        until = time.monotonic() + _START
        while time.monotonic() < until:
            try:
                ray.get_actor(name, namespace=self.placement.namespace)
            except ValueError:
                return
            ray_calls.go_on()
            time.sleep(0.05)
        raise RuntimeUnavailableError(
            f"{name} of an earlier program does not end within {_START:g} s: end that program and try again"
        )

    async def leave(self) -> None:
        """Passivate the hosts and end them, unless they stay."""
        if self.stay:
            return
        handles, self._handles = list(self._handles.values()), {}
        await ray_calls.end(handles, _STOP)
        if self.placement.logs:
            await ray_calls.in_thread(shard_log.end, self.placement)

    async def close(self) -> None:
        await self.leave()
        if self._connected:
            await ray_calls.leave()


def _reach(address: str) -> None:
    """Fail within seconds where nothing listens; Ray itself would try for minutes."""
    host, found, port = address.removeprefix("ray://").rpartition(":")
    if not found or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH).close()
    except OSError as error:
        raise RuntimeUnavailableError(
            f"nothing answers at {address} ({error.strerror or error}): check RAY_ADDRESS and that the cluster runs, "
            "or use runtime='local'"
        ) from error


def connect(settings: Settings) -> bool:
    """Join the cluster that is set, or start Ray here. False if the program had done so already."""
    if ray.is_initialized():
        return False
    address = settings.ray_address or os.environ.get("RAY_ADDRESS") or None
    if address:
        _reach(address)
    options: dict[str, Any] = {} if address else {"include_dashboard": False, "num_cpus": os.cpu_count()}
    try:
        ray.init(
            address=address or ("auto" if in_a_job() else "local"),
            namespace=settings.name,
            logging_level=logging.ERROR,
            log_to_driver=False,
            **options,
        )
    except (ConnectionError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
        raise RuntimeUnavailableError(
            f"Ray cannot start or be reached at {address or 'this machine'}: {_first_line(error)}: check RAY_ADDRESS, "
            "RAY_AUTH_MODE and its token, or use runtime='local'"
        ) from error
    return True


def _first_line(error: BaseException) -> str:
    """What it says; and what lies behind it, which Ray keeps to itself."""
    said = (str(error) or type(error).__name__).splitlines()[0][:300]
    return f"{said} ({_first_line(error.__cause__)})" if error.__cause__ else said
