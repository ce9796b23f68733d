"""A party: agents, their tasks, and the log they live on."""

import functools
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, overload

from .actors.agent import Agent, capability_of
from .actors.budgets import Budget, bounded
from .actors.budgets import checked as checked_budget
from .actors.decider import Decider
from .actors.dj import DJ
from .actors.doorman import Doorman
from .actors.errors import ConfigurationError, InputError, RuntimeUnavailableError
from .actors.events import Requested, Stated
from .actors.inbox import leave
from .actors.local import LocalRuntime
from .actors.packing import pack_input
from .actors.runtime import Runtime
from .actors.schedules import CAPABILITY, Missed, Overlap, Schedule, checked, schedules
from .actors.team_fork import At, TeamFork
from .actors.versions import newest_first
from .actors.watch import Watch
from .agents import AgentHandle
from .apps import find_app
from .artifacts import ArtifactsHandle
from .cluster.ending import drains_on_sigterm
from .cluster.ray_environment import prepare
from .cluster.settings import Settings, chosen_runtime, load
from .cluster.wiring import Stack, open_stack
from .eventstore.ambient import readable_id
from .graph import PartyGraph
from .handles import EntityHandle, TaskHandle
from .people import PeopleHandle
from .views import ViewsHandle

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S")


class Party:
    """Open it with ``async with Party.open(agents=[...]) as party``."""

    stack: Stack
    runtime: Runtime
    watch: Watch
    doorman: Doorman
    dj: DJ

    def __init__(self, settings: Settings, agents: Sequence[Agent], stay: bool) -> None:
        self.settings, self.agents, self.stay = settings, list(agents), stay
        self._undo: Callable[[], None] = lambda: None
        self._views = ViewsHandle(self)

    @classmethod
    def open(
        cls,
        agents: Sequence[Agent] = (),
        *,
        app: str = "",
        journal: str = "",
        graph: str = "",
        views: str = "",
        blobs: str = "",
        runtime: str = "",
        name: str = "",
        hosts: int = 0,
        person: str = "",
        stay: bool = False,
    ) -> "Party":
        """A party, to be entered with ``async with``. What is not given comes from ``PARTY_*``, then ``party.toml``.

        ``app``: ``module:attribute`` of an agent or a list of them, beside ``agents``. ``stay``: on Ray, what joins
        goes on when this program leaves.
        """
        found = [*agents, *(find_app(app) if app else [])]
        connections = {agent.connection for agent in found if isinstance(agent.connection, str)}
        if not journal and len(connections) == 1:
            journal = connections.pop()
        stores = {"journal": journal, "graph": graph, "views": views, "blobs": blobs}
        return cls(
            load({**stores, "runtime": runtime, "name": name, "hosts": hosts or None, "person": person}), found, stay
        )

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self, *, create: bool = True) -> None:
        """Open the stores, choose the runtime, and let the agents join."""
        names = [(agent.name, agent.version) for agent in self.agents]
        if twice := sorted({f"{name} {version}" for name, version in names if names.count((name, version)) > 1}):
            raise ConfigurationError(f"two agents have the same name and version: {', '.join(twice)}")
        self.agents = newest_first(self.agents)
        self.stack = await self._open_stack(create)
        try:
            self.watch = Watch(self.stack.log)
            self.doorman = Doorman(self.stack.log, self.stack.presence.holder)
            self.dj = DJ(self.stack.registry)
            self.runtime = await self._choose_runtime()
            if self.agents:
                await self.runtime.join(self.agents)
        except BaseException:
            await self.close()
            raise

    async def _open_stack(self, create: bool) -> Stack:
        return await open_stack(self.settings, create=create)

    async def _choose_runtime(self) -> Runtime:
        if chosen_runtime(self.settings) == "local":
            runtime = LocalRuntime(self.stack.host())
            self._undo = drains_on_sigterm(runtime.host)
            return runtime
        prepare(self.settings)
        try:
            from .cluster.ray_runtime import RayRuntime
        except ImportError as error:
            raise RuntimeUnavailableError(
                f"the Ray runtime needs ray, which cannot be imported ({error}): "
                "pip install 'agent-party-runtime[ray]', or use runtime='local'"
            ) from error
        return await RayRuntime.start(self.settings, self.agents, stay=self.stay)

    async def close(self) -> None:
        """Passivate what this party runs and close its stores."""
        runtime: Runtime | None = getattr(self, "runtime", None)  # not there if it could not be started
        try:
            self._undo()
            if runtime:
                await runtime.close()
        finally:
            await self.stack.close()

    @overload
    async def ask(
        self, capability: Callable[Concatenate[Any, P], Awaitable[T]], /, *args: P.args, **given: P.kwargs
    ) -> TaskHandle[T]: ...
    @overload
    async def ask(self, capability: str, /, **given: Any) -> TaskHandle[Any]: ...
    async def ask(self, capability: Any, /, *args: Any, **given: Any) -> TaskHandle[Any]:
        """Ask for work by capability, or by the function that handles it. Returns once the request is on the log."""
        return await self.using().ask(capability, *args, **given)

    def using(
        self, *, request_id: str = "", within: float = 0, agent: str = "", budget: Budget | None = None
    ) -> "Asking":
        """Options for what is asked next. ``request_id``: the same id is the same task, ever. ``within``: seconds.
        ``budget``: what the task and all that it delegates may use, by `Budget.of`."""
        return Asking(self, request_id, within, agent, checked_budget(budget))

    async def schedule(
        self,
        name: str,
        capability: str,
        *,
        cron: str,
        zone: str = "UTC",
        missed: Missed = "skip",
        overlap: Overlap = "wait",
        **given: Any,
    ) -> TaskHandle[None]:
        """Have work done at the times of a cron line, in a time zone, until the schedule's task is cancelled.

        The same name is the same schedule. ``missed``: whether times at which nothing ran are left out, made up for
        once, or each. ``overlap``: whether the next waits for the one before to end. `ConfigurationError` for a line
        that never fires.
        """
        schedule = checked(Schedule(name, capability, cron, zone, missed, overlap, given), self.stack.log.ambient.now())
        asking = self.using(request_id=f"schedule {name}", agent=schedules.name)
        return await asking.ask(CAPABILITY, schedule=schedule)

    async def fork_team(
        self,
        task: str,
        *,
        at: At = None,
        input: Mapping[str, Any] | None = None,  # noqa: A002
        agent: str = "",
        version: str = "",
        models: Mapping[str, str] | None = None,
        request_id: str = "",
    ) -> TeamFork:
        """Fork a task, all that it has delegated, and their agents' memories, as of one moment; see `TaskHandle.fork`.

        ``at``: a revision of the task, or a time; by default now. Nothing is received in the fork's past that was not
        sent in it; if need be, that is a little before the moment. The changes are to the root.
        """
        from .timetravel import changed, fork_whole_team

        change = changed(input, agent, version, models)
        return await fork_whole_team(self, task, at=at, change=change, request_id=request_id)

    def task(self, task: str) -> TaskHandle[Any]:
        """The handle of a task by its id."""
        return TaskHandle(self, task)

    def agent(self, name: str) -> AgentHandle:
        """The handle of an agent by its name."""
        return AgentHandle(self, name)

    def entity(self, decider: type[Decider[S, Any, Any]], name: str) -> EntityHandle[S]:
        """The handle of an entity; it exists as soon as a command is sent to it."""
        return EntityHandle(self, decider, name)

    @property
    def people(self) -> PeopleHandle:
        """Who has which role."""
        return PeopleHandle(self)

    @property
    def artifacts(self) -> ArtifactsHandle:
        """Documents and files beside the log: what people put, and what tasks have kept."""
        return ArtifactsHandle(self)

    @functools.cached_property
    def graph(self) -> PartyGraph:
        """Who did what with what, as of any moment; opened when it is first asked."""
        return PartyGraph(self.stack)

    @property
    def views(self) -> ViewsHandle:
        """What the projections hold: tasks by status, what runs now, sessions, results that expire."""
        return self._views

    async def leave_in_inbox(self, stream: str, stated: Stated) -> None:
        """Append a signed statement to a stream's inbox, for its owner to read."""
        await leave(self.stack.log, self.doorman, stream, stated)


