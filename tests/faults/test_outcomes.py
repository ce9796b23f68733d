"""What an append comes to when its caller goes away, its time runs out, or the store fails in the middle of it."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from agent_party.eventstore import appending, lanes
from agent_party.eventstore.backends.memory import MemoryTape, UnconditionalMemoryTape
from agent_party.eventstore.errors import (
    BlobError,
    ConflictError,
    GrantEndedError,
    LogRolledBack,
    StoreBusyError,
    StoreFullError,
    UnknownOutcomeError,
)
from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.log import INLINE, Log, Writer
from agent_party.eventstore.tape import Attempt, Entry, Indefinite
from tests.eventstore_kit import Lost, Site, notes, truth_of

IN_VIRTUAL_TIME = True


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path, "unconditional")
    yield site
    site.unconditional.fate = lambda raw: "now"
    await site.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appending, "PATIENCE", 0.02)
    monkeypatch.setattr(lanes, "GRACE", 0.05)


async def opened(site: Site) -> tuple[Log, Writer]:
    log = await site.open()
    return log, await Issuer(log).writer("note/a")


async def revisions(log: Log, stream: str = "note/a") -> list[int]:
    truth = await truth_of(log)
    return [record.header.revision for record in truth.data(stream)]


class GatedTape(MemoryTape):
    """A memory tape whose appends wait at a gate, before they are placed or after."""

    def __init__(self, inner: MemoryTape, *, before: bool) -> None:
        super().__init__()
        self.records, self._log, self._grown = inner.records, inner._log, inner._grown
        self.before, self.open, self.waiting = before, asyncio.Event(), 0
        self.open.set()

    async def append(self, lane: int, records: Sequence[bytes], after: Entry) -> Attempt:
        attempt = None if self.before else await super().append(lane, records, after)
        self.waiting += 1
        await self.open.wait()
        self.waiting -= 1
        return attempt or await super().append(lane, records, after)


async def gated(tmp_path: Path, *, before: bool) -> tuple[Site, Log, GatedTape, Writer]:
    site = Site(tmp_path, "memory")
    first = await site.open()
    await first.close()
    tape = GatedTape(site.memory, before=before)
    log = await site.open(tape=tape)
    return site, log, tape, await Issuer(log).writer("note/a")


async def wait_for(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 (a test looks on from outside)
            await asyncio.sleep(0.001)


# Callers that go away


@pytest.mark.parametrize("before", [True, False], ids=["not yet placed", "already placed"])
async def test_a_cancelled_append_goes_on_and_the_next_finds_out_first(tmp_path: Path, before: bool) -> None:
    site, log, tape, writer = await gated(tmp_path, before=before)
    tape.open.clear()
    caller = asyncio.create_task(log.append(writer, notes("mine"), expected=0))
    await wait_for(lambda: tape.waiting > 0)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    following = asyncio.create_task(log.append(writer, notes("next"), expected=0))
    await asyncio.sleep(0.01)
    assert not following.done()
    tape.open.set()
    with pytest.raises(ConflictError):
        await following
    await log.append(writer, notes("next"), expected=1)
    assert await revisions(log) == [1, 2]
    await site.close()


async def test_a_doubt_outlives_a_second_cancellation(tmp_path: Path) -> None:
    """The one who waits for the outcome is cancelled too: the third must still wait."""
    site, log, tape, writer = await gated(tmp_path, before=True)
    tape.open.clear()
    for text in ("first", "second"):
        caller = asyncio.create_task(log.append(writer, notes(text), expected=0))
        await wait_for(lambda: tape.waiting > 0)
        await asyncio.sleep(0.01)
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
    third = asyncio.create_task(log.append(writer, notes("third"), expected=0))
    await asyncio.sleep(0.01)
    tape.open.set()
    with pytest.raises(ConflictError):
        await third
    truth = await truth_of(log)
    assert (await revisions(log), truth.rejected) == ([1], [])
    await site.close()


async def test_a_cancelled_caller_in_the_queue_breaks_no_chain(tmp_path: Path) -> None:
    site, log, tape, writer = await gated(tmp_path, before=True)
    tape.open.clear()
    callers = [asyncio.create_task(log.append(writer, notes(str(n)), expected=0)) for n in range(6)]
    await wait_for(lambda: tape.waiting > 0)
    for caller in callers[:4]:
        caller.cancel()
        await asyncio.sleep(0)
    tape.open.set()
    said = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(answer) for answer in said[:4]] == [asyncio.CancelledError] * 4
    truth = await truth_of(log)
    assert ([r.header.revision for r in truth.data("note/a")], truth.rejected) == ([1], [])
    await site.close()


async def test_nothing_is_kept_of_streams_that_are_done(tmp_path: Path) -> None:
    site, log, tape, writer = await gated(tmp_path, before=False)
    writers = [await Issuer(log).writer(f"note/n{n}") for n in range(50)]
    tape.open.clear()
    callers = [asyncio.create_task(log.append(w, notes("x"), expected=n % 2)) for n, w in enumerate(writers)]
    await wait_for(lambda: tape.waiting > 0)
    for task in callers[::3]:
        task.cancel()
    tape.open.set()
    await asyncio.gather(*callers, return_exceptions=True)
    await log.append(writer, notes("x"), expected=0)
    await log.refresh()
    callers.clear()
    del task
    gc.collect()
    assert dict(log._lanes._doubts) == {}
    assert dict(log._lanes._turns) == {}
    await site.close()


# Deadlines


async def test_a_store_that_does_not_answer_is_unknown_and_the_next_finds_out(tmp_path: Path) -> None:
    site, log, tape, writer = await gated(tmp_path, before=True)
    tape.open.clear()
    with pytest.raises(UnknownOutcomeError):
        await log.append(writer, notes("mine"), expected=0, deadline=0.05)
    with pytest.raises(StoreBusyError):
        await log.append(writer, notes("next"), expected=0, deadline=0.05)
    tape.open.set()
    with pytest.raises(ConflictError):
        await log.append(writer, notes("next"), expected=0)
    assert await revisions(log) == [1]
    await site.close()


async def test_what_was_never_sent_is_withdrawn_and_never_written(tmp_path: Path) -> None:
    """The lane is held up by another stream's append; this one is still in the queue when its time is over."""
    site, log, tape, writer = await gated(tmp_path, before=True)
    other = await Issuer(log).writer("note/other")
    tape.open.clear()
    holding = asyncio.create_task(log.append(other, notes("x"), expected=0))
    await wait_for(lambda: tape.waiting > 0)
    with pytest.raises(StoreBusyError, match="nothing was written"):
        await log.append(writer, notes("mine"), expected=0, deadline=0.05)
    tape.open.set()
    await holding
    await log.refresh()
    assert await revisions(log) == []
    await log.append(writer, notes("again"), expected=0)
    await site.close()


