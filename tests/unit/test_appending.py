"""What is taken as known instead of judged again, who sends a group, and what one transaction holds."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_party.eventstore import index as indexes
from agent_party.eventstore.backends import thread
from agent_party.eventstore.backends.sqlite import SqliteTape
from agent_party.eventstore.commit import FORMAT, Built, DataKey, Draft, Payload, SigningKey, build, follows
from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.log import Log
from agent_party.eventstore.tape import Attempt, Entry
from agent_party.eventstore.verify import Cause, SliceState, StreamState, identity, judge, parse
from tests.eventstore_kit import Site, notes, truth_of, until

KEY = SigningKey.from_seed(bytes(32))
LOG = identity(KEY.public, 16, bytes(32))
GRANT = bytes(range(32))
HASHES = st.binary(min_size=32, max_size=32)
IDS = st.binary(min_size=16, max_size=16)
PAYLOADS = st.builds(
    Payload,
    type=st.sampled_from([b"note.written", b"a-b.c_d", b"x" * 30 + b"." + b"y" * 33]),
    schema=st.integers(1, 65_535),
    plaintext=st.binary(max_size=300),
    key=st.none() | st.builds(DataKey, IDS, HASHES),
    attachments=st.lists(HASHES, max_size=3).map(tuple),
)
DRAFTS = st.builds(
    Draft,
    stream=st.sampled_from([b"note/a", b"inbox/agent/b", b"task/" + b"t" * 64]),
    payloads=st.lists(PAYLOADS, min_size=1, max_size=4),
    commit_id=IDS,
    time=st.integers(0, 2**63),
    salt=HASHES,
    digest=st.just(b"") | IDS,
    correlation=st.just(b"") | IDS,
    authority=st.just(b"") | HASHES,
    format=st.sampled_from([0, 1]),
    cause=st.none()
    | st.builds(Cause, st.just(b"task/t"), st.integers(0, 2**64 - 1), st.integers(0, 2**16 - 1), HASHES),
)


@given(draft=DRAFTS, head=HASHES, revision=st.integers(0, 2**40), inline=st.sampled_from([100, 1_000]))
def test_what_is_known_of_an_own_commit_is_what_the_rule_says(
    draft: Draft, head: bytes, revision: int, inline: int
) -> None:
    state, part = StreamState(head, revision, {GRANT: (1, KEY.public)}), SliceState(format=draft.format)
    built = build(LOG, draft, head, revision + 1, GRANT, KEY, inline)
    verdict = judge(LOG, part, state, parse(built.raw))
    assert (verdict.finding, verdict.slice) == ("", part)
    assert follows(built, state, part) == verdict.stream


BEGUN = SliceState(format=FORMAT)
OTHERS: list[tuple[Any, SliceState]] = [
    ({"head": b"h" * 32}, BEGUN),
    ({"revision": 4}, BEGUN),
    ({"grants": {}}, BEGUN),
    ({"grants": {GRANT: (1, bytes(32))}}, BEGUN),
    ({}, BEGUN._replace(format=0)),
    ({}, BEGUN._replace(format=2)),
    ({}, BEGUN._replace(sealed=b"s" * 32, lane=0)),
]


@pytest.mark.parametrize(
    ("changed", "part"), OTHERS, ids=["head", "revision", "grant ended", "other key", "older", "newer", "sealed"]
)
def test_on_other_states_nothing_is_known(changed: dict[str, Any], part: SliceState) -> None:
    state = StreamState(bytes(32), 3, {GRANT: (1, KEY.public)})
    draft = Draft(b"note/a", [Payload(b"note.written", 1, b"x", None)], bytes(16), 0, bytes(32))
    built = build(LOG, draft, state.head, 4, GRANT, KEY, 100)
    assert follows(built, state, BEGUN) is not None
    other = state._replace(**changed)
    assert follows(built, other, part) is None
    assert judge(LOG, part, other, parse(built.raw)).finding


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path)
    yield site
    await site.close()


def counted(log: Log, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """How many records each transaction holds, and whether the event loop did it."""
    groups: list[tuple[int, bool]] = []
    append, at_once = SqliteTape.append, SqliteTape.append_at_once

    async def by_thread(tape: SqliteTape, lane: int, records: list[bytes], after: Entry) -> Attempt:
        groups.append((len(records), False))
        return await append(tape, lane, records, after)

    def by_loop(tape: SqliteTape, lane: int, records: list[bytes], after: Entry) -> Attempt | None:
        attempt = at_once(tape, lane, records, after)
        if attempt:
            groups.append((len(records), True))
        return attempt

    monkeypatch.setattr(SqliteTape, "append", by_thread)
    monkeypatch.setattr(SqliteTape, "append_at_once", by_loop)
    return groups


@pytest.mark.parametrize("by_loop", [True, False], ids=["by the loop", "by the thread"])
async def test_those_of_one_turn_go_out_together(site: Site, by_loop: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    log = await site.open()
    monkeypatch.setattr(thread, "SLOW", 60.0)
    writers = await asyncio.gather(*(Issuer(log).writer(f"note/n{n}") for n in range(30)))
    log.tape._pace._left = 0 if by_loop else 100  # type: ignore[attr-defined]
    groups = counted(log, monkeypatch)
    for revision in range(3):
        await asyncio.gather(*(log.append(writer, notes("x"), expected=revision) for writer in writers))
    assert groups == [(30, by_loop)] * 3
    assert len((await truth_of(log)).accepted) == 16 + 4 * 30


async def test_a_slow_disk_is_left_to_the_thread_and_tried_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    log = await site.open()
    writer = await Issuer(log).writer("note/a")
    await log.append(writer, notes("x"), expected=0)
    groups = counted(log, monkeypatch)
    monkeypatch.setattr(thread, "RETURN", 3)
    monkeypatch.setattr(thread, "SLOW", 0.0)
    log.tape._pace = thread.Pace()  # type: ignore[attr-defined]
    for revision in range(1, 9):
        await log.append(writer, notes("x"), expected=revision)
    ways = [(by_loop, len(list(run))) for by_loop, run in itertools.groupby(by_loop for _, by_loop in groups)]
    assert ways[0] == (True, 2)
    assert [by_loop for by_loop, _ in ways[:3]] == [True, False, True]
    assert all(count == 2 if by_loop else count <= 3 for by_loop, count in ways[:-1]), ways


async def test_another_process_that_writes_holds_up_nobody_else(site: Site) -> None:
    """The loop does not wait for the other's lock: whatever else there is to do is done meanwhile."""
    log = await site.open()
    writer = await Issuer(log).writer("note/a")
    other = SqliteTape(site.file)
    other._writer.execute("BEGIN IMMEDIATE")
    appending = asyncio.create_task(log.append(writer, notes("x"), expected=0))
    for _ in range(200):
        await asyncio.sleep(0)
    assert not appending.done()
    other._writer.execute("ROLLBACK")
    async with asyncio.timeout(120):
        assert (await appending).revision == 1
    await other.close()


