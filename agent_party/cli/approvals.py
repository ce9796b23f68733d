"""Approvals: showing a person exactly what they sign, and asking them."""

import asyncio
import contextlib
import shlex
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from .filling import LEFT_OUT, Reader, fill_in
from .output import safe
from .plain import iso, opened

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

    title = Text(f"approval {safe(wait.name)!r} shows, and a signature covers:", style="bold")
    return [title, *content(wait.shown), *(safe(line) for line in in_words(of_wait(wait)))]


def of_wait(wait: "WaitState") -> dict[str, Any]:
    """The terms of an approval and who has signed so far, as plain data."""
    from ..actors.approvals import approvals_in, terms_of
    from ..signing import NO_ANSWER, answered_so_far

    terms, answer = terms_of(wait), answered_so_far(wait.signed) if terms_of(wait).form is not None else NO_ANSWER
    return {
        "by": list(terms.by),
        "need": terms.need,
        "apart_from": terms.apart,
        "form": terms.form,
        "expires": iso(terms.expires) if terms.expires else None,
        "escalate": list(terms.escalate),
        "escalates": iso(terms.escalates) if terms.escalates else None,
        "escalated": wait.escalated,
        "signed": [one.person for one in approvals_in(wait.signed)],
        "handed_on": [{"person": one.person, "to": one.to} for one in wait.signed if one.to],
        "answered": None if answer is NO_ANSWER else answer,
    }


def in_words(terms: dict[str, Any]) -> list[str]:
    """The same for people, a line each; nothing where any one person may decide at any time."""
    from ..signing import fields_of

    lines = []
    if terms["by"] or terms["need"] != 1 or terms["apart_from"]:
        who = ", ".join(terms["by"]) or "everybody"
        apart = f", but not {terms['apart_from']}" if terms["apart_from"] else ""
        lines.append(f"may decide: {who}{apart}; needed: {terms['need']}")
    if terms["escalate"]:
        also, when = ", ".join(terms["escalate"]), "by now" if terms["escalated"] else f"from {terms['escalates']} on"
        lines.append(f"{when} also: {also}")
    if terms["expires"]:
        lines.append(f"expires: {terms['expires']}")
    lines += [f"handed on by {one['person']} to {one['to']}" for one in terms["handed_on"]]
    if terms["signed"]:
        answer = f", who answered {terms['answered']}" if terms["answered"] is not None else ""
        lines.append(f"signed so far by {', '.join(terms['signed'])}{answer}")
    if terms["form"] is not None:
        lines.append(f"asks for: {'; '.join(fields_of(terms['form']))}")
    return lines


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


def asks(wait: "WaitState") -> dict[str, Any] | None:
    """The form that is still to be filled in; None where there is none, or somebody has answered it."""
    from ..actors.approvals import approvals_in, terms_of

    return None if approvals_in(wait.signed) else terms_of(wait).form


async def asked(wait: "WaitState", out: "Console", read: Reader = read_line) -> dict[str, Any] | None:
    """What `TaskHandle.approve` is to be given: the answer of the person at the terminal, where one is asked for; None
    if the input ended before."""
    form = asks(wait)
    if form is None:
        return {}
    answer = await fill_in(form, out, read)
    return None if answer is LEFT_OUT else {"answer": answer}


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
        from ..actors.errors import InputError, SettledError, StatementError

        async with self._turn:
            self.before()
            try:
                with contextlib.suppress(SettledError):  # somebody else was faster
                    await self._put(number, wait)
            except (StatementError, InputError) as error:
                self._out.print(safe(f"not signed: {error}: party task approve {self._task.id}"))
            finally:
                self.after()

    async def _put(self, number: int, wait: "WaitState") -> None:
        task, wait = self._task, msgspec.structs.replace(wait)  # as it is shown now, while the task goes on
        if not self._approve and not self._ask:
            self._out.print(
                f"task {task.id} waits for a person: party task approve {task.id} --name {shlex.quote(safe(wait.name))}"
            )
            return
        if self._ask:
            for part in what_is_signed(wait):
                self._out.print(part, soft_wrap=True)
        decision = True if self._approve else await yes("sign it?", self._out, self._read)
        answer = await asked(wait, self._out, self._read) if decision and self._ask else {}
        if decision is None or answer is None:
            self._out.print(f"not decided: party task approve {task.id}, or reject")
        elif decision:
            await task.approve(wait=number, shown=wait, person=self._person or None, **answer)
        else:
            await task.reject(wait=number, shown=wait, person=self._person or None)
