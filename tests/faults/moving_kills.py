"""Movers of a log that are killed, in both directions, and what must stand after each kill and in the end.

After each kill just one of these is so: the source answers, with all there was; or it says where the log went, and
the target is refused as long as it is not whole. Never do both answer. Called again, the move goes on. What another
process that had the source open was told is on its log, is there in the end. Every tree, the checkpoint and the
export are the same on both sides, byte by byte.
"""

import asyncio
import contextlib
import hashlib
import multiprocessing
import os
import random
import secrets
import shutil
import signal
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from agent_party.actors.errors import ConfigurationError
from agent_party.actors.events import CORE, Progressed
from agent_party.cluster import moving as carrying
from agent_party.cluster.moving import move_log
from agent_party.cluster.settings import Settings, load
from agent_party.cluster.stores import open_blobs, open_tape
from agent_party.cluster.wiring import Stack, open_stack
from agent_party.eventstore import lanes, moving
from agent_party.eventstore.codec import Codec
from agent_party.eventstore.errors import GrantEndedError, LogMovedError, LogRolledBack, WrongLogError
from agent_party.eventstore.export import export
from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.keyring import Keyring
from agent_party.eventstore.log import Log
from agent_party.eventstore.moves import Movable
from tests.eventstore_kit import until

PATIENCE = 300.0
LAG = 0.3
"""Seconds for which a broker may not know yet what was there: there is one here, and it does."""
STREAMS, REVISIONS = 8, 10
_AT = ("copied", "mark", "marked", "compared")
"""Where a mover says that it is: records copied, before the mark, behind it, before the keyring remembers."""
NOTE = Progressed(1, 2, "x" * 40)
Seen = tuple[dict[int, tuple[int, bytes]], str, str]


class Told(NamedTuple):
    """A commit that was acknowledged."""

    stream: str
    revision: int
    commit: bytes


class Home:
    """One party's folder and keyring, and the journals that its log goes through."""

    def __init__(self, folder: Path, kafka: str) -> None:
        self.folder = folder
        self.journals = [
            f"sqlite:///{folder}/first/log.db",
            f"kafka://{kafka}/kills-{secrets.token_hex(6)}?partitions=3",
            f"sqlite:///{folder}/second/log.db",
        ]

    def at(self, journal: str) -> Settings:
        """The settings with the log there."""
        given = {"journal": journal, "state": str(self.folder / "state"), "home": str(self.folder), "runtime": "local"}
        return load({**given, "blobs": f"file:///{self.folder}/blobs"}, {}, self.folder)

    async def open(self, journal: str, *, create: bool = False) -> Stack:
        """The party's stores, as a process of another machine opens them: nobody here is told of it."""
        stack = await open_stack(self.at(journal), create=create)
        stack.presence.close()
        return stack


def carry(pipe: Connection, folder: Path, source: str, target: str, kafka: str, batch: int, stays: bool) -> None:
    """A process that moves a log, and says how far it is. ``stays``: it does not end by itself."""
    moving.BATCH, lanes.LAG = batch, LAG
    home = Home(folder, kafka)

    async def run() -> None:
        move_pin = Keyring.move_pin

        def saying(tape: Any) -> Any:
            real = tape.mark_moved

            async def mark_moved(*given: Any) -> None:
                pipe.send("mark")
                await real(*given)
                pipe.send("marked")

            tape.mark_moved = mark_moved
            return tape

        def pinning(keyring: Keyring, *given: Any) -> None:
            pipe.send("compared")
            move_pin(keyring, *given)

        carrying.open_tape = lambda settings: saying(open_tape(settings))  # type: ignore[attr-defined]
        Keyring.move_pin = pinning  # type: ignore[method-assign, assignment]
        pipe.send("copied")
        await move_log(home.at(source), home.at(target), progress=lambda said, *_: pipe.send(said))
        if stays:
            await asyncio.Event().wait()
        pipe.send("done")

    try:
        asyncio.run(run())
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")
        raise


