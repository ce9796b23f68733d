"""Sweeping: what the log names stays, what it does not goes, in two runs, and never from under a writer."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent_party.eventstore import blobs as limits
from agent_party.eventstore import parts, puts
from agent_party.eventstore.artifacts import Artifact, fetch_pieces, keep, keep_pieces
from agent_party.eventstore.backends.blob_memory import MemoryBlobs
from agent_party.eventstore.codec import Codec, event
from agent_party.eventstore.errors import BlobError, ConflictError, StoreBusyError, UnknownOutcomeError, WrongLogError
from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.log import Log, Writer
from agent_party.eventstore.puts import PINS, Process
from agent_party.eventstore.sweeping import Swept, named_blobs, sweep
from agent_party.eventstore.tape import START
from agent_party.eventstore.verify import sha256
from tests.eventstore_kit import Lost, Note, Site, notes

STREAM = "task/one"


@event("page.kept")
class Kept(msgspec.Struct, frozen=True):
    """An event that names blobs."""

    attachments: list[bytes]


class Place(Site):
    """A site whose events name blobs, and whose blobs have a clock that tests move."""

    def __init__(self, folder: Path, kind: str = "memory") -> None:
        super().__init__(folder, kind)
        self.now = 1_000_000.0
        self.store = MemoryBlobs(lambda: self.now)
        self.blobs = self.store

    async def log(self, **more: Any) -> tuple[Log, Writer]:
        log = await self.open(**more)
        log.opener._codec = log.codec = Codec([Note, Kept])
        return log, await Issuer(log).writer(STREAM)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART", 1_000)
    monkeypatch.setattr(puts, "LINGER", 0.0)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(tmp_path)
    yield place
    await place.close()


async def swept(log: Log, **options: Any) -> Swept:
    await asyncio.sleep(0)  # pins that are over are taken away by now
    await asyncio.gather(*log.puts._removals)
    return await sweep(log, **{"older_than": 0.0, **options})


async def gone(log: Log) -> list[bytes]:
    """What two runs delete."""
    first = await swept(log)
    assert first.deleted == []
    return (await swept(log)).deleted


async def orphan(log: Log, content: bytes = b"nobody's") -> bytes:
    """A blob that no record will name."""
    await log.puts.claim()
    await log.blobs.put(sha256(content), content)
    return sha256(content)


async def source(size: int) -> AsyncIterator[bytes]:
    yield bytes(n * n % 251 for n in range(size))


async def read(log: Log, artifact: Artifact) -> int:
    return sum([len(piece) async for piece in fetch_pieces(log, artifact)])


async def test_what_is_named_stays_and_the_rest_goes_in_two_runs(place: Place) -> None:
    log, writer = await place.log()
    payload = "a large payload" * 10_000
    await log.append(writer, notes(payload), expected=0)
    page = await keep(log, STREAM, "page", b"words")
    weights = await keep_pieces(log, STREAM, "weights", source(3_500))
    await log.append(writer, [Kept([page.blob, weights.blob])], expected=1)
    lost = await orphan(log)
    half = await keep_pieces(log, STREAM, "half", source(1_500))
    for pin, _ in log.puts._held.pop(half.blob):
        log.puts.end(pin)  # nobody will name it
    first = await swept(log)  # its first part is one of the others' too, and stays
    assert (len(first.set_aside), first.deleted, first.waiting, first.named, first.stored) == (3, [], {}, 7, 10)
    assert await log.blobs.get(lost) == b"nobody's"  # set aside, not gone
    second = await swept(log)
    assert lost in second.deleted
    assert half.blob in second.deleted
    assert len(second.deleted) == 3
    assert (await swept(log)) == Swept(7, 7, [], [], [], {}, [])
    assert (await anext(log.read(STREAM))).events == (Note(payload),)
    assert await read(log, page) == 5
    assert await read(log, weights) == 3_500


async def test_what_is_young_is_left_alone(place: Place) -> None:
    log, _ = await place.log()
    old = await orphan(log, b"old")
    place.now += 1_000
    young = await orphan(log, b"young")
    place.now += 10
    assert [one.name for one in (await swept(log, older_than=500)).set_aside] == [old]
    assert (await swept(log, older_than=500)).deleted == [old]
    assert await log.blobs.has(young)


async def test_a_dry_run_changes_nothing_and_tells_the_same(place: Place) -> None:
    log, _ = await place.log()
    lost = await orphan(log)
    told = await swept(log, dry_run=True)
    assert told == await swept(log, dry_run=True)
    assert await log.blobs.has(lost)
    assert told == await swept(log)
    assert (await swept(log, dry_run=True)).deleted == [lost]
    assert place.store.set_apart
    assert (await swept(log)).deleted == [lost]


async def test_a_writer_between_put_and_record(place: Place) -> None:
    """However many runs come in between, what it put is there when its record is."""
    log, writer = await place.log()
    page = await keep(log, STREAM, "page", b"words")
    place.now += 1e9
    for number in range(4):
        told = await swept(log)
        assert told.deleted == []
        assert bool(told.waiting) == bool(number)
    await log.append(writer, [Kept([page.blob])], expected=0)
    assert (await swept(log)).brought_back == [page.blob]
    assert await log.blobs.has(page.blob)
    assert await gone(log) == []
    assert await read(log, page) == 5


async def test_a_writer_that_finds_its_bytes_there_already(place: Place) -> None:
    """A put that is nothing, because an older one is there, which nobody names: the sweep may not take that."""
    log, writer = await place.log()
    name = await orphan(log, b"shared")
    place.now += 1e9
    await log.puts.put(name, b"shared")
    assert [one.name for one in (await swept(log)).set_aside] == [name]
    assert (await swept(log)).deleted == []
    await log.append(writer, [Kept([name])], expected=0)
    assert (await swept(log)).brought_back == [name]
    assert await log.blobs.get(name) == b"shared"


async def test_a_writer_that_comes_after_it_was_set_aside(place: Place) -> None:
    """It puts the bytes anew, and what was set aside can go."""
    log, writer = await place.log()
    name = await orphan(log, b"shared")
    await swept(log)
    await log.puts.put(name, b"shared")
    assert (await swept(log)).deleted == [name]
    await log.append(writer, [Kept([name])], expected=0)
    assert await gone(log) == []
    assert await log.blobs.get(name) == b"shared"


async def test_a_payload_on_its_way(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim check: the sweep runs between the put of the payload and the append of its record."""
    log, writer = await place.log()
    told: list[Swept] = []
    append = log.tape.append

    async def slow(*given: Any) -> Any:
        told.extend([await sweep(log, older_than=0.0), await sweep(log, older_than=0.0)])
        return await append(*given)

    monkeypatch.setattr("agent_party.eventstore.sweeping.named_blobs", nothing_named)
    monkeypatch.setattr(log.tape, "append", slow)
    monkeypatch.setattr(log.tape, "append_at_once", lambda *given: None)
    await log.append(writer, notes("a large payload" * 10_000), expected=0)
    assert [len(one.set_aside) for one in told] == [1, 0]
    assert [one.deleted for one in told] == [[], []]
    assert told[1].waiting
    monkeypatch.undo()
    assert len((await swept(log)).brought_back) == 1
    assert len([commit async for commit in log.read(STREAM)]) == 1