async def test_the_first_of_a_group_may_go_away(site: Site) -> None:
    log = await site.open()
    writers = await asyncio.gather(*(Issuer(log).writer(f"note/n{n}") for n in range(5)))
    await asyncio.gather(*(log.append(writer, notes("x"), expected=0) for writer in writers))
    callers = [asyncio.create_task(log.append(writer, notes("y"), expected=1)) for writer in writers]
    await asyncio.sleep(0)
    callers[0].cancel()
    said = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(said[0], asyncio.CancelledError)
    assert [answer.revision for answer in said[1:]] == [2] * 4  # type: ignore[union-attr]

    def stands() -> bool:
        return log.index.state(writers[0].stream.encode()).revision == 2

    await until(stands, "what was begun goes on")


async def test_new_streams_share_the_syncs(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand new streams: one transaction for their keys, and one a group for grants and for first commits."""
    log = await site.open()
    groups, made = counted(log, monkeypatch), list[int]()
    of_subjects = log.keys._of_subjects

    def counting(subjects: list[str]) -> Any:
        made.append(len(subjects))
        return of_subjects(subjects)

    monkeypatch.setattr(log.keys, "_of_subjects", counting)

    async def begin(number: int) -> None:
        writer = await Issuer(log).writer(f"note/n{number}")
        await log.append(writer, notes("x"), expected=0)

    await asyncio.gather(*(begin(number) for number in range(1_000)))
    assert (sum(made), len(made)) == (1_000, 1)
    assert sum(count for count, _ in groups) == 2_000
    assert len(groups) <= 10


async def test_what_another_wrote_in_between_is_judged(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known is only what was built on the very states that are in force when it comes back."""
    log = await site.open()
    other = await site.open("other.db")
    mine, theirs = await Issuer(log).writer("inbox/a"), await Issuer(other).writer("inbox/a")
    known: list[int | None] = []
    take_own = indexes.Index.take_own

    def spied(self: indexes.Index, lane: int, entry: Entry, built: Built, *basis: Any) -> int | None:
        known.append(take_own(self, lane, entry, built, *basis))
        return known[-1]

    monkeypatch.setattr(indexes.Index, "take_own", spied)
    await log.append(mine, notes("1"), expected=0)
    await other.append(theirs, notes("2"), expected=1)
    await log.append(mine, notes("3"), expected=2)
    assert known
    truth = await truth_of(log)
    assert (truth.rejected, len(truth.data("inbox/a"))) == ([], 3)
    assert await log.state("inbox/a") == truth.streams[b"inbox/a"]
