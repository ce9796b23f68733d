"""What people sign: exactly what they were shown, and what they decided. Offline checkable from an export.

The signature is Ed25519 over ``"agent-party statement\\0" ‖ statement``, where the statement is the MessagePack bytes
that travel as payload; nothing is re-encoded to be checked.
"""

from typing import TYPE_CHECKING, Any, Generic, Literal

import msgspec

from ..eventstore.commit import SigningKey
from ..eventstore.verify import signature_holds
from .errors import StatementError
from .events import Signed, Stated

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    F = TypeVar("F", default=Any)
else:
    from typing import TypeVar

    F = TypeVar("F")

_TAG = b"agent-party statement\0"
Decision = Literal["approve", "reject", "delegate", "cancel", "pause", "resume", "drain", "retire", "put"]


class Statement(msgspec.Struct, frozen=True):
    """``opened``: the hash of the commit that opened the wait; ``shown``: its input, the bytes the person was shown.

    For a cancellation ``wait`` is -1 and nothing is shown. ``time``: microseconds since 1970, the person's claim.
    ``terms``: those of the wait, as they are recorded: the form, who may decide, how many must, until when.
    ``answer``: the form's values, MessagePack; ``to``: to whom the decision is handed on.
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
    terms: bytes = b""
    answer: bytes = b""
    to: str = ""


class Approval(msgspec.Struct, Generic[F], frozen=True, omit_defaults=True):
    """A person's answer, with the statement and signature that prove it: of several people, the one that decided.

    ``answer``: the values of the form, as its type; None where there is none. ``signed``: all statements that led to
    it, in order, the deciding one last, those with which somebody handed the decision on among them.
    """

    approved: bool
    person: str
    note: str
    statement: bytes
    signature: bytes
    answer: F = None  # type: ignore[assignment]
    signed: tuple[Signed, ...] = ()


def sign(statement: Statement, key: SigningKey) -> Stated:
    """The signed statement, ready for an inbox."""
    data = msgspec.msgpack.encode(statement)
    return Stated(data, key.sign(_TAG + data))


def decoded(statement: bytes) -> Statement:
    """What a statement says, before anything is checked; `StatementError` if it is none."""
    try:
        return msgspec.msgpack.decode(statement, type=Statement)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StatementError(f"not a statement: {error}") from error


def read(stated: Stated, log_id: bytes, task: str, key: bytes) -> Statement:
    """The statement, if it is one about this task of this log and signed by this key; else `StatementError`."""
    statement = decoded(stated.statement)
    if not signature_holds(statement.key, _TAG + stated.statement, stated.signature):
        raise StatementError(f"the statement of {statement.person} is not signed by the key that it names")
    if statement.key != key:
        raise StatementError(f"the statement is signed by another key than {statement.person}'s")
    if (statement.log, statement.task) != (log_id, task):
        raise StatementError(f"the statement is about {statement.task}, not about {task} of this log")
    return statement


def person_of(stated: Stated) -> str:
    """Whom the statement says it is of, before anything is checked."""
    return decoded(stated.statement).person


def says_cancel(stated: Stated) -> bool:
    """Whether a statement asks for a cancellation, before anything is checked."""
    try:
        return decoded(stated.statement).decision == "cancel"
    except StatementError:
        return False
