"""Signed checkpoints over all slices, in the form of a C2SP signed note, and the one that is remembered.

    agent-party/LOG ID                    origin
    1234                                  accepted records in all slices
    base64 of the log root
    slice 3 17 base64                     one line for each slice that has records: number, size, root of its tree

    — agent-party/LOG ID base64(key hash ‖ signature)

The log root is SHA-256 over the slice lines. Sources: C2SP signed-note and tlog-checkpoint (extension lines carry the
slices). The remembered one lies outside `.party`, so that a rolled-back or emptied `.party` is noticed.
"""

import base64
import contextlib
import fcntl
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from .commit import SigningKey
from .errors import KeyringError
from .verify import Identity, Malformed, signature_holds

_NOTE_ED25519 = b"\x01"


class Checkpoint(NamedTuple):
    """What a log was: for each slice the size and the root of its tree."""

    log_id: bytes
    slices: Mapping[int, tuple[int, bytes]]

    @property
    def size(self) -> int:
        """Accepted records in all slices."""
        return sum(size for size, _ in self.slices.values())

    def body(self) -> str:
        """The text that is signed."""
        lines = [f"slice {n} {size} {_b64(root)}" for n, (size, root) in sorted(self.slices.items()) if size]
        root = hashlib.sha256(b"agent-party log root\0" + "\n".join(lines).encode()).digest()
        return "\n".join([_origin(self.log_id), str(self.size), _b64(root), *lines]) + "\n"


def sign(checkpoint: Checkpoint, key: SigningKey) -> str:
    """The checkpoint as a signed note."""
    body, name = checkpoint.body(), _origin(checkpoint.log_id)
    return f"{body}\n\u2014 {name} {_b64(_key_hash(name, key.public) + key.sign(body.encode()))}\n"


def read(note: str, log: Identity, public: bytes) -> Checkpoint:
    """The checkpoint in a note; `Malformed` if it is not one of this log, signed by this key."""
    body, found, signatures = note.partition("\n\n")
    body, name = body + "\n", _origin(log.log_id)
    lines = body.splitlines()
    *signers, end = signatures.split("\n")
    noted = not end and len(set(signers)) == len(signers) and all(line.startswith("\u2014 ") for line in signers)
    if not found or not noted or len(lines) < 3 or lines[0] != name:
        raise Malformed("not a checkpoint of this log")
    prefix = f"\u2014 {name} "
    signed = [_bytes(line.removeprefix(prefix)) for line in signers if line.startswith(prefix)]
    wanted = _key_hash(name, public)
    if not any(s[:4] == wanted and signature_holds(public, body.encode(), s[4:]) for s in signed):
        raise Malformed("the checkpoint is not signed by this log's checkpoint key")
    try:
        slices = {int(n): (int(size), _bytes(root)) for _, n, size, root in (line.split(" ") for line in lines[3:])}
    except ValueError as error:
        raise Malformed(f"a checkpoint line that cannot be read: {error}") from error
    checkpoint = Checkpoint(log.log_id, slices)
    if checkpoint.body() != body:
        raise Malformed("a checkpoint that does not say what it signs")
    return checkpoint


def remembered(path: Path, log: Identity, public: bytes) -> Checkpoint | None:
    """The checkpoint in a file, or None if there is none."""
    try:
        return read(path.read_text(encoding="utf-8"), log, public)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, Malformed) as error:
        raise KeyringError(
            f"the remembered checkpoint {path} is damaged ({error}): restore it, or remove it"
        ) from error


def remember(path: Path, checkpoint: Checkpoint, log: Identity, key: SigningKey) -> None:
    """Keep of each slice the larger of what is kept and what this checkpoint says; processes take turns by a lock.

    Two processes may each have read further in another lane, so neither's checkpoint as a whole need be the later one.
    What is kept never shrinks: of two with the same size, the one that was kept first stays.
    """
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with contextlib.suppress(KeyringError):
            kept = remembered(path, log, key.public)
            if kept:
                checkpoint = _larger(kept, checkpoint)
            if checkpoint == kept:
                return
        scratch = path.with_name(f".{path.name}.{os.getpid()}")
        with scratch.open("w") as file:
            file.write(sign(checkpoint, key))
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)


def _larger(kept: Checkpoint, new: Checkpoint) -> Checkpoint:
    grown = {n: part for n, part in new.slices.items() if part[0] > kept.slices.get(n, (0, b""))[0]}
    return Checkpoint(kept.log_id, {**kept.slices, **grown})


def _origin(log_id: bytes) -> str:
    return f"agent-party/{log_id.hex()}"


def _key_hash(name: str, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + _NOTE_ED25519 + public).digest()[:4]


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise Malformed(f"not base64: {text[:20]}") from error
    if _b64(data) != text:
        raise Malformed(f"base64 in another form than the one: {text[:20]}")
    return data
