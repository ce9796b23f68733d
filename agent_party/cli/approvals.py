"""Approvals: showing a person exactly what they sign, and asking them."""

import asyncio
import contextlib
import shlex
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from .output import safe
from .plain import opened

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from ..actors.task_state import TaskState, WaitState
    from ..handles import TaskHandle


def open_approvals(state: "TaskState") -> list[int]:
    """The numbers of the waits that a person must decide."""
    return [number for number in sorted(state.open) if state.waits[number].asks_a_person]


def what_is_signed(wait: "WaitState") -> "list[RenderableType]":
    """The content of an approval, for a terminal: text as it is, anything else as JSON."""
    from rich.text import Text

    return [Text(f"approval {safe(wait.name)!r} shows, and a signature covers:", style="bold"), *content(wait.input)]


def content(packed: bytes) -> "list[RenderableType]":
    """A packed value for a terminal."""
    return readable(opened(packed))


def readable(value: Any) -> "list[RenderableType]":
    """A plain value for a terminal: text as it is, anything else as JSON."""
    from rich.text import Text

    if isinstance(value, str):
        return [Text(safe(value))]
    return [Text(safe(msgspec.json.format(msgspec.json.encode(value), indent=2).decode()))]


def at_a_terminal() -> bool:
    """Whether there is somebody to ask."""
    return sys.stdin.isatty() and sys.stderr.isatty()


async def read_line() -> str:
    """One line from standard input, while everything else goes on; "" at its end."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ready.set)
    try:
        await ready.wait()
        return sys.stdin.readline()
    finally:
        loop.remove_reader(sys.stdin.fileno())


Reader = Callable[[], Any]


async def yes(question: str, out: "Console", read: Reader = read_line) -> bool | None:
    """A person's answer; None if there is none, because the input ended."""
    while True:
        out.print(f"{question} [y/n] ", end="", style="bold")
        answer = await read()
        if not answer:
            return None
        match answer.strip().lower():
            case "y" | "yes":
                return True
            case "n" | "no":
                return False


class Desk:
    """Takes a task's approvals to the person at this terminal, one at a time, or approves them where told so."""

    def __init__(
        self,
        task: "TaskHandle[Any]",
        out: "Console",
        *,
        approve: bool,
        ask: bool,
        person: str,
        read: Reader = read_line,
    ) -> None:
        self._task, self._out, self._approve, self._ask, self._person = task, out, approve, ask, person
        self._read, self._turn = read, asyncio.Lock()
        self._asking: dict[int, asyncio.Task[None]] = {}
        self.before: Callable[[], None] = lambda: None
        self.after: Callable[[], None] = lambda: None

    def look(self, state: "TaskState", group: asyncio.TaskGroup) -> None:
        """See to approvals that have opened since the last look, and stop asking for those that others decided."""
        waiting = open_approvals(state)
        for number, asking in self._asking.items():
            if number not in waiting:
                asking.cancel()
        for number in waiting:
            if number not in self._asking:
                self._asking[number] = group.create_task(self._decide(number, state.waits[number]))

    def close(self) -> None:
        """Stop asking."""
        for asking in self._asking.values():
            asking.cancel()

    async def _decide(self, number: int, wait: "WaitState") -> None:
        from ..actors.errors import SettledError

        async with self._turn:
            self.before()
            try:
                with contextlib.suppress(SettledError):  # somebody else was faster
                    await self._put(number, wait)
            finally:
                self.after()

    async def _put(self, number: int, wait: "WaitState") -> None:
        task = self._task
        if not self._approve and not self._ask:
            self._out.print(
                f"task {task.id} waits for a person: party task approve {task.id} --name {shlex.quote(safe(wait.name))}"
            )
            return
        if self._ask:
            for part in what_is_signed(wait):
                self._out.print(part, soft_wrap=True)
        decision = True if self._approve else await yes("sign it?", self._out, self._read)
        if decision is None:
            self._out.print(f"not decided: party task approve {task.id}, or reject")
        elif decision:
            await task.approve(wait=number, person=self._person or None)
        else:
            await task.reject(wait=number, person=self._person or None)
