"""The work that every contestant does, and what it must have recorded afterwards.

A task is a chain of steps: 500 bytes go into a step and 500 come out, which go into the next. Every outcome of every
step of every task is another text, so that a step that is missing, doubled or swapped shows.
"""

from collections import Counter
from collections.abc import Awaitable, Sequence
from contextlib import AbstractAsyncContextManager
from hashlib import shake_128
from pathlib import Path
from typing import Protocol

SIZE = 500
"""Bytes that go into a step, and that come out."""

_executed: list[str] = []


class Contest(Protocol):
    """An opened contestant."""

    def run(self, tasks: Sequence[str], steps: int) -> Awaitable[Sequence[str]]:
        """Run these tasks at once, each of so many steps, to their durable ends. What each came to."""
        ...

    def recorded(self, task: str) -> Awaitable[Sequence[str]]:
        """The outcomes of a task's steps in their order, as they lie in the contestant's own storage."""
        ...


class Opening(Protocol):
    """How a contestant is opened on an empty folder, with one of its settings."""

    def __call__(self, folder: Path, setting: str) -> AbstractAsyncContextManager[Contest]: ...


def text(task: str, number: int) -> str:
    """What the step of this number comes to; of number 0: what goes into the first step."""
    head = f"{task}:{number}:"
    return head + shake_128(head.encode()).hexdigest(SIZE)[: SIZE - len(head)]


def effect(given: str) -> str:
    """The step itself: from the outcome of the step before to its own."""
    task, number, _ = given.split(":", 2)
    made = text(task, int(number) + 1)
    _executed.append(made)
    return made


async def check(contest: Contest, tasks: dict[str, int]) -> int:
    """Every step was executed once, and its outcome is recorded once, and right. How many steps that were."""
    times = Counter(_executed)
    for task, steps in tasks.items():
        right = [text(task, number) for number in range(1, steps + 1)]
        found = list(await contest.recorded(task))
        assert found == right, f"task {task}: {len(found)} of {steps} outcomes are recorded, or they are not the right"
        assert all(times[made] == 1 for made in right), f"task {task}: a step was executed twice, or never"
    assert len(_executed) == sum(tasks.values()), "steps were executed that no task asked for"
    return len(_executed)
