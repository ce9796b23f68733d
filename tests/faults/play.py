"""A play with the real `Log` on a tape that loses, delays and repeats records, in virtual time.

Two processes on one unconditional tape, with one index file between them and next to no memory, append, take over,
fence, crash and forget; whatever was ever sent may land once more at any moment. Every answer is held against the
chain from then on.
"""

import asyncio
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from agent_party.eventstore import index
from agent_party.eventstore.backends.index_file import delete
from agent_party.eventstore.backends.memory import UnconditionalMemoryTape
from agent_party.eventstore.errors import ConflictError, GrantEndedError, StoreBusyError, UnknownOutcomeError
from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.log import Log, Writer
from agent_party.eventstore.verify import CONTROL, DATA
from tests.eventstore_kit import Site, Truth, judged, notes

FATES = ("now", "late", "twice", "never", "now?", "late?", "twice?", "never?")
STREAMS = ("note/a", "inbox/b")
DEADLINE = 1.2
INDEX = "shared.db"


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer when there is nothing else to do."""

    def __init__(self) -> None:
        super().__init__()
        self._virtual = 0.0

    def time(self) -> float:
        """Virtual seconds."""
        return self._virtual

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> Any:
        """What blocks takes no virtual time."""
        done = self.create_future()
        done.set_result(func(*args))
        return done

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self._virtual = max(self._virtual, self._scheduled[0]._when)  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


class Act(NamedTuple):
    """Something a process does. ``what``: append, stale (append on an old revision), take over, fence."""

    process: int
    stream: int
    what: str


class Play:
    """The world, and what was promised in it."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self._folder = tempfile.TemporaryDirectory(prefix="agent-party-play-")
        self.site = Site(Path(self._folder.name), "unconditional")
        self.tape: UnconditionalMemoryTape = self.site.unconditional
        self.sent: list[bytes] = []
        self.logs: list[Log] = []
        self.writers: dict[tuple[int, int], Writer] = {}
        self.acknowledged: dict[bytes, tuple[bytes, int]] = {}
        self.denied: set[bytes] = set()
        self.unknown: dict[bytes, tuple[str, int]] = {}
        self.ended: set[bytes] = set()
        self._ids = 0
        self.tape.fate = lambda raw: "now"
        self._small = [mock.patch.object(index, "FLUSH_ROWS", 2), mock.patch.object(index, "_STATES", 2)]
        for small in self._small:
            small.start()
        self.logs = [self.run(self.site.open(INDEX)) for n in range(2)]

    def run(self, work: object) -> Log:
        """Run to the end, in virtual time."""
        result: Log = self.loop.run_until_complete(work)  # type: ignore[arg-type]
        return result

    def act(self, acts: Sequence[Act], fates: Sequence[str]) -> None:
        """Do these at once, each record meeting the next of these fates, the last ones ``now``."""
        coming: Iterator[str] = iter(fates)

        def fate(raw: bytes) -> str:
            self.sent.append(raw)
            return next(coming, "now")

        self.tape.fate = fate
        self.loop.run_until_complete(self._together(acts))
        self.check()

    async def _together(self, acts: Sequence[Act]) -> None:
        for outcome in await asyncio.gather(*map(self._act, acts), return_exceptions=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, (UnknownOutcomeError, StoreBusyError)):
                raise outcome

    async def _act(self, act: Act) -> None:
        log, stream = self.logs[act.process], STREAMS[act.stream]
        writer = self.writers.get((act.process, act.stream))
        if act.what == "take over" or writer is None:
            self.writers[act.process, act.stream] = await Issuer(log).writer(stream)
        elif act.what == "fence":
            await Issuer(log).fence(stream, writer.grant)
            self.ended.add(writer.grant)
            assert writer.grant not in (await log.state(stream)).grants
        else:
            await self._append(log, writer, stale=act.what == "stale")

    async def _append(self, log: Log, writer: Writer, *, stale: bool) -> None:
        expected = max(0, (await log.state(writer.stream)).revision - stale)
        self._ids += 1
        identifier = self._ids.to_bytes(16)
        try:
            appended = await log.append(writer, notes("x"), expected=expected, commit_id=identifier, deadline=DEADLINE)
            self.acknowledged[appended.commit] = (identifier, appended.revision)
        except ConflictError:
            self.denied.add(identifier)
            data = judged(log.identity, self.tape.records).data(writer.stream)
            assert len(data) > expected, "a conflict, and no data commit occupies the expected revision"
        except GrantEndedError:
            self.denied.add(identifier)
            self.ended.add(writer.grant)
        except UnknownOutcomeError:
            self.unknown[identifier] = (writer.stream, expected + 1)

    def crash(self, process: int, *, forget_index: bool) -> None:
        """The process is gone, with all it knew; another starts in its place."""
        gone = self.logs[process]
        gone._lanes.index._file.close()
        gone.keys.close()
        self.writers = {key: writer for key, writer in self.writers.items() if key[0] != process}
        if forget_index:
            delete(self.site.folder / "party" / INDEX)
        self.tape.fate = lambda raw: "now"
        self.logs[process] = self.run(self.site.open(INDEX))
        self.check()

    def land(self, which: Sequence[int]) -> None:
        """Records that were sent, whatever became of them, land now (again)."""
        self.tape.settle()
        if self.sent:
            self.tape._place([self.sent[number % len(self.sent)] for number in which])
        self.check()

    # What must hold after every step

    def check(self) -> Truth:
        """Hold every promise against the chain."""
        truth = judged(self.logs[0].identity, self.tape.records)
        accepted = [record for record in truth.accepted if record.header.kind == DATA]
        by_commit = {record.commit: (record.header.commit_id, record.header.revision) for record in accepted}
        ids = [record.header.commit_id for record in accepted]
        assert len(set(ids)) == len(ids), "one command stands twice"
        for commit, promised in self.acknowledged.items():
            assert by_commit.get(commit) == promised, "acknowledged, and not in the chain"
        assert not self.denied & set(ids), "told that it failed, and it is in the chain"
        assert set(truth.rejected) <= {"stale", "unlinked", "no-grant"}
        for identifier, (stream, revision) in list(self.unknown.items()):
            data = truth.data(stream)
            if len(data) >= revision and identifier not in ids:
                self.denied.add(identifier)  # its place is taken: that is the one answer, for ever
                del self.unknown[identifier]
        self._check_grants(truth)
        return truth

    def _check_grants(self, truth: Truth) -> None:
        """No commit under an ended grant, by an account of the chain that does not ask the rule."""
        held: dict[bytes, list[bytes]] = {}
        for record in truth.accepted:
            header, grants = record.header, held.setdefault(record.header.stream, [])
            if header.kind == CONTROL and b"\x05grant" in record.body[:16]:
                held[header.stream] = [*(grants if header.stream.startswith(b"inbox/") else []), record.commit]
            elif header.kind == CONTROL and b"\x05fence" in record.body[:16]:
                held[header.stream] = [grant for grant in grants if grant != header.prev]
            elif header.kind == DATA:
                assert header.grant in grants, "a commit under an ended grant"

    def finish(self) -> None:
        """All that was late lands, and both processes read the same chain to its end, without a gap."""
        try:
            self.land([])
            truth = self.check()
            for log in self.logs:
                self.run(log.refresh())
                assert log.index.findings["gap"] == 0
                for stream, state in truth.streams.items():
                    assert self.loop.run_until_complete(log.state(stream.decode())) == state
            self.tape.fate = lambda raw: "now"
            self.run(self.site.close())
        finally:
            for log in self.logs:
                log._lanes.index._file.close()
                log.keys.close()
            self.loop.close()
            self._folder.cleanup()
            for small in self._small:
                small.stop()
