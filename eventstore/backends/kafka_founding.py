"""The message that says which log a topic holds, in partition 0. It is no record, and readers pass over every one.

    "agent-party founds this log" ‖ 0x00 0x00 ‖ root key (32) ‖ slices (4) ‖ log's nonce (32) ‖ partitions (4)
    ‖ founder (16)

Integers are big-endian. The first one in partition 0 holds, so two who found at once make one log. Nothing in it is
believed: which log it must be comes from the keyring. It begins as no record can, with a header longer than itself.
"""

import struct
from typing import NamedTuple

from ..verify import Identity, Malformed, identity

_MAGIC = b"agent-party founds this log\0\0"
_LAYOUT = struct.Struct(f">{len(_MAGIC)}s32sI32sI16s")
SIZE = _LAYOUT.size
"""Bytes of such a message: a value of another length is none."""


class Founding(NamedTuple):
    """A log, and how many partitions its slices were spread over."""

    log: Identity
    partitions: int


def founding(log: Identity, partitions: int, founder: bytes) -> bytes:
    """The message. ``founder``: 16 random bytes, so that whoever sent it knows it again."""
    return _LAYOUT.pack(_MAGIC, log.root, log.slices, log.nonce, partitions, founder)


def is_founding(raw: bytes) -> bool:
    """Whether a value has the form of such a message."""
    return len(raw) == SIZE and raw.startswith(_MAGIC)


def founded(raw: bytes) -> Founding:
    """What a message says; `Malformed` for one that names no log there can be."""
    _, root, slices, nonce, partitions, _ = _LAYOUT.unpack(raw)
    if not 0 < partitions <= 1_000:
        raise Malformed(f"{partitions} partitions")
    return Founding(identity(root, slices, nonce), partitions)