async def nothing_named(log: Log, sizes: dict[bytes, int]) -> Any:
    """What a reading of the log comes to that was begun before the record landed."""
    from agent_party.eventstore.sweeping import Named

    return Named(set(), set(), {})


async def test_an_append_whose_outcome_is_unknown_keeps_its_puts(tmp_path: Path) -> None:
    """Until it is known: here the record lands after all, long after its writer gave up."""
    place = Place(tmp_path, "unconditional")
    log, writer = await place.log()
    lost = Lost()
    place.unconditional.fate = lost
    with pytest.raises(UnknownOutcomeError):
        await log.append(writer, notes("large" * 20_000), expected=0, deadline=1.0)
    other = await place.open("other.db")
    await swept(other)
    for _ in range(3):
        assert (await swept(other)).waiting
    place.unconditional.fate = lambda raw: "now"
    await place.unconditional.append(0, [lost.raws[0]], START)
    assert len((await swept(other)).brought_back) == 1
    assert [commit.events[0].text[:5] async for commit in other.read(STREAM)] == ["large"]
    await place.close()


async def test_a_refused_append_gives_its_puts_up(place: Place) -> None:
    log, writer = await place.log()
    with pytest.raises(ConflictError):
        await log.append(writer, notes("large" * 20_000), expected=7)
    assert await gone(log) == []
    assert await log.blobs.notes(PINS) == {}


