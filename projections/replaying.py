"""Projects dead letters again, and what waits behind them, each stream in its order."""

from collections.abc import Awaitable, Callable
from typing import Generic

from ..eventstore.backends.index_file import Row
from ..eventstore.log import Log
from .errors import SetAsideError
from .sink import Checkpoint, Letter, Projection, R, Sink, W
from .standing import Standing, attempted, letter_of

_WAITS = "Waiting"


class Replaying(Generic[W, R]):
    """``start`` reads what stands, as a worker does before it projects anything."""

    def __init__(
        self,
        log: Log,
        projection: Projection[W, R],
        sink: Sink[W, R],
        standing: Standing[W, R],
        start: Callable[[], Awaitable[Checkpoint]],
    ) -> None:
        self._log, self._projection, self._sink = log, projection, sink
        self._standing, self._start = standing, start

    async def replay(self, stream: str, rows: int) -> dict[str, Letter | None]:
        """See `Worker.replay`; so many ``rows`` at once. Nobody else may use the worker meanwhile."""
        now = await self._start()
        if now.paused:
            raise SetAsideError(f"{self._projection.name} is paused ({now.paused}): resume it first")
        told: dict[str, Letter | None] = {}
        for name in sorted(self._standing.letters):
            if not stream or name == stream:
                now = await self._replay(now, name, rows)
                told[name] = self._standing.letters.get(name)
        return told

    async def _replay(self, now: Checkpoint, stream: str, most: int) -> Checkpoint:
        standing, rows = self._standing, self._log.index.all_rows(stream.encode())
        while letter := standing.letters.get(stream):
            waiting = [row for row in rows if letter.position <= row.position < now.sizes.get(row.part, 0)]
            done = await attempted(self._again(now, stream, waiting[:most], waiting[most:]))
            if isinstance(done, Exception) and most > 1:
                most = 1  # whose fault it is shows one by one
                continue
            if isinstance(done, Exception):
                still = standing.letter(waiting[0], type(done).__name__)
                done = await self._sink.apply(self._projection, now, now.sizes, [], {stream: still})
                if done:
                    standing.letters[stream] = still
                    return standing.own(done) or now
            now = standing.own(done) or await self._start()
        return now

    async def _again(self, now: Checkpoint, stream: str, some: list[Row], rest: list[Row]) -> Checkpoint | None:
        """Project what waits in a stream, or a piece of it; then the letter is of what follows."""
        ahead = self._sink.ahead(self._projection, now)
        for commit in await self._log.commits(some, lenient=True):
            ahead.add(await self._projection.writes(commit, ahead.read))
        still = letter_of(rest[0], _WAITS) if rest else None
        done = await self._sink.apply(self._projection, now, now.sizes, ahead.writes, {stream: still})
        if done and still:
            self._standing.letters[stream] = still
        elif done:
            self._standing.letters.pop(stream, None)
        return done
