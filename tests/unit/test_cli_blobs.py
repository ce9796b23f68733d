"""`party blobs`: list, verify, gc."""

from pathlib import Path

import pytest

from agent_party.cli.blobs import seconds
from tests.cli_kit import Cli


def orphan(cli: Cli, content: bytes = b"nobody's") -> str:
    """A blob that nothing names."""
    import hashlib

    name = hashlib.sha256(content).hexdigest()
    path = cli.folder / ".party" / "blobs" / name[:2] / name[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return name


@pytest.fixture
def held(cli: Cli) -> Cli:
    """A party with a large payload on its log."""
    cli.ask("crow" * 20_000)
    return cli


def test_list_verify_and_sweep(held: Cli) -> None:
    named = [row for row in held.json("blobs", "list") if row["named"]]
    assert named
    assert held.json("blobs", "verify") == {"ok": True, "named": len(named), "bad": []}
    lost = orphan(held)
    assert [row["blob"] for row in held.json("blobs", "list", "--unnamed")] == [lost]
    assert held.json("blobs", "gc")["set_aside"] == []  # it is young
    dry = held.json("blobs", "gc", "--dry-run", "--older-than", "0s")
    assert [row["blob"] for row in dry["set_aside"]] == [lost]
    told = held.json("blobs", "gc", "--older-than", "0s")
    for row in (*dry["set_aside"], *told["set_aside"]):
        assert row.pop("age") >= 0  # it grows from one run to the next
    assert told == {**dry, "dry_run": False}
    assert "1 deleted" in held.text("blobs", "gc", "--older-than", "0s")
    assert held.json("blobs", "list", "--unnamed") == []
    assert held.json("blobs", "verify")["ok"]
    assert not list((held.folder / ".party" / "blobs").rglob(lost))


def test_what_is_damaged_is_found(held: Cli) -> None:
    row = next(row for row in held.json("blobs", "list") if row["named"])
    path = held.folder / ".party" / "blobs" / row["blob"][:2] / row["blob"][2:]
    path.write_bytes(b"torn")
    told = held.json("blobs", "verify", code=1)
    assert [one["blob"] for one in told["bad"]] == [row["blob"]]
    path.unlink()
    assert "missing or damaged" in held.run("blobs", "verify", code=1).stdout


@pytest.mark.parametrize(
    ("text", "expected"), [("90", 90), ("90s", 90), ("15m", 900), ("36h", 129_600), ("7d", 604_800)]
)
def test_lengths_of_time(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "d", "-1d", "7w", "nan"])
def test_what_is_no_length_of_time(cli: Cli, text: str) -> None:
    cli.ask()
    assert "length of time" in cli.json("blobs", "gc", f"--older-than={text}", code=2)["message"]


def test_doctor_looks_at_the_folder(cli: Cli) -> None:
    found = {row["check"]: row for row in cli.json("doctor")["checks"]}
    assert found["blobs"]["detail"] == "none yet"
    assert Path.cwd() == cli.folder
