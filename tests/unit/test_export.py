"""Exports of a live log: canonical, complete, and refused rather than wrong."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent_party.eventstore.ambient import Seeded
from agent_party.eventstore.backends.memory import MemoryTape, UnconditionalMemoryTape
from agent_party.eventstore.backends.sqlite import SqliteTape
from agent_party.eventstore.errors import CorruptLogError, EventStoreError, StoreError
from agent_party.eventstore.export import export, export_chunks, read_export
from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.log import Log
from agent_party.eventstore.tape import START, Entry, Tape
from agent_party.eventstore.verify import Malformed, check_export, parse
from tests.eventstore_kit import Site, all_entries, notes
from tests.logs import second_verifier
from tests.logs.making import canonical, framed


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path, "memory")
    yield site
    await site.close()


async def filled(site: Site) -> Log:
    """Several streams in several slices, a takeover, a fence, a rotation and a revocation."""
    log = await site.open(ambient=Seeded(1))
    issuer = Issuer(log)
    writers = [await issuer.writer(name) for name in ("note/a", "note/b", "inbox/note/a", "zoo/z")]
    for writer in writers:
        await log.append(writer, notes("one", "two"), expected=0)
    old = log.keyring.issuing(log.identity).public
    await issuer.rotate()
    await issuer.revoke(old)
    await issuer.fence("inbox/note/a", writers[2].grant)
    for name in ("note/a", "note/b", "aa/a"):
        await log.append(await issuer.writer(name), notes("x"), expected=0 if name == "aa/a" else 1)
    return log


async def test_it_verifies_and_is_canonical(site: Site) -> None:
    log = await filled(site)
    data = await export(log)
    raws = [entry.raw for entry in await all_entries(log.tape)]
    assert data == framed(log.identity, canonical(raws))
    report = check_export(data, log.identity.root, log.identity.log_id)
    assert (report["finding"], report["commits"]) == ("", len(raws))
    assert second_verifier.verify(data, log.identity.root)[0] == ""
    identity, records = read_export(data)
    assert identity == log.identity
    assert [record.raw for record in records] == canonical(raws)
    assert b"".join([chunk async for chunk in export_chunks(log, [])]) == data


async def test_the_same_bytes_from_every_tape(site: Site, tmp_path: Path) -> None:
    """Copied to other tapes, in another order of the slices, and among rubbish."""
    log = await filled(site)
    data, raws = await export(log), [entry.raw for entry in await all_entries(log.tape)]
    by_slice = sorted(raws, key=lambda raw: -parse(raw).header.slice)
    noisy = [raw for pair in zip(raws, raws, strict=True) for raw in pair] + [b"rubbish"]
    tapes: list[tuple[Tape, list[bytes]]] = [
        (SqliteTape(tmp_path / "copy.db"), raws),
        (MemoryTape(), by_slice),
        (UnconditionalMemoryTape(), noisy),
    ]
    for number, (tape, order) in enumerate(tapes):
        await tape.found(log.identity)
        await tape.append(0, order, START)
        copy = await site.open(f"index-{number}.db", tape=tape)
        assert await export(copy) == data


async def test_one_stream_comes_with_its_keys(site: Site) -> None:
    log = await filled(site)
    one = await export(log, ["note/b"])
    assert check_export(one, log.identity.root)["finding"] == ""
    names = {record.header.stream for record in read_export(one)[1]}
    part = next(record.header.slice for record in read_export(one)[1])
    assert names == {b"note/b", b"keys/%d" % part}
    both = await export(log, ["zoo/z", "note/b", "zoo/z"])
    assert both == await export(log, ["note/b", "zoo/z"])
    only_keys = await export(log, ["keys/3"])
    assert {record.header.stream for record in read_export(only_keys)[1]} == {b"keys/3"}


@pytest.mark.parametrize("name", ["note/none", "no stream", "", "keys/99", "note/b\n"])
async def test_a_stream_that_is_not_there(site: Site, name: str) -> None:
    log = await filled(site)
    with pytest.raises(EventStoreError, match="stream"):
        await export(log, [name])


async def test_what_comes_meanwhile_is_not_half_in_it(site: Site) -> None:
    log = await filled(site)
    writer = await Issuer(log).writer("note/c")
    before, chunks = await export(log), []
    revision = 0
    async for chunk in export_chunks(log, []):
        chunks.append(chunk)
        await log.append(writer, notes("meanwhile"), expected=revision)
        revision += 1
    data = b"".join(chunks)
    report = check_export(data, log.identity.root)
    assert report["finding"] == ""
    assert len(data) >= len(before)


async def test_another_process_wrote_behind_this_ones_back(site: Site) -> None:
    """The index file is shared, and the other has read further: this one catches up."""
    log = await filled(site)
    other = await site.open()
    await other.append(await Issuer(other).writer("note/c"), notes("x"), expected=0)
    await other.refresh()
    for number in range(3):
        await other.append(await Issuer(other).writer(f"note/d{number}"), notes("x"), expected=0)
    for name in ([], ["note/a"]):
        assert check_export(await export(log, name), log.identity.root)["finding"] == ""


@pytest.mark.parametrize("back", [1, 40, -100])
async def test_a_record_that_was_altered_is_not_exported(site: Site, back: int) -> None:
    log = await filled(site)
    tape = site.memory
    number = next(n for n, raw in enumerate(tape.records) if parse(raw).header.stream == b"note/b")
    raw = bytearray(tape.records[number])
    raw[-back] ^= 1
    tape.records[number] = bytes(raw)
    with pytest.raises((CorruptLogError, StoreError)):
        await export(log)
    assert check_export(await export(log, ["zoo/z"]), log.identity.root)["finding"] == ""


async def test_a_tape_that_answers_with_other_records(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    log = await filled(site)
    fetch = log.tape.fetch

    async def backwards(lane: int, places: list[int]) -> list[Entry]:
        return list(reversed(await fetch(lane, places)))

    monkeypatch.setattr(log.tape, "fetch", backwards)
    with pytest.raises(CorruptLogError):
        await export(log)


@pytest.mark.parametrize("cut", [0, 10, 89, 100, -1])
def test_no_export(cut: int) -> None:
    whole = (Path(__file__).parents[1] / "vectors/log-format/good/one-commit.party").read_bytes()
    assert len(read_export(whole)[1]) == 3
    for data in (whole[:cut], whole + b"\0", b"x" + whole[1:], whole[:-1] + bytes([whole[-1] ^ 1])):
        with pytest.raises(Malformed):
            read_export(data)
