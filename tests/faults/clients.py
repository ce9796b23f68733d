"""A client that appends, reads, takes over and finds out, on streams that others write too; all of it recorded."""

import asyncio
import os
import random
from collections.abc import Callable, Mapping, Sequence

from agent_party.eventstore.errors import (
    ConflictError,
    GrantEndedError,
    StoreError,
    UnknownOutcomeError,
)
from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.log import Log, Writer
from tests.eventstore_kit import notes
from tests.faults.histories import APPEND, READ, RESOLVE, TAKE, Recorder
from tests.faults.linearizable import ACKNOWLEDGED, CONFLICT, ENDED, REFUSED, UNKNOWN

_WINDOW = 20
_PAUSE = 0.05
"""Seconds before a store that failed is asked again."""


class Client:
    """``shared``: streams whose one writer other clients have too. ``taken``: streams that are taken over.

    ``deadlines``: seconds, one of which each append gets.
    """

    def __init__(
        self,
        log: Log,
        recorder: Recorder,
        order: random.Random,
        *,
        shared: Mapping[str, Writer],
        taken: Sequence[str],
        deadlines: Sequence[float] = (2.0, 5.0, 10.0),
    ) -> None:
        self.log, self._recorder, self._order, self._deadlines = log, recorder, order, deadlines
        self._writers, self._taken = dict(shared), list(taken)
        self._streams = [*shared, *taken]
        self._doubts: dict[bytes, tuple[Writer, int]] = {}

    async def work(self, go_on: Callable[[], bool], at_once: int) -> None:
        """Do one thing after another, ``at_once`` at once, for as long as it is told to go on; then resolve all."""

        async def one() -> None:
            while go_on():
                try:
                    await self.turn()
                except StoreError:  # before anything was begun
                    await asyncio.sleep(_PAUSE)

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(one())

    async def turn(self) -> None:
        """One operation, and where its outcome is unknown, what can be found out of it now."""
        stream, chance = self._order.choice(self._streams), self._order.random()
        if self._doubts and chance > 0.9:
            await self._resolve(self._order.choice(list(self._doubts)))
        elif stream not in self._writers or (stream in self._taken and chance < 0.02):
            await self._take(stream)
        elif chance < 0.04:
            await self._read(stream)
        else:
            await self._append(self._writers[stream], back=int(chance < 0.05))

    async def touch(self) -> None:
        """Write on every stream, so that nothing which was sent before can come to stand any more."""
        for stream in self._streams:
            while stream not in self._writers:
                await self._take(stream)
            await self._append(self._writers[stream])

    async def settle(self, seconds: float = 300.0) -> None:
        """Find out what became of every append whose outcome is unknown."""
        async with asyncio.timeout(seconds):
            while self._doubts:
                for commit_id in list(self._doubts):
                    await self._resolve(commit_id, write=True)

    async def _take(self, stream: str) -> None:
        number = self._recorder.begin(stream, TAKE)
        try:
            writer = await Issuer(self.log).writer(stream)
        except (UnknownOutcomeError, StoreError):
            self._recorder.end(number, UNKNOWN)
            await asyncio.sleep(_PAUSE)
        else:
            self._recorder.end(number, ACKNOWLEDGED, writer.grant.hex())
            self._writers[stream] = writer

    async def _append(self, writer: Writer, back: int = 0) -> None:
        expected = max(0, (await self.log.state(writer.stream)).revision - back)
        commit_id, outcome = os.urandom(16), (UNKNOWN, 0, "")
        number = self._recorder.begin(writer.stream, APPEND, writer.grant.hex(), expected, commit_id.hex())
        text = "x" * self._order.choice([10, 100, 400])
        deadline = self._order.choice(self._deadlines)
        try:
            done = await self.log.append(writer, notes(text), expected=expected, commit_id=commit_id, deadline=deadline)
            outcome = (ACKNOWLEDGED, done.revision, done.commit.hex())
        except ConflictError as conflict:
            outcome = (CONFLICT, conflict.current, "")
        except GrantEndedError:
            outcome = (ENDED, 0, "")
            if self._writers.get(writer.stream) == writer:
                del self._writers[writer.stream]
        except UnknownOutcomeError:
            self._doubts[commit_id] = (writer, expected)
        except StoreError:
            outcome = (REFUSED, 0, "")
        self._recorder.end(number, *outcome)
        if outcome[0] in (UNKNOWN, REFUSED):
            await asyncio.sleep(_PAUSE)

    async def _read(self, stream: str) -> None:
        number = self._recorder.begin(stream, READ)
        try:
            await self.log.refresh()
            revision = (await self.log.state(stream)).revision
            first = max(1, revision - self._order.randrange(_WINDOW))
            ids = [commit.id.hex() async for commit in self.log.read(stream, first)]
        except StoreError:
            self._recorder.end(number, UNKNOWN)
            await asyncio.sleep(_PAUSE)
        else:
            self._recorder.end(number, first, ids)

    async def _resolve(self, commit_id: bytes, *, write: bool = False) -> None:
        """Look whether a commit stands, or can never stand. ``write``: if neither can be said, write in its place."""
        writer, expected = self._doubts[commit_id]
        number, stands = self._recorder.begin(writer.stream, RESOLVE, commit_id.hex()), None
        try:
            await self.log.refresh()
            state = await self.log.state(writer.stream)
            if state.revision > expected:
                (there,) = [commit async for commit in self.log.read(writer.stream, expected + 1, expected + 1)]
                stands = there.id == commit_id
            elif writer.grant not in state.grants:
                stands = False
        except StoreError:
            await asyncio.sleep(_PAUSE)
        self._recorder.end(number, UNKNOWN if stands is None else stands)
        if stands is not None:
            self._doubts.pop(commit_id, None)
        elif write:
            await self._append(writer)
