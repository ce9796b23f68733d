"""The contract of the log, over every tape: what append, conflict, grants, reading and following mean."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent_party.eventstore.commit import SigningKey
from agent_party.eventstore.errors import (
    ConflictError,
    ControlRefusedError,
    EventStoreError,
    GrantEndedError,
    PayloadError,
    StoreError,
    WrongKeyError,
)
from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.log import INLINE, Log, Writer
from agent_party.eventstore.verify import Cause, slice_of
from tests.eventstore_kit import Note, Site, notes, truth_of
from tests.kafka_kit import Place


def again(log: Log) -> set[str]:
    """What the rule says of a record that stands already: it may be sent again where its tape answers late."""
    return set() if log.tape.conditional else {"stale"}


async def texts(log: Log, stream: str, first: int = 1, last: int | None = None) -> list[str]:
    return [event.text async for commit in log.read(stream, first, last) for event in commit.events]


class LogContract:
    """A tape adds a class with its kind of site."""

    kind: str

    @pytest.fixture
    async def site(self, tmp_path: Path) -> AsyncIterator[Site]:
        site = Site(tmp_path, self.kind)
        yield site
        await site.close()

    @pytest.fixture
    async def log(self, site: Site) -> Log:
        return await site.open()

    @pytest.fixture
    async def writer(self, log: Log) -> Writer:
        return await Issuer(log).writer("note/a")

    # Append

    async def test_what_was_appended_is_read(self, log: Log, writer: Writer) -> None:
        first = await log.append(writer, notes("one", "two"), expected=0)
        second = await log.append(writer, notes("three"), expected=1)
        commits = [commit async for commit in log.read("note/a")]
        assert [commit.events for commit in commits] == [(Note("one"), Note("two")), (Note("three"),)]
        assert [(c.revision, c.hash, c.slice, c.position, c.time) for c in commits] == [first[:5], second[:5]]

    async def test_acknowledged_commits_are_there_for_the_next_process(self, site: Site, log: Log) -> None:
        writers = await asyncio.gather(*(Issuer(log).writer(f"note/n{n}") for n in range(30)))
        await asyncio.gather(*(log.append(w, notes(w.stream), expected=0) for w in writers))
        await log.close()
        again = await site.open()
        assert [await texts(again, w.stream) for w in writers] == [[w.stream] for w in writers]

    async def test_metadata_comes_back(self, log: Log, writer: Writer) -> None:
        cause = Cause(b"task/t", 3, 1, bytes(range(32)))
        await log.append(
            writer, notes("x"), expected=0, commit_id=b"i" * 16, digest=b"d" * 16, cause=cause,
            correlation=b"c" * 16, authority=b"a" * 32,
        )  # fmt: skip
        (commit,) = [c async for c in log.read("note/a")]
        assert (commit.id, commit.digest, commit.cause) == (b"i" * 16, b"d" * 16, cause)
        assert (commit.correlation, commit.authority, commit.control) == (b"c" * 16, b"a" * 32, None)

    async def test_many_at_once_on_one_stream_take_turns(self, log: Log, writer: Writer) -> None:
        """Each retries from the revision it is told, so that turns are handed over while others wait."""

        async def insist(number: int) -> None:
            expected = 0
            while True:
                try:
                    await log.append(writer, notes(str(number)), expected=expected)
                    return
                except ConflictError as conflict:
                    expected = conflict.current

        await asyncio.gather(*(insist(number) for number in range(40)))
        assert sorted(await texts(log, "note/a"), key=int) == [str(n) for n in range(40)]
        truth = await truth_of(log)
        assert [r.header.revision for r in truth.data("note/a")] == list(range(1, 41))

    async def test_large_payloads_go_to_the_blobs(self, site: Site, log: Log, writer: Writer) -> None:
        small, large = "s" * 100, "x" * (INLINE + 1)
        await log.append(writer, notes(small, large), expected=0)
        assert len([name async for name in site.blobs.names()]) == 1
        assert all(len(record.raw) < INLINE for record in (await truth_of(log)).accepted)
        assert await texts(log, "note/a") == [small, large]

    async def test_a_commit_over_the_limit_is_refused_and_changes_nothing(self, log: Log, writer: Writer) -> None:
        with pytest.raises(PayloadError, match="divide"):
            await log.append(writer, notes(*["y" * 60_000] * 20), expected=0)
        with pytest.raises(PayloadError, match="divide"):
            await log.append(writer, [], expected=0)
        await log.append(writer, notes("fits"), expected=0)
        assert await texts(log, "note/a") == ["fits"]

    async def test_one_callers_mistake_is_no_others(self, log: Log) -> None:
        """All of them go out in one group."""
        a, b = await asyncio.gather(Issuer(log).writer("note/a"), Issuer(log).writer("note/b"))
        said = await asyncio.gather(
            log.append(a, notes(*["y" * 60_000] * 20), expected=0),
            log.append(b, notes("fine"), expected=0),
            return_exceptions=True,
        )
        assert isinstance(said[0], PayloadError)
        assert await texts(log, "note/b") == ["fine"]

    @pytest.mark.parametrize(
        "fields",
        [
            {"commit_id": b"short"},
            {"digest": b"d" * 15},
            {"correlation": b"c" * 17},
            {"authority": b"a" * 16},
            {"cause": Cause(b"no stream name", 1, 0, bytes(32))},
            {"cause": Cause(b"task/t", 1, 0, b"hash")},
            {"cause": Cause(b"task/t", -1, 0, bytes(32))},
        ],
        ids=str,
    )
    async def test_a_field_of_another_form_is_refused_before_it_is_written(
        self, log: Log, writer: Writer, fields: dict[str, bytes]
    ) -> None:
        with pytest.raises(PayloadError):
            await log.append(writer, notes("x"), expected=0, **fields)  # type: ignore[arg-type]
        assert set((await truth_of(log)).rejected) <= again(log)
        await log.append(writer, notes("x"), expected=0)

    @pytest.mark.parametrize("name", ["", "note", "Note/a", "note/ä", "note/a b", "note/" + "/".join(["x" * 64] * 5)])
    async def test_a_name_outside_the_grammar_is_refused(self, log: Log, writer: Writer, name: str) -> None:
        with pytest.raises(EventStoreError, match="stream name"):
            await log.append(writer._replace(stream=name), notes("x"), expected=0)
        with pytest.raises(EventStoreError, match="stream name"):
            await Issuer(log).writer(name)
        assert set((await truth_of(log)).rejected) <= again(log)

    async def test_a_key_that_was_not_granted_writes_nothing(self, log: Log, writer: Writer) -> None:
        with pytest.raises(WrongKeyError):
            await log.append(writer._replace(key=SigningKey.from_seed(bytes(32))), notes("x"), expected=0)
        assert set((await truth_of(log)).rejected) <= again(log)

    # Conflict

    async def test_conflict_says_the_current_revision(self, log: Log, writer: Writer) -> None:
        await log.append(writer, notes("one"), expected=0)
        await log.append(writer, notes("two"), expected=1)
        with pytest.raises(ConflictError) as caught:
            await log.append(writer, notes("mine"), expected=1)
        assert (caught.value.expected, caught.value.current) == (1, 2)
        assert await texts(log, "note/a") == ["one", "two"]

    async def test_expecting_more_than_there_is_is_a_conflict(self, log: Log, writer: Writer) -> None:
        with pytest.raises(ConflictError) as caught:
            await log.append(writer, notes("x"), expected=7)
        assert caught.value.current == 0

    async def test_two_logs_conflict_through_the_tape(self, site: Site, log: Log, writer: Writer) -> None:
        other = await site.open("other.db")
        await other.append(writer, notes("theirs"), expected=0)
        with pytest.raises(ConflictError) as caught:
            await log.append(writer, notes("mine"), expected=0)
        assert caught.value.current == 1
        await log.append(writer, notes("mine"), expected=1)
        await other.refresh()
        assert await texts(other, "note/a") == ["theirs", "mine"]

    async def test_knowing_more_than_this_process_has_read_is_no_conflict(
        self, site: Site, log: Log, writer: Writer
    ) -> None:
        other = await site.open("other.db")
        await other.append(writer, notes("theirs"), expected=0)
        await log.append(writer, notes("mine"), expected=1)  # told by the other, not by the tape
        assert await texts(log, "note/a") == ["theirs", "mine"]

    # Grants

    async def test_the_next_owner_ends_the_one_before(self, log: Log, writer: Writer) -> None:
        await log.append(writer, notes("one"), expected=0)
        second = await Issuer(log).writer("note/a")
        with pytest.raises(GrantEndedError):
            await log.append(writer, notes("zombie"), expected=1)
        await log.append(second, notes("two"), expected=1)
        assert await texts(log, "note/a") == ["one", "two"]

    async def test_a_grant_that_another_process_issued_holds_at_once(self, site: Site, log: Log) -> None:
        other = await site.open("other.db")
        writer = await Issuer(other).writer("note/new")
        await log.append(writer, notes("x"), expected=0)
        assert await texts(log, "note/new") == ["x"]

    async def test_a_takeover_elsewhere_ends_a_grant_here(self, site: Site, log: Log, writer: Writer) -> None:
        other = await site.open("other.db")
        second = await Issuer(other).writer("note/a")
        with pytest.raises(GrantEndedError):
            await log.append(writer, notes("zombie"), expected=0)
        await log.append(second, notes("mine"), expected=0)

    async def test_a_fence_elsewhere_ends_a_grant_here(self, site: Site, log: Log, writer: Writer) -> None:
        """The head does not move, so the record that was built still names the right one."""
        other = await site.open("other.db")
        await Issuer(other).fence("note/a", writer.grant)
        with pytest.raises(GrantEndedError):
            await log.append(writer, notes("zombie"), expected=0)
        assert (await truth_of(log)).data("note/a") == []
        assert set((await truth_of(log)).rejected) <= {"no-grant"} | again(log)
        await Issuer(log).fence("note/a", writer.grant)  # nothing left to do
        await log.append(await Issuer(log).writer("note/a"), notes("mine"), expected=0)

    async def test_a_control_commit_in_between_is_no_conflict(self, site: Site, log: Log) -> None:
        """An inbox has several writers: another's grant moves the head, and only the head."""
        other = await site.open("other.db")
        mine = await Issuer(log).writer("inbox/agent/a")
        theirs = await Issuer(other).writer("inbox/agent/a")
        await log.append(mine, notes("mine"), expected=0)
        await other.append(theirs, notes("theirs"), expected=1)
        await log.refresh()
        assert await texts(log, "inbox/agent/a") == ["mine", "theirs"]

    async def test_a_revoked_issuing_key_grants_nothing(self, site: Site, log: Log) -> None:
        old = log.keyring.issuing(log.identity)
        part = slice_of(log.identity, b"note/b")
        certificate = next(c for c, key in log.index.part(part)[0].issuers.items() if key == old.public)
        other = await site.open("other.db")
        await Issuer(other).revoke(old.public)
        with pytest.raises(ControlRefusedError, match="no-grant"):
            await log.append_control(
                "note/b", b"grant", b"\1" + SigningKey.from_seed(bytes(32)).public + bytes(16), old, grant=certificate
            )
        assert set((await truth_of(log)).rejected) <= {"no-grant"} | again(log)
        await log.append(await Issuer(log).writer("note/b"), notes("by the next key"), expected=0)

    # Read

    async def test_ranges_include_both_ends(self, log: Log, writer: Writer) -> None:
        for number in range(12):
            await log.append(writer, notes(str(number + 1)), expected=number)
        assert await texts(log, "note/a", 3, 5) == ["3", "4", "5"]
        assert await texts(log, "note/a", 11) == ["11", "12"]
        assert await texts(log, "note/a", 11, 40) == ["11", "12"]
        assert await texts(log, "note/a", 13) == []
        assert await texts(log, "note/a", 0, 1) == ["1"]
        assert await texts(log, "note/unknown") == []

    async def test_streams_are_listed_by_prefix_in_pieces(self, log: Log) -> None:
        for name in ("note/b", "note/a", "task/x", "note/c"):
            await Issuer(log).writer(name)
        assert log.streams("note/") == ["note/a", "note/b", "note/c"]
        assert log.streams("note/", after="note/a", limit=1) == ["note/b"]
        assert log.streams("keys/", limit=100) == sorted(f"keys/{n}" for n in range(16))

    async def test_subjects_have_keys_of_their_own(self, log: Log, writer: Writer) -> None:
        await log.append(writer, notes("ours"), expected=0)
        await log.append(writer, notes("hers"), expected=1, subject="person/p1")
        assert log.keys.of_subject("person/p1") != log.keys.of_subject("note/a")
        assert await texts(log, "note/a") == ["ours", "hers"]
        assert b"hers" not in b"".join(record.raw for record in (await truth_of(log)).accepted)

    # Follow

    async def test_a_follower_sees_everything_once_in_order(self, site: Site, log: Log) -> None:
        follower = await site.open("follower.db")
        seen: dict[str, list[int]] = {}
        sizes: dict[int, int] = {}

        async def follow() -> None:
            while True:
                while rows := follower.after(sizes, limit=7):
                    for row in rows:
                        assert row.position == sizes.get(row.part, 0)
                        sizes[row.part] = row.position + 1
                        if row.revision:
                            seen.setdefault(row.stream.decode(), []).append(row.revision)
                if sum(map(len, seen.values())) == 60:
                    return
                await follower.changed(5)

        following = asyncio.create_task(follow())
        writers = [await Issuer(log).writer(f"note/f{n}") for n in range(6)]

        async def write(writer: Writer) -> None:
            for number in range(10):
                await log.append(writer, notes("x"), expected=number)

        await asyncio.gather(*map(write, writers))
        async with asyncio.timeout(60):
            await following
        assert seen == {writer.stream: list(range(1, 11)) for writer in writers}

    async def test_changed_returns_after_an_append_of_ones_own(self, log: Log, writer: Writer) -> None:
        waiting = asyncio.create_task(log.changed(600))
        await asyncio.sleep(0)
        await log.append(writer, notes("x"), expected=0)
        async with asyncio.timeout(60):
            await waiting

    # Close

    async def test_closing_finishes_what_is_on_its_way(self, site: Site, log: Log) -> None:
        writers = await asyncio.gather(*(Issuer(log).writer(f"note/n{n}") for n in range(10)))
        flying = [asyncio.create_task(log.append(w, notes("x"), expected=0)) for w in writers for _ in range(3)]
        await asyncio.sleep(0)
        await log.close()
        async with asyncio.timeout(60):
            said = await asyncio.gather(*flying, return_exceptions=True)
        failed = [answer for answer in said if isinstance(answer, BaseException)]
        assert {type(error) for error in failed} <= {ConflictError, StoreError}
        again = await site.open()
        stand = [w.stream for w in writers if await texts(again, w.stream)]
        assert len(stand) == len(said) - len(failed)

    async def test_a_closed_log_takes_no_more(self, log: Log, writer: Writer) -> None:
        await log.close()
        await log.close()
        with pytest.raises(StoreError):
            await log.append(writer, notes("x"), expected=0)
        with pytest.raises(StoreError, match="closed"):
            await Issuer(log).writer("note/z")


class TestOverMemory(LogContract):
    kind = "memory"


class TestOverUnconditionalMemory(LogContract):
    kind = "unconditional"


class TestOverSqlite(LogContract):
    kind = "sqlite"


class TestOverKafka(LogContract):
    kind = "kafka"

    @pytest.fixture
    async def site(self, tmp_path: Path, topic: Place) -> AsyncIterator[Site]:
        site = Site(tmp_path, self.kind, topic)
        yield site
        await site.close()