@pytest.mark.parametrize("fate", ["never?", "never"])
async def test_not_found_is_not_failed(site: Site, fate: str) -> None:
    log, writer = await opened(site)
    site.unconditional.fate = lambda raw: fate
    with pytest.raises(UnknownOutcomeError) as caught:
        await log.append(writer, notes("mine"), expected=0, deadline=0.1)
    assert caught.value.commit
    site.unconditional.fate = lambda raw: "now"
    await log.append(writer, notes("next"), expected=0)
    assert await revisions(log) == [1]


async def test_an_unknown_append_that_lands_late_is_found(site: Site) -> None:
    log, writer = await opened(site)
    site.unconditional.fate = lost = Lost()
    with pytest.raises(UnknownOutcomeError) as caught:
        await log.append(writer, notes("mine"), expected=0, deadline=0.1)
    assert len(set(lost.raws)) == 1  # the same bytes, again and again
    site.unconditional.fate = lambda raw: "now"
    site.unconditional.late.append(lost.raws[0])
    site.unconditional.settle()
    with pytest.raises(ConflictError):
        await log.append(writer, notes("next"), expected=0)
    assert [c.hash async for c in log.read("note/a")] == [caught.value.commit]


async def test_an_unknown_append_that_lands_behind_the_next_one_is_stale(site: Site) -> None:
    log, writer = await opened(site)
    site.unconditional.fate = lost = Lost()
    with pytest.raises(UnknownOutcomeError):
        await log.append(writer, notes("mine"), expected=0, deadline=0.1)
    site.unconditional.fate = lambda raw: "now"
    acknowledged = await log.append(writer, notes("next"), expected=0)
    site.unconditional.late.append(lost.raws[0])
    site.unconditional.settle()
    await log.refresh()
    assert [c.hash async for c in log.read("note/a")] == [acknowledged.commit]
    assert log.index.findings["stale"] >= 1
    assert log.index.findings["gap"] == 0