async def test_what_was_held_for_too_long_is_looked_at_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    log, writer = await place.log()
    monkeypatch.setattr(puts, "HOLD", -1.0)
    swept_away = await keep_pieces(log, STREAM, "weights", source(2_500))
    still_here = await keep_pieces(log, STREAM, "others", source(1_500))
    await log.puts.put(sha256(b""), b"")  # any put looks what was held for too long
    first = await swept(log)
    assert len(first.set_aside) >= 6
    await log.append(writer, [Kept([still_here.blob])], expected=0)  # while it is set aside
    await swept(log)
    await swept(log)
    with pytest.raises(BlobError, match=swept_away.blob.hex()):
        await log.append(writer, [Kept([swept_away.blob])], expected=1)
    assert (await log.state(STREAM)).revision == 1
    assert await read(log, still_here) == 1_500


async def test_pins_are_taken_away(place: Place) -> None:
    log, writer = await place.log()
    await log.append(writer, notes("large" * 20_000), expected=0)
    await log.append(writer, notes("small"), expected=1)
    await asyncio.gather(*log.puts._removals)
    await swept(log)
    assert await log.blobs.notes(PINS) == {}
    await keep(log, STREAM, "page", b"words")
    assert len(await log.blobs.notes(PINS)) == 1
    await log.close()
    assert place.store.left.keys() == {"log"}


