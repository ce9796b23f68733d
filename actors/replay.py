"""The order of a recorded run: which waits were opened when, and which outcomes the handler had been given by then.

A handler may do several things at once. Its waits are numbered as it opens them, and what it opens next depends on
the outcomes it was given so far; so a second run that is given the same outcomes in the same order, each not before
the waits that preceded it are opened again, opens the same waits under the same numbers.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from .errors import ReplayError
from .events import WaitKind
from .task_state import WaitState

PATIENCE = 30.0
"""Seconds that a replay may stand still before it is given up."""
_TURNS = 50
"""Turns of the loop that it has besides: a loop that was held up has held up the handler too."""


class Replay:
    """Goes over the record once. ``waits``: what was recorded before this run; later ones do not count.

    ``diverge(wait)``: the handler does not ask for this wait; whether the record may be dropped from there on, and was.
    ``patience``: seconds that it may stand still, if not `PATIENCE`.
    """

    def __init__(
        self, waits: Sequence[WaitState], diverge: Callable[[int], bool] = lambda wait: False, patience: float = 0
    ) -> None:
        self._waits, self._diverge, self._patience = list(waits), diverge, patience
        self._order = [item for n, wait in enumerate(waits) for item in (*((t, True) for t in wait.taken), (n, False))]
        self._takes = {wait for wait, taken in self._order if taken}
        self._cursor = self._opened = 0
        self._wanted: set[int] = set()
        self._turns: dict[int, asyncio.Future[bool]] = {}
        self._over = asyncio.Event()
        self.error: ReplayError | None = None
        self._move()

    @property
    def running(self) -> bool:
        """Whether the handler still goes over what was recorded before."""
        return self._cursor < len(self._order)

    @property
    def reached(self) -> int:
        """How many of the recorded waits the handler has asked for again."""
        return self._opened

    @property
    def missing(self) -> str:
        """The first recorded wait that the handler has not asked for again; empty if there is none."""
        if self._opened >= len(self._waits):
            return ""
        wait = self._waits[self._opened]
        return f"wait {self._opened} is recorded as {wait.kind} {wait.name!r}"

    def recorded(self, number: int) -> WaitState | None:
        """What is recorded under a number; None beyond the record's end."""
        return self._waits[number] if number < len(self._waits) else None

    def cut(self, number: int) -> list[int]:
        """The record counts only before this wait. Gives the outcomes taken since the wait before it was opened."""
        at = self._order.index((number, False))
        first = next((n + 1 for n in reversed(range(at)) if not self._order[n][1]), 0)
        taken = [wait for wait, _ in self._order[first : self._cursor]]
        self._takes.difference_update(wait for wait, is_taken in self._order[first:] if is_taken)
        del self._order[first:], self._waits[number:]
        self._cursor = min(self._cursor, first)
        for wait in [wait for wait in self._turns if wait not in self._takes]:
            self._wanted.discard(wait)
            turn = self._turns.pop(wait)
            if not turn.done():
                turn.set_result(False)
        self._move()
        return taken

    def open(self, number: int, kind: WaitKind, name: str, given: bytes) -> WaitState | None:
        """The handler asks for its next wait: the record of it, or None beyond the record's end."""
        if self.error:
            raise self.error
        if number >= len(self._waits):
            return None
        recorded = self._waits[number]
        if (recorded.kind, recorded.name, recorded.input) != (kind, name, given):
            same = " with another input" if (recorded.kind, recorded.name) == (kind, name) else ""
            raise self._fail(f"{self.missing}, and the handler now asks for {kind} {name!r}{same}")
        self._opened = number + 1
        self._move()
        return recorded

    def takes(self, number: int) -> bool:
        """Whether the record says when the handler was given this wait's outcome."""
        return number in self._takes

    async def turn(self, number: int) -> bool:
        """Wait until the handler may be given this wait's outcome; False if the record was cut before that."""
        self._wanted.add(number)
        self._move()
        if self.error:
            raise self.error
        if number in self._wanted:
            turn = self._turns[number] = asyncio.get_running_loop().create_future()
            return await self._patiently(turn)
        return True

    async def over(self) -> None:
        """Wait until all that was recorded has been gone over: only then does anything new begin."""
        while self.running and not self.error:
            before = self._cursor
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._patience or PATIENCE):
                    await self._over.wait()
            await self._see_that_it_moves(before)
        if self.error:
            raise self.error

    def ended(self, how: str) -> None:
        """The handler has ended; `ReplayError` if it has left out what is recorded."""
        if self.error:
            raise self.error
        if self.missing and not self._diverge(self._opened):
            raise self._fail(f"{self.missing}, and the handler now {how} before it")

    def _move(self) -> None:
        while self.running:
            wait, taken = self._order[self._cursor]
            if not (wait in self._wanted if taken else wait < self._opened):
                return
            self._cursor += 1
            if taken:
                self._wanted.discard(wait)
                turn = self._turns.pop(wait, None)
                if turn and not turn.done():
                    turn.set_result(True)
        self._over.set()

    async def _patiently(self, turn: asyncio.Future[bool]) -> bool:
        while not turn.done():
            before = self._cursor
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._patience or PATIENCE):
                    await asyncio.shield(turn)
            await self._see_that_it_moves(before)
        return turn.result()

    async def _see_that_it_moves(self, before: int) -> None:
        for _ in range(_TURNS):
            if self._moves(before):
                return
            await asyncio.sleep(0)
        if not self._moves(before) and not (self.missing and self._diverge(self._opened)):
            self._fail(f"{self.missing or 'an outcome is recorded as taken'}, and the handler does not ask for it")

    def _moves(self, before: int) -> bool:
        return not self.running or self._cursor != before or self.error is not None

    def _fail(self, what: str) -> ReplayError:
        self.error = ReplayError(f"{what}: the code has changed, or does not do the same each time")
        for turn in self._turns.values():
            if not turn.done():
                turn.set_exception(self.error)
                turn.exception()
        self._turns.clear()
        self._over.set()
        return self.error
