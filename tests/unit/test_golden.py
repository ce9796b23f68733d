"""This version reads every log that an earlier one wrote."""

import json
import shutil
from pathlib import Path

import pytest

from agent_party.eventstore.audit import MATCHES, verify_log
from agent_party.eventstore.errors import EventStoreError
from agent_party.eventstore.export import export
from agent_party.eventstore.verify import check_export
from tests.golden.make_v0 import FOLDER, opened, told


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    """A copy, with the permissions that a keyring must have and a checkout does not keep."""
    copy = tmp_path / "v0"
    shutil.copytree(FOLDER, copy)
    for path in (copy / "state").rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    (copy / "state").chmod(0o700)
    return copy


async def test_v0_is_read(golden: Path) -> None:
    expected = json.loads((golden / "expected.json").read_text(encoding="utf-8"))
    log = await opened(golden)
    try:
        assert await told(log) == expected
        audit = await verify_log(log)
        assert (audit.ok, audit.checkpoint.status, audit.checkpoint.tail) == (True, MATCHES, 0)
        assert await export(log) == (golden / "export.party").read_bytes()
    finally:
        await log.close()


def test_the_export_of_v0_verifies() -> None:
    expected = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))
    root, log = (bytes.fromhex(expected[name]) for name in ("root", "log"))
    report = check_export((FOLDER / "export.party").read_bytes(), root, log)
    assert (report["finding"], report["streams"]) == ("", 3 + 4)


async def test_an_altered_v0_is_not_read(golden: Path) -> None:
    path = golden / "log.db"
    raw = (golden / "export.party").read_bytes()[-200:-140]
    assert raw in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(raw, bytes([raw[0] ^ 1]) + raw[1:]))
    with pytest.raises(EventStoreError):
        await opened(golden)
