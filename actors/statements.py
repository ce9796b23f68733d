"""What people sign: exactly what they were shown, and what they decided. Offline checkable from an export.

The signature is Ed25519 over ``"agent-party statement\\0" ‖ statement``, where the statement is the MessagePack bytes
that travel as payload; nothing is re-encoded to be checked.
"""

from typing import Literal

import msgspec

from ..eventstore.commit import SigningKey
from ..eventstore.verify import signature_holds
from .errors import StatementError
from .events import Stated

_TAG = b"agent-party statement\0"
Decision = Literal["approve", "reject", "cancel", "pause", "resume"]


class Statement(msgspec.Struct, frozen=True):
    """``opened``: the hash of the commit that opened the wait; ``shown``: its input, the bytes the person was shown.

    For a cancellation ``wait`` is -1 and nothing is shown. ``time``: microseconds since 1970, the person's claim.
    """

    log: bytes
    task: str
    wait: int
    opened: bytes
    name: str
    shown: bytes
    decision: Decision
    person: str
    key: bytes
    time: int
    note: str = ""


class Approval(msgspec.Struct, frozen=True):
    """A person's answer, with the statement and signature that prove it."""

    approved: bool
    person: str
    note: str
    statement: bytes
    signature: bytes


def sign(statement: Statement, key: SigningKey) -> Stated:
    """The signed statement, ready for an inbox."""
    data = msgspec.msgpack.encode(statement)
    return Stated(data, key.sign(_TAG + data))


def read(stated: Stated, log_id: bytes, task: str, key: bytes) -> Statement:
    """The statement, if it is one about this task of this log and signed by this key; else `StatementError`."""
    try:
        statement = msgspec.msgpack.decode(stated.statement, type=Statement)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StatementError(f"not a statement: {error}") from error
    if not signature_holds(statement.key, _TAG + stated.statement, stated.signature):
        raise StatementError(f"the statement of {statement.person} is not signed by the key that it names")
    if statement.key != key:
        raise StatementError(f"the statement is signed by another key than {statement.person}'s")
    if (statement.log, statement.task) != (log_id, task):
        raise StatementError(f"the statement is about {statement.task}, not about {task} of this log")
    return statement


def person_of(stated: Stated) -> str:
    """Whom the statement says it is of, before anything is checked."""
    try:
        return msgspec.msgpack.decode(stated.statement, type=Statement).person
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StatementError(f"not a statement: {error}") from error


def says_cancel(stated: Stated) -> bool:
    """Whether a statement asks for a cancellation, before anything is checked."""
    try:
        return msgspec.msgpack.decode(stated.statement, type=Statement).decision == "cancel"
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
