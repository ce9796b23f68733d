"""This version reads every log that an earlier one wrote, and goes on with it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from agent_party.eventstore.audit import MATCHES, verify_log
from agent_party.eventstore.errors import EventStoreError, NewerFormatError
from agent_party.eventstore.export import export
from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.log import Log
from agent_party.eventstore.verify import check_export, parse, slice_of
from tests.golden.making import LOGS, Said, opened, told


@pytest.fixture(params=LOGS, ids=lambda folder: folder.name)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy, with the permissions that a keyring must have and a checkout does not keep."""
    copy = tmp_path / "golden"
    shutil.copytree(request.param, copy)
    for path in (copy / "state").rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    (copy / "state").chmod(0o700)
    return copy


def says(folder: Path) -> dict[str, Any]:
    expected: dict[str, Any] = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    return expected


async def formats(log: Log, stream: str) -> list[int]:
    """The format of each data commit of a stream."""
    places = [row.place for row in log.index.rows(stream.encode(), 1, 100)]
    return [parse(entry.raw).header.format for entry in await log.tape.fetch(0, places)]


async def test_it_is_read(golden: Path) -> None:
    log = await opened(golden)
    try:
        assert await told(log) == says(golden)
        audit = await verify_log(log)
        assert (audit.ok, audit.checkpoint.status, audit.checkpoint.tail) == (True, MATCHES, 0)
        assert await export(log) == (golden / "export.party").read_bytes()
    finally:
        await log.close()


def test_its_export_verifies(golden: Path) -> None:
    root, log = (bytes.fromhex(says(golden)[name]) for name in ("root", "log"))
    report = check_export((golden / "export.party").read_bytes(), root, log)
    assert (report["finding"], report["streams"]) == ("", 3 + 4)


async def test_an_altered_one_is_not_read(golden: Path) -> None:
    path = golden / "log.db"
    raw = (golden / "export.party").read_bytes()[-200:-140]
    assert raw in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(raw, bytes([raw[0] ^ 1]) + raw[1:]))
    with pytest.raises(EventStoreError):
        await opened(golden)


async def test_it_goes_on_in_its_own_format_until_it_is_upgraded(golden: Path) -> None:
    log = await opened(golden)
    try:
        own = LOGS.index(next(one for one in LOGS if says(one) == says(golden)))
        writer = await Issuer(log).writer("note/a")
        revision = (await log.state("note/a")).revision
        await log.append(writer, [Said("today")], expected=revision)
        assert await formats(log, "note/a") == [own] * (revision + 1)
        part, root = slice_of(log.identity, b"note/a"), log.keyring.root(log.identity)
        for form in range(own + 1, 2):
            await log.append_control(f"keys/{part}", b"upgrade", bytes([form]), root)
        await log.append(writer, [Said("upgraded")], expected=revision + 1)
        assert await formats(log, "note/a") == [own] * (revision + 1) + [1]
        assert (await verify_log(log)).ok
        assert not check_export(await export(log), log.identity.root)["finding"]
        await log.append_control(f"keys/{part}", b"upgrade", b"\2", root)
        last = log.append(writer, [Said("x")], expected=revision + 2)
        for append in (last, Issuer(log).fence("note/a", writer.grant)):
            with pytest.raises(NewerFormatError, match=r"goes on in format 2 .* upgrade this one"):
                await append
        assert [commit.events async for commit in log.read("note/a", revision + 2)] == [(Said("upgraded"),)]
    finally:
        await log.close()
