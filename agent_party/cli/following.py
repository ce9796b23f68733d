"""Watching a task to its end: progress at a terminal, a few lines where there is none."""

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .approvals import Desk
from .output import console, safe

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from ..actors.task_state import TaskState
    from ..handles import TaskHandle


async def follow(
    task: "TaskHandle[Any]", *, timeout: float | None, quiet: bool, approve: bool, ask: bool, person: str = ""
) -> "TaskState":
    """Watch a task until it has finished; `DeadlineError` after ``timeout`` seconds.

    ``quiet``: show nothing but what a person must do. ``approve``: sign every approval; ``ask``: ask at the terminal.
    """
    out = console(sys.stderr)
    desk = Desk(task, out, approve=approve, ask=ask, person=person)
    state = await task.state()
    try:
        async with asyncio.TaskGroup() as group:
            with _shown(out, quiet, desk) as show:
                async for state in task.watch(timeout=timeout):
                    show(state)
                    desk.look(state, group)
            desk.close()
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    except asyncio.CancelledError:
        out.print(f"task {task.id} is on the log: party task watch {task.id}")
        raise
    return state


@contextlib.contextmanager
def _shown(out: "Console", quiet: bool, desk: Desk) -> "Iterator[Any]":
    if quiet:
        yield lambda state: None
    elif not out.is_terminal:
        yield _Lines(out)
    else:
        with _progress(out) as progress:
            # The bar would write over the question.
            desk.before, desk.after = progress.stop, progress.start
            yield _Bar(progress)


class _Lines:
    """A line whenever the status changes."""

    def __init__(self, out: "Console") -> None:
        self._out, self._last = out, ""

    def __call__(self, state: "TaskState") -> None:
        if state.status != self._last:
            self._last = state.status
            self._out.print(f"{state.status}{_who(state)}")


class _Bar:
    """One bar: the task's own progress where it tells it, else its waits."""

    def __init__(self, progress: "Progress") -> None:
        self._progress, self._bar = progress, progress.add_task("requested", total=None)

    def __call__(self, state: "TaskState") -> None:
        told, settled = state.progress, len(state.waits) - len(state.open)
        done, total = (told.done, told.total or None) if told else (settled, None)
        self._progress.update(self._bar, description=describe(state), completed=done, total=total)


def describe(state: "TaskState") -> str:
    """What a task is doing, in a few words."""
    if state.progress and state.progress.note and state.status == "running":
        return safe(state.progress.note)
    awaited = ", ".join(f"{state.waits[n].kind} {safe(state.waits[n].name)}" for n in sorted(state.open)[:3])
    return f"{state.status}{f': {awaited}' if awaited else _who(state)}"


def _who(state: "TaskState") -> str:
    if state.status == "requested":
        who = f"agent {state.agent}" if state.agent else "an agent"
        return f": waits for {who} with capability {state.capability} to join"
    return f" by {state.agent}" if state.status == "running" else ""


def _progress(out: "Console") -> "Progress":
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

    text = TextColumn("{task.description}", markup=False)
    columns = (SpinnerColumn(), text, BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    return Progress(*columns, console=out, transient=True)
