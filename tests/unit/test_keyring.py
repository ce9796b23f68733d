"""Keys on disk: private, made once whoever comes first, and never taken for another's."""

import errno
import multiprocessing
import os
import stat
from pathlib import Path

import pytest

from agent_party.eventstore.errors import KeyringError, KeyringPermissionsError, WrongKeyError
from agent_party.eventstore.keyring import Keyring, Pinned, state_folder
from agent_party.eventstore.verify import Identity, identity


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring(tmp_path / "state")


@pytest.fixture
def log(keyring: Keyring) -> Identity:
    return keyring.found(16)[0]


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"PARTY_STATE_DIR": "/a/b"}, "/a/b"),
        ({"PARTY_STATE_DIR": "/a/b", "XDG_STATE_HOME": "/x"}, "/a/b"),
        ({"XDG_STATE_HOME": "/x"}, "/x/agent-party"),
        ({}, str(Path.home() / ".local/state/agent-party")),
    ],
)
def test_where_it_lies(environment: dict[str, str], folder: str) -> None:
    assert state_folder(environment) == Path(folder)


def test_only_its_owner_may_read_it(keyring: Keyring, log: Identity) -> None:
    assert keyring.issuing(log) != keyring.checkpoint_key(log)
    assert keyring.secret(log, "wrapping") != keyring.person("p1").secret
    keyring.pin(Pinned("00" * 32, 16, "00" * 32, "j"))
    for path in [keyring.folder, *keyring.folder.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


@pytest.mark.parametrize("mode", [0o701, 0o750, 0o777])
def test_a_folder_others_may_enter_is_refused(keyring: Keyring, mode: int) -> None:
    keyring.folder.chmod(mode)
    with pytest.raises(KeyringPermissionsError, match=f"mode {mode:o}.*chmod 700"):
        Keyring(keyring.folder)


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o666])
def test_a_key_others_may_read_is_refused(keyring: Keyring, log: Identity, mode: int) -> None:
    path = keyring.log_folder(log) / "root.key"
    path.chmod(mode)
    with pytest.raises(KeyringPermissionsError, match=f"mode {mode:o}.*chmod 600"):
        keyring.root(log)
    path.chmod(0o600)
    keyring.root(log)


def test_the_wrong_key_is_noticed(keyring: Keyring, log: Identity) -> None:
    (keyring.log_folder(log) / "root.key").write_bytes(bytes(32))
    with pytest.raises(WrongKeyError, match="not the root key of log"):
        keyring.root(log)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_cut_key_is_noticed(keyring: Keyring, log: Identity, size: int) -> None:
    (keyring.log_folder(log) / "root.key").write_bytes(bytes(size))
    with pytest.raises(WrongKeyError, match=f"holds {size} bytes"):
        keyring.root(log)


def test_a_missing_root_key_is_not_made_anew(keyring: Keyring, log: Identity) -> None:
    (keyring.log_folder(log) / "root.key").unlink()
    assert not keyring.has(log)
    with pytest.raises(KeyringError, match="restore it"):
        keyring.root(log)
    assert not keyring.has(log)


def test_asking_about_another_log_leaves_no_trace(keyring: Keyring) -> None:
    assert not keyring.has(identity(bytes(32), 16, bytes(32)))
    assert not (keyring.folder / "logs").exists()


def test_every_key_is_its_own_and_the_same_again(keyring: Keyring, log: Identity) -> None:
    def all_of(ring: Keyring) -> list[bytes]:
        keys = [ring.root(log), ring.issuing(log), ring.checkpoint_key(log), ring.person("p1"), ring.person("p2")]
        return [key.public for key in keys] + [ring.secret(log, "wrapping"), ring.secret(log, "index")]

    first = all_of(keyring)
    assert len(set(first)) == len(first)
    assert all_of(Keyring(keyring.folder)) == first


def test_rotation_goes_on_from_the_newest(keyring: Keyring, log: Identity) -> None:
    first = keyring.issuing(log)
    (keyring.log_folder(log) / "issuing-old.key").write_bytes(b"a stray copy")
    second = keyring.rotate_issuing(log)
    assert first != second == keyring.issuing(log) == Keyring(keyring.folder).issuing(log)
    assert keyring.rotate_issuing(log) not in (first, second)


@pytest.mark.parametrize("person", ["", "Ada", "a/b", "../a", "a" * 65, "-a", "a\n"])
def test_a_persons_id_is_a_plain_word(keyring: Keyring, person: str) -> None:
    with pytest.raises(KeyringError, match="is no person's id"):
        keyring.person(person)


def test_nobody_is_made_up(keyring: Keyring) -> None:
    with pytest.raises(KeyringError, match="no key of 'p9'"):
        keyring.known_person("p9")
    made = keyring.person("p1")
    assert keyring.known_person("p1") == made


def _make(folder: Path, log: Identity, names: list[str]) -> list[bytes]:
    ring = Keyring(folder)
    return [ring.secret(log, name) for name in names] + [ring.person("p1").public, ring.issuing(log).public]


def test_processes_at_once_make_one_key(keyring: Keyring, log: Identity) -> None:
    names = [f"s{n}" for n in range(20)]
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        made = pool.starmap(_make, [(keyring.folder, log, names)] * 8)
    assert all(keys == made[0] for keys in made)
    assert len(set(made[0])) == len(made[0])
    assert list(keyring.folder.rglob(".*")) == []


# Which log belongs to which journal


def test_a_pin_is_remembered_until_it_is_forgotten(keyring: Keyring, log: Identity) -> None:
    assert keyring.pinned("j") is None
    assert not keyring.forget("j")
    pinned = Pinned(log.root.hex(), log.slices, log.nonce.hex(), "j")
    keyring.pin(pinned)
    assert Keyring(keyring.folder).pinned("j") == pinned
    assert pinned.identity() == log
    assert keyring.pinned("k") is None
    assert keyring.forget("j")
    assert keyring.pinned("j") is None
    assert keyring.root(log)  # its keys stay


def test_the_first_pin_stays(keyring: Keyring) -> None:
    keyring.pin(Pinned("00" * 32, 1, "00" * 32, "j"))
    keyring.pin(Pinned("11" * 32, 1, "11" * 32, "j"))
    assert keyring.pinned("j") == Pinned("00" * 32, 1, "00" * 32, "j")


@pytest.mark.parametrize("content", [b"", b"{", b'{"root": 3}', b"\xff\xfe"])
def test_a_damaged_pin_says_so(keyring: Keyring, content: bytes) -> None:
    keyring.pin(Pinned("00" * 32, 1, "00" * 32, "j"))
    next((keyring.folder / "journals").iterdir()).write_bytes(content)
    with pytest.raises(KeyringError, match="cannot be read"):
        keyring.pinned("j")


@pytest.mark.parametrize("step", ["fsync", "link"])
def test_a_full_disk_leaves_no_half_key(
    keyring: Keyring, log: Identity, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, step, fail)
        with pytest.raises(KeyringError, match="No space left"):
            keyring.secret(log, "wrapping")
    assert sorted(path.name for path in keyring.log_folder(log).iterdir()) == ["root.key"]
    keyring.secret(log, "wrapping")
