"""Certificates, grants, fences: who may write, decided by position alone."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent_party.eventstore import grants
from agent_party.eventstore.commit import SigningKey
from agent_party.eventstore.errors import ControlRefusedError, GrantEndedError, WrongKeyError
from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.log import Log
from agent_party.eventstore.verify import OWNER, WRITER, slice_of
from tests.eventstore_kit import Site, notes, truth_of


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path, "memory")
    yield site
    await site.close()


@pytest.fixture
async def log(site: Site) -> Log:
    return await site.open()


def certified(log: Log) -> list[set[bytes]]:
    return [set(log.index.part(number)[0].issuers.values()) for number in range(16)]


async def test_the_issuing_key_is_certified_in_every_slice_once(site: Site, log: Log) -> None:
    key = log.keyring.issuing(log.identity).public
    assert certified(log) == [{key}] * 16
    await asyncio.gather(*(Issuer(log).ensure_certified() for _ in range(3)))
    await (await site.open("other.db")).close()
    assert log.index.sizes() == dict.fromkeys(range(16), 1)


async def test_rotation_certifies_the_next_key_beside_the_old(log: Log) -> None:
    old = log.keyring.issuing(log.identity).public
    new = await Issuer(log).rotate()
    assert certified(log) == [{old, new}] * 16
    writer = await Issuer(log).writer("note/a")
    await log.append(writer, notes("x"), expected=0)


async def test_what_a_revoked_key_granted_before_stays(log: Log) -> None:
    writer = await Issuer(log).writer("note/a")
    old = log.keyring.issuing(log.identity)
    await Issuer(log).revoke(old.public)
    await log.append(writer, notes("still mine"), expected=0)
    assert (await truth_of(log)).rejected == []


async def test_a_revoked_key_is_not_certified_again(site: Site, log: Log) -> None:
    """Not even when it was the one in use: whoever opens the log next uses its successor."""
    old = log.keyring.issuing(log.identity).public
    await Issuer(log).revoke(old)
    await log.close()
    again = await site.open()
    assert all(old not in keys and len(keys) == 1 for keys in certified(again))
    await Issuer(again).writer("note/a")


async def test_revoking_twice_is_nothing(log: Log) -> None:
    old = log.keyring.issuing(log.identity).public
    await Issuer(log).revoke(old)
    sizes = log.index.sizes()
    await Issuer(log).revoke(old)
    assert log.index.sizes() == sizes


async def test_a_process_that_has_not_read_of_a_rotation_grants_all_the_same(site: Site, log: Log) -> None:
    other = await site.open("other.db")
    await Issuer(other).rotate()
    writer = await Issuer(log).writer("note/a")
    await log.append(writer, notes("x"), expected=0)
    other.keyring.rotate_issuing(log.identity)  # made, and its maker died before it was certified
    await Issuer(log).writer("note/b")


async def test_a_key_that_is_not_the_certified_one_is_refused(log: Log) -> None:
    part = slice_of(log.identity, b"note/a")
    certificate = next(iter(log.index.part(part)[0].issuers))
    key = SigningKey.from_seed(bytes(32))
    payload = bytes([OWNER]) + key.public + bytes(16)
    with pytest.raises(WrongKeyError):
        await log.append_control("note/a", b"grant", payload, key, grant=certificate)
    with pytest.raises(WrongKeyError):
        await log.append_control("keys/3", b"certify", key.public, key)
    with pytest.raises(ControlRefusedError, match="no-grant"):
        await log.append_control("note/a", b"grant", payload, key, grant=bytes([9]) * 32)
    assert (await truth_of(log)).rejected == []


@pytest.mark.parametrize("key", [bytes(32), b"\1" + bytes(31), b"\xff" * 32], ids=["zero", "identity", "not canonical"])
async def test_an_unsound_key_is_not_granted(log: Log, key: bytes) -> None:
    with pytest.raises(ControlRefusedError, match="not-allowed"):
        await Issuer(log).grant("note/a", key)


@pytest.mark.parametrize(
    ("stream", "role"), [("note/a", WRITER), ("inbox/a", OWNER), ("note/a", 0), ("note/a", 3), ("keys/1", OWNER)]
)
async def test_a_role_that_a_stream_does_not_have_is_refused(log: Log, stream: str, role: int) -> None:
    issuer = log.keyring.issuing(log.identity)
    certificate = next(iter(log.index.part(slice_of(log.identity, stream.encode()))[0].issuers))
    payload = bytes([role]) + SigningKey.from_seed(bytes(32)).public + bytes(16)
    with pytest.raises(ControlRefusedError, match="not-allowed"):
        await log.append_control(stream, b"grant", payload, issuer, grant=certificate)


async def test_the_owner_is_who_was_granted_last(log: Log) -> None:
    issuer = Issuer(log)
    with pytest.raises(GrantEndedError):
        await issuer.owner("note/a")
    await issuer.writer("note/a")
    second = await issuer.writer("note/a", holder=b"h" * 16)
    assert await issuer.owner("note/a") == second.grant
    await issuer.fence("note/a", second.grant)
    with pytest.raises(GrantEndedError):
        await issuer.owner("note/a")


async def test_a_fence_ends_one_grant_and_moves_no_head(log: Log) -> None:
    issuer = Issuer(log)
    one, two = await issuer.writer("inbox/a"), await issuer.writer("inbox/a")
    await log.append(one, notes("x"), expected=0)
    head = (await log.state("inbox/a")).head
    await issuer.fence("inbox/a", one.grant)
    await issuer.fence("inbox/a", one.grant)
    assert (await log.state("inbox/a")).head == head
    with pytest.raises(GrantEndedError):
        await log.append(one, notes("y"), expected=1)
    await log.append(two, notes("y"), expected=1)


async def test_a_fence_reaches_a_busy_stream(log: Log) -> None:
    """Whatever the head is: a stolen key that writes all the time cannot starve its own end."""
    writer = await Issuer(log).writer("note/a")

    async def be_busy() -> int:
        done = 0
        while True:
            try:
                await log.append(writer, notes("x"), expected=done)
                done += 1
            except GrantEndedError:
                return done

    busy = asyncio.create_task(be_busy())
    await log.changed(5)
    async with asyncio.timeout(120):
        await Issuer(log).fence("note/a", writer.grant)
        assert await busy == (await log.state("note/a")).revision


async def test_a_full_inbox_makes_room(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grants, "MAX_GRANTS", 20)
    writers = [await Issuer(log).writer("inbox/a") for _ in range(30)]
    held = (await log.state("inbox/a")).grants
    assert len(held) <= 20
    assert writers[-1].grant in held
