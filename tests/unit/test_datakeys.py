"""Data keys: one for each subject, wrapped, durable before they seal anything, gone when their row is."""

import sqlite3
from pathlib import Path

import pytest

from agent_party.eventstore import datakeys
from agent_party.eventstore.datakeys import DataKeys
from agent_party.eventstore.errors import DataKeyMissingError, StoreCorruptError, WrongKeyError

WRAPPING = bytes(range(32))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.db"


def test_a_key_is_made_once_and_found_again(path: Path) -> None:
    keys = DataKeys(path, WRAPPING)
    key = keys.of_subject("agent/a")
    assert (len(key.id), len(key.secret)) == (16, 32)
    assert keys.of_subject("agent/a") == key == keys.of_id(key.id)
    assert keys.of_subject("agent/b") not in (key,)
    keys.close()
    again = DataKeys(path, WRAPPING)
    assert again.of_id(key.id) == key == again.of_subject("agent/a")
    again.close()


def test_processes_share_a_subjects_key(path: Path) -> None:
    first, second = DataKeys(path, WRAPPING), DataKeys(path, WRAPPING)
    for number in range(10):
        subject = f"agent/{number}"
        ring = (first, second) if number % 2 else (second, first)
        assert ring[0].of_subject(subject) == ring[1].of_subject(subject)
    first.close()
    second.close()


def test_secrets_stand_nowhere_in_the_file(path: Path) -> None:
    keys = DataKeys(path, WRAPPING)
    secrets = [keys.of_subject(f"agent/{n}").secret for n in range(5)]
    stored = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert not any(secret in stored for secret in secrets)
    assert path.stat().st_mode & 0o077 == 0
    keys.close()


def test_an_erased_key_says_so(path: Path) -> None:
    keys = DataKeys(path, WRAPPING)
    key = keys.of_subject("person/p")
    keys.close()
    with sqlite3.connect(path) as db:
        db.execute("DELETE FROM data_key")
    db.close()
    again = DataKeys(path, WRAPPING)
    with pytest.raises(DataKeyMissingError, match="erased, or this keyring never had it"):
        again.of_id(key.id)
    assert again.of_subject("person/p") != key
    again.close()


def test_the_wrong_wrapping_key_says_so(path: Path) -> None:
    keys = DataKeys(path, WRAPPING)
    key = keys.of_subject("agent/a")
    keys.close()
    other = DataKeys(path, bytes(32))
    with pytest.raises(WrongKeyError, match="do not belong together"):
        other.of_subject("agent/a")
    with pytest.raises(WrongKeyError):
        other.of_id(key.id)
    other.close()


@pytest.mark.parametrize("column", ["subject", "wrapped", "id"])
def test_a_row_cannot_be_given_to_another(path: Path, column: str) -> None:
    keys = DataKeys(path, WRAPPING)
    assert keys.of_subject("agent/a") != keys.of_subject("agent/b")
    keys.close()
    with sqlite3.connect(path) as db:
        rows = db.execute("SELECT id, subject, wrapped FROM data_key ORDER BY subject").fetchall()
        db.execute("DELETE FROM data_key")
        order = ["id", "subject", "wrapped"].index(column)
        swapped = [list(row) for row in rows]
        swapped[0][order], swapped[1][order] = swapped[1][order], swapped[0][order]
        db.executemany("INSERT INTO data_key VALUES (?, ?, ?)", swapped)
    db.close()
    again = DataKeys(path, WRAPPING)
    with pytest.raises(WrongKeyError):
        again.of_subject("agent/a")
    again.close()


def test_memory_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datakeys, "_CACHE", 10)
    keys = DataKeys(path, WRAPPING)
    made = {f"s/{n}": keys.of_subject(f"s/{n}") for n in range(35)}
    assert len(keys._by_id) <= 10
    assert {subject: keys.of_subject(subject) for subject in made} == made
    keys.close()


def test_a_file_that_is_no_database_says_so(path: Path) -> None:
    path.write_bytes(b"this was never a database, and is long enough to be looked at" * 100)
    with pytest.raises(StoreCorruptError, match="not an SQLite file"):
        DataKeys(path, WRAPPING)