class Asking:
    """A party with options for what is asked."""

    def __init__(self, party: Party, request_id: str, within: float, agent: str, budget: Budget | None = None) -> None:
        if within < 0:
            raise ConfigurationError(f"within must be seconds from now, not {within:g}")
        self._party, self._request_id, self._agent, self._budget = party, request_id, agent, budget
        self._within = bounded(budget, within)

    @overload
    async def ask(
        self, capability: Callable[Concatenate[Any, P], Awaitable[T]], /, *args: P.args, **given: P.kwargs
    ) -> TaskHandle[T]: ...
    @overload
    async def ask(self, capability: str, /, **given: Any) -> TaskHandle[Any]: ...
    async def ask(self, capability: Any, /, *args: Any, **given: Any) -> TaskHandle[Any]:
        """As `Party.ask`."""
        if args:
            raise InputError("give the input by name: ask(write, topic=...), so that it is recorded by name")
        party = self._party
        name = capability_of(capability, party.agents)
        declared = next((a.capabilities[name] for a in party.agents if name in a.capabilities), None)
        if declared:
            declared.arguments(given)
        packed = pack_input(given, f"the input of {name}")
        agent = self._agent or await party.dj.resolve(name)
        who = party.doorman.person_id(party.settings.person or None)
        task = self.task_id()
        requested = Requested(name, packed, agent=agent, by=who, within=self._within, budget=self._budget)
        await party.runtime.place(task, requested)
        return TaskHandle(party, task, declared.output if declared else Any)

    def task_id(self) -> str:
        """The id of the task that is asked for: the same for the same request id, a new one without."""
        log = self._party.stack.log
        if not self._request_id:
            return readable_id(log.ambient.random(10))
        return readable_id(hashlib.sha256(log.identity.log_id + self._request_id.encode()).digest()[:10])
