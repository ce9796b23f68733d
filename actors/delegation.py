"""Delegating: one task has another done, under its supervision."""

import hashlib
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from ..eventstore.ambient import readable_id
from ..eventstore.verify import Cause
from .agent import Handler
from .budgets import Budget, checked
from .errors import ConfigurationError, CycleError, TaskCancelledError, TaskFailedError
from .events import Failure, Parent, Requested, Settled
from .packing import pack, pack_input, unpack
from .task_state import WaitState

if TYPE_CHECKING:
    from .cell import TaskCell
    from .task import Task

OnFailure = Literal["raise", "ignore"]
DETACHED = b"detached"
"""The terms of a wait whose child goes on when its parent ends."""
DEPTH = 64
"""How many levels deep work may be delegated."""


def child_id(task: str, wait: int, begun: int = 0) -> str:
    """The id of the child that a wait opens: the same each time, so that it starts once."""
    again = f"\0{begun}" if begun else ""
    return readable_id(hashlib.sha256(f"agent-party child\0{task}\0{wait}{again}".encode()).digest()[:10])


def link(capability: str, given: bytes) -> bytes:
    """How a request stands in the chain of those that were delegated from it."""
    return hashlib.sha256(capability.encode() + b"\0" + given).digest()[:8]


class Delegation:
    """How work is delegated. ``agent``: to whom; ``within``: seconds the child has; ``detached``: the child goes on
    when this task ends; ``restarts``: how often a child that fails is followed by another; ``on_failure``: what a
    child's failure does at last: it is raised here, or ignored (the result is None); ``budget``: its share of the
    task's budget. Without a share a child gets all that is left, or an equal part of it where several are asked at the
    same moment; the same goes for each unit that its share does not limit. A restarted child gets its share anew."""

    def __init__(
        self,
        task: "Task",
        cell: "TaskCell",
        *,
        agent: str = "",
        within: float = 0,
        detached: bool = False,
        restarts: int = 0,
        on_failure: OnFailure = "raise",
        budget: Budget | None = None,
    ) -> None:
        if within < 0 or restarts < 0:
            raise ConfigurationError("within must be seconds from now, and restarts 0 or more")
        self._task, self._cell = task, cell
        self._agent, self._within, self._detached = agent, within, detached
        self._restarts, self._on_failure = restarts, on_failure
        self._budget = checked(budget)

    async def ask(self, capability: str | Handler, /, **given: Any) -> Any:
        """As `Task.ask`."""
        name = self._cell.capability_of(capability)
        packed = pack_input(given, f"the input of {name}")
        chain = (*self._cell.state.chain, link(self._cell.state.capability, self._cell.state.input))
        if link(name, packed) in chain:
            raise CycleError(
                f"task {self._task.id} cannot ask for {name} with this input: it is part of doing just that"
            )
        if len(chain) >= DEPTH:
            raise CycleError(f"task {self._task.id} cannot ask for {name}: it is delegated {DEPTH} levels deep already")
        for left in range(self._restarts, -1, -1):
            settled = await self._once(name, packed, chain)
            if settled.failure is None:
                return unpack(settled.value, self._cell.output_of(name))
            if left == 0 or settled.failure.kind == "TaskCancelledError":
                return self._failed(settled.wait, settled.failure)
        return None

    async def start(self, capability: str | Handler, /, **given: Any) -> str:
        """Have work done and do not wait for it: the id of a task that goes on when this one ends."""
        name = self._cell.capability_of(capability)
        packed = pack_input(given, f"the input of {name}")

        async def run(wait: int, opened: WaitState) -> Settled:
            requested = Requested(name, packed, self._agent, Parent(self._task.id, wait), self._cell.state.by)
            team = self._cell.state.team
            budget, within = self._cell.spending.given(wait, self._budget, self._within)
            requested = msgspec.structs.replace(requested, within=within, detached=True, team=team, budget=budget)
            child = await self._cell.work.start(wait, requested, opened)
            return Settled(wait, pack(child, "a task's id"))

        plan = self._cell.spending.child(name, self._budget, self._within)
        if plan and plan.claim.rest:
            raise ConfigurationError(
                f"task {self._task.id} cannot start {name} without a share of each unit of its budget: what is not "
                "awaited keeps its share, so say how much that is, by using(budget=...)"
            )
        settled = await self._task.wait_for("step", f"start {name}", packed, run, plan=plan)
        return str(msgspec.msgpack.decode(settled.value))

    async def _once(self, name: str, packed: bytes, chain: tuple[bytes, ...]) -> Settled:
        async def run(wait: int, opened: WaitState) -> Settled:
            budget, within = self._cell.spending.given(wait, self._budget, self._within)
            requested = Requested(
                name,
                opened.input,
                agent=self._agent,
                parent=Parent(self._task.id, wait),
                by=self._cell.state.by,
                within=within,
                budget=budget,
                models=self._cell.state.models,
                detached=self._detached,
                chain=chain,
                team=self._cell.state.team,
            )
            return await self._cell.work.child(wait, requested, opened)

        terms = DETACHED if self._detached else b""
        plan = self._cell.spending.child(name, self._budget, self._within)
        return await self._task.wait_for("child", name, packed, run, terms=terms, plan=plan)

    def _failed(self, wait: int, failure: Failure) -> None:
        if self._on_failure == "ignore":
            return
        error = TaskCancelledError if failure.kind == "TaskCancelledError" else TaskFailedError
        raise error(child_id(self._task.id, wait, self._cell.state.begun), failure.message)


def cause_of(stream: str, opened: WaitState) -> Cause:
    """The event that opened a wait, as the cause of what follows from it."""
    return Cause(stream.encode(), opened.revision, opened.index, opened.opened)
