"""Pieces of text on their way to those who watch: held for a while in memory, never recorded.

Each task has one short run of the latest pieces, and whoever watches has a place in it. So a slow watcher costs nothing
and loses the oldest pieces, which it is told; one that comes late begins with the calls that still run.
"""

import asyncio
import itertools
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from typing import Literal

import msgspec

from .errors import MailboxFullError

TASKS = 1_000
"""Of how many tasks a host holds pieces; then those go that were silent the longest and that nobody follows."""
PIECES = 4_096
LETTERS = 65_536
"""How much a task's run of pieces holds."""
FOLLOWERS = 1_000
"""How many may follow at once; no more than there are `TASKS`, so that none of theirs has to go."""
STEPS = 256
"""Of how many running steps of a task it is known what they said first."""
Mark = Literal["", "again", "lost", "end"]


class Piece(msgspec.Struct, frozen=True, omit_defaults=True):
    """A piece of what the step of a wait says. ``mark``: the step begins ``again`` and what it said is void; pieces
    were ``lost`` on the way to this watcher; the step came to its ``end``. ``number`` rises."""

    number: int
    wait: int
    text: str = ""
    mark: Mark = ""


class _Run:
    """The latest pieces of one task."""

    def __init__(self, dropped: int) -> None:
        self.pieces: deque[Piece] = deque()
        self.letters = 0
        self.dropped = dropped
        self.attempts: dict[int, int] = {}
        self.followers = 0
        self.closed = False
        self.changed = asyncio.Event()

    def add(self, piece: Piece) -> None:
        self.pieces.append(piece)
        self.letters += len(piece.text)
        while len(self.pieces) > PIECES or self.letters > LETTERS:
            old = self.pieces.popleft()
            self.letters -= len(old.text)
            self.dropped = old.number
        self.wake()

    def wake(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class Streams:
    """The pieces of a host's tasks. To be used in the host's loop only; everything is kept within the limits above."""

    def __init__(self) -> None:
        self._runs: OrderedDict[str, _Run] = OrderedDict()
        self._numbers = itertools.count(1)
        self._last = self._evicted = self._followers = 0

    def publish(self, task: str, wait: int, text: str, attempt: int = 1) -> None:
        """Show a piece of what a wait's step says. A later attempt than before begins it again."""
        run = self._run(task)
        before = run.attempts.get(wait)
        if before is not None and attempt > before:
            self._add(run, wait, mark="again")
        if before is None or attempt >= before:
            run.attempts[wait] = attempt
            if len(run.attempts) > STEPS:
                del run.attempts[next(iter(run.attempts))]
            if text:
                self._add(run, wait, text[-LETTERS:])

    def end(self, task: str, wait: int) -> None:
        """The step of a wait has ended: who comes from now on is not shown it."""
        run = self._runs.get(task)
        if run and run.attempts.pop(wait, None) is not None:
            self._add(run, wait, mark="end")

    def close(self, task: str) -> None:
        """The task runs here no more: who follows it comes to the end."""
        run = self._runs.get(task)
        if run:
            run.closed = True
            run.attempts.clear()
            run.wake()

    def since(self, task: str, cursor: int | None = None) -> tuple[list[Piece], int]:
        """The pieces after a cursor, and the cursor to ask with next; without one, those of the calls that run."""
        run = self._runs.get(task)
        if run is None:
            return [], self._last
        if cursor is None or cursor > self._last:
            return [piece for piece in run.pieces if piece.wait in run.attempts], self._last
        found = list(itertools.takewhile(lambda piece: piece.number > cursor, reversed(run.pieces)))[::-1]
        if cursor < run.dropped:
            wait = found[0].wait if found else 0
            found.insert(0, Piece(run.dropped, wait, mark="lost"))
        return found, self._last

    async def follow(self, task: str) -> AsyncIterator[Piece]:
        """The pieces of the calls that run, then all that come, until the task runs here no more.

        It waits for a task that does not run here yet, or any more: whether it ever will is not known here.
        """
        if self._followers >= FOLLOWERS:
            raise MailboxFullError(f"{FOLLOWERS:,} watchers follow tasks of this host already: try again later")
        run = self._run(task)
        run.followers += 1
        self._followers += 1
        try:
            cursor: int | None = None
            while True:
                pieces, cursor = self.since(task, cursor)
                for piece in pieces:
                    yield piece
                if self._last > cursor and run.pieces and run.pieces[-1].number > cursor:
                    continue
                if run.closed:
                    return
                await run.changed.wait()
        finally:
            run.followers -= 1
            self._followers -= 1

    def _add(self, run: _Run, wait: int, text: str = "", mark: Mark = "") -> None:
        self._last = next(self._numbers)
        run.add(Piece(self._last, wait, text, mark))

    def _run(self, task: str) -> _Run:
        run = self._runs.get(task)
        if run is None:
            run = self._runs[task] = _Run(self._evicted)
            self._make_room()
        run.closed = False
        self._runs.move_to_end(task)
        return run

    def _make_room(self) -> None:
        while len(self._runs) > TASKS:
            free = next((task for task, run in self._runs.items() if not run.followers), None)
            if free is None:
                return
            gone = self._runs.pop(free)
            self._evicted = max(self._evicted, gone.pieces[-1].number if gone.pieces else gone.dropped)