async def test_new_puts_do_not_hold_up_a_sweep_for_ever(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a steady load there is always an open put, and still each pin has an end."""
    log, writer = await place.log()
    lost = await orphan(log)
    monkeypatch.setattr(puts, "FRESH", 0.0)
    pages = [await keep(log, STREAM, "page", b"0")]
    await swept(log)
    for number in range(3):
        pages.append(await keep(log, STREAM, "page", bytes([number])))
        await log.append(writer, [Kept([pages[number].blob])], expected=number)
        if lost in (await swept(log)).deleted:
            break
    else:
        pytest.fail("it was never deleted")


async def test_the_pin_of_a_dead_process(place: Place) -> None:
    log, _ = await place.log()
    lost = await orphan(log)
    await swept(log)
    this = Process.this()
    assert not this.is_dead(one_node=True)
    dead = msgspec.structs.replace(this, started="0")
    begun = msgspec.msgpack.decode(place.store.left["sweep"])
    assert begun == {"aside": [[lost, begun["aside"][0][1]]], "pins": []}
    for key, process in (("pins/dead", dead), ("pins/far", msgspec.structs.replace(this, boot="another"))):
        await log.blobs.note(key, msgspec.json.encode(process))
    await log.blobs.note("pins/odd", b"?")
    begun["pins"] = ["pins/dead", "pins/far", "pins/odd"]
    await log.blobs.note("sweep", msgspec.msgpack.encode(begun))
    told = await swept(log)
    assert (told.released, told.deleted, set(told.waiting)) == (["pins/dead"], [], set(begun["pins"]))
    assert set((await swept(log)).waiting) == {"pins/far", "pins/odd"}
    assert (await swept(log, one_node=True, release=["odd"])).deleted == []
    assert (await swept(log)).deleted == [lost]


async def test_a_run_that_broke_off_is_taken_up(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    log, _ = await place.log()
    lost = [await orphan(log, bytes([n])) for n in range(3)]
    note = log.blobs.note

    async def broken(key: str, content: bytes, *, new: bool = False) -> bool:
        if key == "sweep":
            raise OSError("killed")
        return await note(key, content, new=new)

    monkeypatch.setattr(log.blobs, "note", broken)
    with pytest.raises(OSError, match="killed"):
        await swept(log)
    monkeypatch.undo()
    with pytest.raises(StoreBusyError, match=f"process {os.getpid()} .* --release sweeping"):
        await swept(log)
    assert (await sweep(log, older_than=0.0, release=["sweeping"])).deleted == []
    assert sorted((await swept(log)).deleted) == sorted(lost)
    assert place.store.set_apart == {}


async def test_one_run_at_a_time(place: Place) -> None:
    log, _ = await place.log()
    await orphan(log, b"lost")
    assert await log.blobs.note("sweeping", b"of another version", new=True)
    assert (await sweep(log, older_than=0.0, dry_run=True)).set_aside, "looking takes no turn"
    with pytest.raises(StoreBusyError, match="another process sweeps"):
        await swept(log)
    await log.blobs.remove_note("sweeping")
    dead = msgspec.structs.replace(Process.this(), started="long ago")
    await log.blobs.note("sweeping", msgspec.json.encode(dead))
    assert (await swept(log)).set_aside, "a dead process has no turn"
    assert await log.blobs.notes("sweeping") == {}


async def test_another_logs_blobs_are_left_alone(place: Place, tmp_path: Path) -> None:
    log, writer = await place.log()
    await log.append(writer, notes("large" * 20_000), expected=0)
    other = Place(tmp_path / "other")
    other.blobs = other.store = place.store
    stranger, second = await other.log()
    with pytest.raises(WrongLogError, match="of its own"):
        await sweep(stranger, older_than=0.0)
    with pytest.raises(WrongLogError, match="of its own"):
        await stranger.append(second, notes("large" * 20_000), expected=0)
    (name,) = place.store.contents
    await place.store.set_aside(name, "run")
    with pytest.raises(WrongLogError, match="of its own"):
        await sweep(stranger, older_than=0.0)
    await place.store.bring_back(name, "run")
    place.store.left.clear()  # from before blobs had an owner
    with pytest.raises(WrongLogError, match="names none of them"):
        await sweep(stranger, older_than=0.0)
    assert len(place.store.contents) == 1
    await other.close()


@pytest.mark.parametrize("how", ["missing", "damaged"])
async def test_a_list_that_cannot_be_read_stops_the_sweep(place: Place, how: str) -> None:
    log, writer = await place.log()
    weights = await keep_pieces(log, STREAM, "weights", source(3_500))
    await log.append(writer, [Kept([weights.blob])], expected=0)
    content = place.store.contents.pop(weights.blob)
    if how == "damaged":
        place.store.contents[weights.blob] = content[:-1] + b"?"
    with pytest.raises(BlobError, match="nothing is swept: restore"):
        await swept(log)
    assert len((await swept(log, despite_unreadable=True, dry_run=True)).set_aside) == 4 + (how == "damaged") - 1 + (
        how == "missing"
    )
    place.store.contents[weights.blob] = content
    assert await gone(log) == []
    assert await read(log, weights) == 3_500


async def test_what_is_named_is_found_over_many_records(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_party.eventstore.sweeping._ROWS", 7)
    log, writer = await place.log()
    names = []
    for number in range(40):
        names.append((await keep(log, STREAM, "page", bytes([number]))).blob)
        await log.append(writer, [Kept([names[-1]])], expected=number)
    assert (await named_blobs(log, {})).blobs == set(names)
    assert limits.MAX_BLOB
