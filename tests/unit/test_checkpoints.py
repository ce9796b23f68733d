"""Signed checkpoints: what they say, who may say it, and the one that is remembered."""

import hashlib
import os
from pathlib import Path

import pytest

from agent_party.eventstore.checkpoints import Checkpoint, read, remember, remembered, sign
from agent_party.eventstore.commit import SigningKey
from agent_party.eventstore.errors import KeyringError
from agent_party.eventstore.verify import Identity, Malformed, identity

KEY, OTHER = SigningKey.from_seed(bytes(32)), SigningKey.from_seed(bytes([1]) * 32)
LOG: Identity = identity(KEY.public, 16, bytes(32))


def some(size: int = 3, **slices: int) -> Checkpoint:
    sizes = {0: size} | {int(name[1:]): n for name, n in slices.items()}
    return Checkpoint(LOG.log_id, {n: (size, hashlib.sha256(bytes([n, size])).digest()) for n, size in sizes.items()})


def test_it_comes_back() -> None:
    checkpoint = some(3, s7=12)
    assert read(sign(checkpoint, KEY), LOG, KEY.public) == checkpoint
    assert checkpoint.size == 15


def test_its_form_is_a_signed_note() -> None:
    """C2SP signed-note: a body, an empty line, signature lines of an em dash, a name and key hash with signature."""
    body, _, signatures = sign(some(), KEY).partition("\n\n")
    assert body.splitlines()[:2] == [f"agent-party/{LOG.log_id.hex()}", "3"]
    assert signatures.startswith(f"\u2014 agent-party/{LOG.log_id.hex()} ")
    assert signatures.endswith("\n")


def test_another_key_or_another_log_is_refused() -> None:
    with pytest.raises(Malformed, match="not signed"):
        read(sign(some(), OTHER), LOG, KEY.public)
    with pytest.raises(Malformed, match="not a checkpoint of this log"):
        read(sign(some(), KEY), identity(OTHER.public, 16, bytes(32)), KEY.public)


def test_no_bit_can_be_changed() -> None:
    """The name before the signature may be repeated or padded by others; what is signed may not."""
    note = sign(some(3, s7=12), KEY).encode()
    for index in range(len(note)):
        altered = bytearray(note)
        altered[index] ^= 1
        try:
            assert read(altered.decode(), LOG, KEY.public) == some(3, s7=12)
            assert index >= note.index(b"\n\n")
        except (Malformed, UnicodeDecodeError):
            continue


@pytest.mark.parametrize("cut", [0, 1, 20, 100, -1, -90])
def test_a_cut_note_is_refused(cut: int) -> None:
    note = sign(some(), KEY)
    with pytest.raises(Malformed):
        read(note[:cut], LOG, KEY.public)


def test_lines_that_do_not_say_what_the_root_says_are_refused() -> None:
    body = some().body().replace("slice 0 3", "slice 0 03")
    with pytest.raises(Malformed):
        read(_signed(body), LOG, KEY.public)
    with pytest.raises(Malformed, match="cannot be read"):
        read(_signed(some().body() + "slice x\n"), LOG, KEY.public)


def _signed(body: str) -> str:
    class Forged(Checkpoint):
        def body(self) -> str:
            return body

    return sign(Forged(LOG.log_id, {}), KEY)


# The remembered one


def test_the_larger_one_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    assert remembered(path, LOG, KEY.public) is None
    for size, kept in ((5, 5), (3, 5), (5, 5), (9, 9)):
        remember(path, some(size), LOG, KEY)
        assert remembered(path, LOG, KEY.public) == some(kept)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["checkpoint", "checkpoint.lock"]


def test_of_each_slice_the_larger_is_kept(tmp_path: Path) -> None:
    """Two processes have read further in one lane each; neither checkpoint as a whole is the later one."""
    path = tmp_path / "checkpoint"
    remember(path, some(9, s7=3), LOG, KEY)
    remember(path, some(4, s7=5), LOG, KEY)
    assert remembered(path, LOG, KEY.public) == some(9, s7=5)
    remember(path, some(1, s3=1), LOG, KEY)
    assert remembered(path, LOG, KEY.public) == some(9, s3=1, s7=5)


def test_another_root_of_the_same_size_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    remember(path, some(5), LOG, KEY)
    remember(path, Checkpoint(LOG.log_id, {0: (5, bytes(32)), 1: (1, bytes(32))}), LOG, KEY)
    kept = remembered(path, LOG, KEY.public)
    assert kept
    assert kept.slices == {**some(5).slices, 1: (1, bytes(32))}


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff\xff", sign(some(), OTHER).encode()])
def test_a_damaged_one_says_so(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "checkpoint"
    path.write_bytes(content)
    with pytest.raises(KeyringError, match="damaged"):
        remembered(path, LOG, KEY.public)


def test_it_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    replace = Path.replace

    def rename(path: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", lambda _: steps.append("sync"))
    monkeypatch.setattr(Path, "replace", rename)
    remember(tmp_path / "checkpoint", some(), LOG, KEY)
    assert steps[:2] == ["sync", "rename"]