@pytest.mark.parametrize("fate", ["now?", "late", "late?", "twice", "twice?"])
async def test_each_fate_ends_in_one_commit(site: Site, fate: str) -> None:
    log, writer = await opened(site)
    site.unconditional.fate = lambda raw: fate
    for revision in range(3):
        await log.append(writer, notes("x"), expected=revision)
    site.unconditional.settle()
    await log.refresh()
    assert await revisions(log) == [1, 2, 3]
    assert set(log.index.findings) <= {"stale"}


async def test_a_fence_that_lands_before_a_late_record_ends_its_writer(site: Site) -> None:
    """The head stands still: the very same bytes would be sent for ever."""
    log, writer = await opened(site)
    other = await site.open("other.db")
    site.unconditional.fate = lost = Lost()
    doomed = asyncio.create_task(log.append(writer, notes("mine"), expected=0, deadline=20))
    await wait_for(lambda: bool(lost.raws))
    site.unconditional.fate = lambda raw: "now"
    await Issuer(other).fence("note/a", writer.grant)
    with pytest.raises(GrantEndedError):
        async with asyncio.timeout(60):
            await doomed
    assert await revisions(log) == []


# Stores that fail in the middle


class FailingTape(UnconditionalMemoryTape):
    """Fails the next append with an error, having placed the records or not."""

    def __init__(self, inner: UnconditionalMemoryTape) -> None:
        super().__init__()
        self.records, self._log, self._grown = inner.records, inner._log, inner._grown
        self.error: BaseException | None = None
        self.placed = False

    async def append(self, lane: int, records: Sequence[bytes], after: Entry) -> Attempt:
        error, self.error = self.error, None
        if error is None or self.placed:
            attempt = await super().append(lane, records, after)
            if error is None:
                return attempt
        raise error


@pytest.mark.parametrize("placed", [True, False], ids=["persisted", "lost"])
@pytest.mark.parametrize("error", [Indefinite("no answer"), RuntimeError("a driver's own")], ids=["indefinite", "raw"])
async def test_failed_but_persisted(site: Site, error: Exception, placed: bool) -> None:
    first = await site.open()
    await first.close()
    tape = FailingTape(site.unconditional)
    log = await site.open(tape=tape)
    writer = await Issuer(log).writer("note/a")
    tape.error, tape.placed = error, placed
    try:
        await log.append(writer, notes("mine"), expected=0)
        stands = True
    except UnknownOutcomeError:
        stands = placed  # which is what not knowing means
    if stands:
        with pytest.raises(ConflictError):
            await log.append(writer, notes("next"), expected=0)
    else:
        await log.append(writer, notes("next"), expected=0)
    assert await revisions(log) == [1]


async def test_a_store_that_refuses_is_not_unknown(site: Site) -> None:
    first = await site.open()
    await first.close()
    tape = FailingTape(site.unconditional)
    log = await site.open(tape=tape)
    writer = await Issuer(log).writer("note/a")
    tape.error = StoreFullError("no room")
    with pytest.raises(StoreFullError):
        await log.append(writer, notes("mine"), expected=0)
    await log.append(writer, notes("mine"), expected=0)
    assert await revisions(log) == [1]


async def test_a_blob_that_cannot_be_put_fails_its_own_append_only(tmp_path: Path) -> None:
    site = Site(tmp_path, "memory")
    log = await site.open()
    a, b = await Issuer(log).writer("note/a"), await Issuer(log).writer("note/b")

    async def refuse(name: bytes, content: bytes) -> None:
        raise BlobError("no")

    site.blobs.put = refuse  # type: ignore[method-assign]
    said = await asyncio.gather(
        log.append(a, notes("x" * (INLINE + 1)), expected=0),
        log.append(b, notes("small"), expected=0),
        return_exceptions=True,
    )
    assert isinstance(said[0], BlobError)
    assert (await revisions(log), await revisions(log, "note/b")) == ([], [1])
    await site.close()


async def follow(log: Log) -> None:
    async with asyncio.timeout(60):
        while True:
            await log.changed(5)


async def test_a_rollback_while_running_stops_reader_and_writer(site: Site) -> None:
    log, writer = await opened(site)
    await log.append(writer, notes("one"), expected=0)
    await log.append(writer, notes("two"), expected=1)
    del site.unconditional.records[-1]
    with pytest.raises(LogRolledBack):
        await log.append(writer, notes("three"), expected=2)
    with pytest.raises(LogRolledBack):
        await log.refresh()
    with pytest.raises(LogRolledBack):
        await follow(log)
    assert await revisions(log) == [1]