class Killing:
    """One log on its way to Kafka and back. ``writing``: another process has the source open, and writes to it."""

    def __init__(self, folder: Path, kafka: str, seed: int, *, writing: bool) -> None:
        self.home, self.kafka, self.random, self.writing = Home(folder, kafka), kafka, random.Random(seed), writing
        self.told: list[Told] = []
        self.counts: Counter[str] = Counter()
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__, "aiokafka"])

    async def whole(self, kills: int) -> Counter[str]:
        """There and back, with so many kills on each way; what happened, counted."""
        first, there, back = self.home.journals
        before = await self._found(first)
        for source, target in ((first, there), (there, back)):
            await self._way(source, target, kills)
        after = await self._seen(back)
        for part, (size, root) in before[0].items():
            assert after[0][part][0] >= size
            assert await self._root(back, part, size) == root, "another history"
        if not self.told[STREAMS * REVISIONS :]:
            assert after == before
            self.counts["the same, byte by byte"] += 1
        await self._holds_all(back)
        return self.counts

    async def _found(self, journal: str) -> Seen:
        stack = await self.home.open(journal, create=True)
        try:
            issuer = Issuer(stack.log)
            writers = [await issuer.writer(f"task/{n}") for n in range(STREAMS)]
            for revision in range(REVISIONS):
                for writer in writers:
                    done = await stack.log.append(writer, [NOTE], expected=revision)
                    self.told.append(Told(writer.stream, done.revision, done.commit))
        finally:
            await stack.close()
        return await self._seen(journal)

    async def _way(self, source: str, target: str, kills: int) -> None:
        before = self.counts["acknowledged beside a mover"]
        writer = asyncio.create_task(self._write(await self.home.open(source))) if self.writing else None
        try:
            if writer:
                await until(lambda: writer.done() or self.counts["acknowledged beside a mover"] > before, "it writes")
            await self._kill(source, target, "copied")  # which it says first, whatever there is left to do
            while (kills := kills - 1) > 0 and await self._kill(source, target, self.random.choice(_AT)):
                pass
            said = await self._carry(source, target, "", 0)
            assert said[-1] == "done", said
        finally:
            if writer:
                writer.cancel()
                await asyncio.wait([writer])
                if not writer.cancelled():
                    writer.result()
        assert await self._answers(source) == "moved"
        assert await self._answers(target) == "answers"
        left, came = await self._left(source), await self._seen(target)
        for part, (size, root) in left[0].items():
            assert await self._root(target, part, size) == root
        if left[0] == came[0]:
            assert left == came
        self.counts["ways"] += 1
        await self._holds_all(target)

    async def _kill(self, source: str, target: str, where: str) -> bool:
        """Let a mover begin, kill it somewhere, and look at what it left. False if it was done before that."""
        delay = self.random.random() ** 2 * (0.1 if where != _AT[0] else 0.01)
        said = await self._carry(source, target, where, delay)
        if said[-1] == "done":
            self.counts["done before the kill"] += 1
            return False
        assert ":" not in said[-1], said
        self.counts[f"killed: {said[-1]}"] += 1
        here, there = await self._answers(source), await self._answers(target)
        self.counts[f"source {here}, target {there}"] += 1
        assert (here, there) in {("answers", "refused"), ("moved", "refused"), ("moved", "answers")}, (here, there)
        if there == "answers" and self.writing and self.random.random() < 0.5:
            await self._once(target)
        return True

    async def _carry(self, source: str, target: str, where: str, delay: float) -> list[str]:
        """Run a mover; kill it so many seconds after it said where it is, if it is to be. What it said."""
        ours, theirs = self._context.Pipe(duplex=False)
        batch = self.random.choice([1, 2, 8])
        mover = self._context.Process(
            target=carry,
            args=(theirs, self.home.folder, source, target, self.kafka, batch, where == _AT[0]),
            daemon=True,
        )
        mover.start()
        theirs.close()
        said: list[str] = []
        until, due = time.monotonic() + PATIENCE, None
        try:
            while time.monotonic() < until:
                while ours.poll():
                    said.append(ours.recv())
                    if said[-1] == where and due is None:
                        due = time.monotonic() + delay
                if due and time.monotonic() >= due and mover.pid and mover.is_alive():
                    os.kill(mover.pid, signal.SIGKILL)
                    due = None
                await asyncio.sleep(0.002)
        except EOFError:  # it has ended, or was killed
            pass
        finally:
            if mover.is_alive() and time.monotonic() >= until:
                mover.kill()
            await asyncio.to_thread(mover.join, PATIENCE)
            ours.close()
        assert mover.exitcode is not None, "the mover does not end"
        return said or ["nothing yet"]

    async def _answers(self, journal: str) -> str:
        """Whether a log answers there, with all that anybody was told before; who opens it is told why if not."""
        told = list(self.told)
        try:
            stack = await self.home.open(journal)
        except LogMovedError:
            return "moved"
        except LogRolledBack:
            return "refused"
        except (ConfigurationError, WrongLogError) as error:
            return "refused" if "there is no log" in str(error) else str(error)  # nothing was copied yet
        try:
            await _holds(stack.log, told)
        finally:
            await stack.close()
        return "answers"

    async def _write(self, stack: Stack) -> None:
        """Append, a little at a time, until the log says that it has gone."""
        try:
            writer = await Issuer(stack.log).writer(f"task/w{len(self.told)}")
            revision = 0
            while True:
                done = await stack.log.append(writer, [NOTE], expected=revision)
                self.told.append(Told(writer.stream, revision := done.revision, done.commit))
                self.counts["acknowledged beside a mover"] += 1
                await asyncio.sleep(0.02)
        except LogMovedError:
            self.counts["writers told"] += 1
        finally:
            with contextlib.suppress(LogMovedError, GrantEndedError):
                await stack.close()

    async def _once(self, journal: str) -> None:
        """Somebody goes on at the target, though the mover has not come to its end."""
        stack = await self.home.open(journal)
        try:
            writer = await Issuer(stack.log).writer(f"task/w{len(self.told)}")
            done = await stack.log.append(writer, [NOTE], expected=0)
            self.told.append(Told(writer.stream, done.revision, done.commit))
            self.counts["gone on at the target"] += 1
        finally:
            await stack.close()

    async def _holds_all(self, journal: str) -> None:
        """Every commit that anybody was told stands is there, once."""
        stack = await self.home.open(journal)
        try:
            await _holds(stack.log, self.told)
        finally:
            await stack.close()

    async def _seen(self, journal: str) -> Seen:
        stack = await self.home.open(journal)
        try:
            return await seen(stack.log)
        finally:
            await stack.close()

    async def _root(self, journal: str, part: int, size: int) -> bytes:
        stack = await self.home.open(journal)
        try:
            return stack.log.index.root_at(part, size)
        finally:
            await stack.close()

    async def _left(self, journal: str) -> Seen:
        """What lies at a journal that was left, up to its mark."""
        settings, state = self.home.at(journal), self.home.folder / f"left-{secrets.token_hex(4)}"
        shutil.copytree(settings.state, state)
        for path in state.glob("logs/*/checkpoint*"):  # somebody may have gone on at the target
            path.unlink()
        keyring, tape = Keyring(state), open_tape(settings)
        assert isinstance(tape, Movable)
        tape.to_the_mark = True
        identity = await tape.identity()
        assert identity
        index = state / "index.db"
        log = Log(identity, tape, keyring, index=index, blobs=open_blobs(settings), codec=Codec(CORE))
        try:
            await log.start()
            return await seen(log)
        finally:
            await log.close()


async def _holds(log: Log, told: list[Told]) -> None:
    for stream, revision, commit in told:
        (found,) = [one async for one in log.read(stream, revision, revision)]
        assert found.hash == commit, f"{stream}@{revision} is another commit"


async def seen(log: Log) -> Seen:
    """Every slice's tree, the checkpoint, the export."""
    await log.refresh()
    roots = {part: (size, log.index.root_at(part, size)) for part, size in log.index.sizes().items() if size}
    return roots, log.checkpoint().body(), hashlib.sha256(await export(log)).hexdigest()


async def survive(folder: Path, kafka: str, seed: int, kills: int, *, writing: bool) -> Counter[str]:
    """A log's way there and back, with so many kills on each."""
    with mock.patch.object(lanes, "LAG", LAG):
        return await Killing(folder, kafka, seed, writing=writing).whole(kills)
