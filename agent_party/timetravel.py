"""Going on from the past, and going over it again: forks of tasks and teams, and debugging from a file.

import pdb
from agent_party.timetravel import debug

told = debug("failed.party", agents)          # nothing is called, nothing is written
pdb.post_mortem(told.error.__traceback__)     # where the handler failed, with its local variables
"""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .actors.agent import Agent
from .actors.bundle import Bundle
from .actors.errors import InputError
from .actors.fork import Change, fork, requested_of
from .actors.past import LogPast, Past, as_it_was, recorded
from .actors.rehearsal import Rehearsed, rehearse
from .actors.team_fork import At, TeamFork, fork_team
from .actors.versions import newest_first
from .handles import TaskHandle

if TYPE_CHECKING:
    from .party import Party


def changed(
    given: Mapping[str, Any] | None = None, agent: str = "", version: str = "", models: Mapping[str, str] | None = None
) -> Change:
    """What a fork does otherwise; see `TaskHandle.fork`."""
    return Change(dict(given or {}), agent, version, dict(models or {}))


async def fork_task(
    party: "Party", task: str, *, at: int | None, change: Change, request_id: str = "", past: Past | None = None
) -> TaskHandle[Any]:
    """Fork a task of the party's log, or of another past such as a `Bundle`, and have it go on."""
    before = await recorded(past or LogPast(party.stack.log), task, at)
    _fits(party, before.state.capability, before.state.input, change)
    new, by = party.using(request_id=request_id).task_id(), party.doorman.person(party.settings.person or None)[0]
    log = party.stack.log
    requested = await fork(log, party.doorman, past or LogPast(log), before, task=new, by=by, change=change)
    await party.runtime.place(new, requested)
    return TaskHandle(party, new)


async def fork_whole_team(
    party: "Party", task: str, *, at: At, change: Change, request_id: str = "", past: Past | None = None
) -> TeamFork:
    """The same for a task with all that it has delegated and their agents' memories."""
    log, past = party.stack.log, past or LogPast(party.stack.log)
    new, by = party.using(request_id=request_id).task_id(), party.doorman.person(party.settings.person or None)[0]
    forked = await fork_team(log, party.doorman, past, task, task=new, at=at, by=by, change=change)
    for member in forked.members.values():
        await party.runtime.place(member, await requested_of(log, member))
    return forked


def _fits(party: "Party", capability: str, given: bytes, change: Change) -> None:
    from .actors.past import input_of

    declared = next((a.capabilities[capability] for a in party.agents if capability in a.capabilities), None)
    if declared and change.input:
        declared.arguments({**input_of(given), **change.input})


def debug(
    file: str | Path,
    agents: Sequence[Agent],
    *,
    task: str = "",
    at: int | None = None,
    wait: int | None = None,
    root: bytes = b"",
) -> Rehearsed:
    """Go over a task of an exported file with the code that is here: no effect is run, and nothing is written.

    ``at``: only what was recorded by this revision; ``wait``: only until this wait is asked for; ``root``: the key of
    the log that the file must be of. Breakpoints in the handler work as ever.
    """
    bundle = Bundle.read(Path(file), root)
    return asyncio.run(rehearsed(bundle, task or bundle.task, agents, at=at, wait=wait))


async def rehearsed(
    past: Past, task: str, agents: Sequence[Agent], *, at: int | None = None, wait: int | None = None
) -> Rehearsed:
    """The same within a running loop, of any past."""
    before = await recorded(past, task, at)
    if wait is not None:
        if not 0 <= wait < len(before.state.waits):
            raise InputError(f"task {task} has no wait {wait}: it has {len(before.state.waits)}")
        before = until(before, wait)
    return await rehearse(before, newest_first(agents), past)


def until(before: Any, wait: int) -> Any:
    """What was recorded before a wait came to anything."""
    state = before.state
    del state.waits[wait + 1 :]
    state.waits[wait].settled = None
    state.open = {number for number in state.open if number < wait} | {wait}
    return before._replace(ending=None)


__all__ = ["as_it_was", "changed", "debug", "fork_task", "fork_whole_team", "rehearsed"]
