"""What a tape says when its log was moved to another one."""

from typing import Protocol, runtime_checkable

from .commit import SigningKey
from .verify import Identity, signature_holds

_MAGIC = b"agent-party moves this log\0\0"
_MOST = 4_096


@runtime_checkable
class Movable(Protocol):
    """A tape that a log can be moved away from."""

    to_the_mark: bool
    """Whether reading ends at the mark instead of raising `LogMovedError`: for who moves the log, and audits it."""

    async def mark_moved(self, log: Identity, target: str, root: SigningKey) -> None:
        """Have the tape say where the log went, for good: nothing that is appended later counts. May be done again;
        `LogMovedError` if it says that the log went elsewhere."""
        ...

    async def moved_to(self) -> str:
        """Where the log went, as far as that shows without reading the tape; empty if it did not."""
        ...


def mark(log: Identity, target: str, root: SigningKey) -> bytes:
    """The message that says where a log went: it is no record, and signed by the log's root key.

    "agent-party moves this log" ‖ 0x00 0x00 ‖ log id (32) ‖ target (UTF-8) ‖ signature of all before it (64)
    """
    said = _MAGIC + log.log_id + target.encode()
    return said + root.sign(said)


def marked(raw: bytes, log: Identity) -> str | None:
    """Where a message says that this log went; None for anything else, and for what the root key did not sign."""
    if not raw.startswith(_MAGIC + log.log_id) or len(raw) > _MOST:
        return None
    said, signature = raw[:-64], raw[-64:]
    if len(said) <= len(_MAGIC) + 32 or not signature_holds(log.root, said, signature):
        return None
    return said[len(_MAGIC) + 32 :].decode(errors="replace")
