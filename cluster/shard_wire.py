"""What hosts and a shard log say to each other: several requests in one message, each answered when it can be.

Only record bytes, places and hashes travel; no key does. A message is MessagePack of the types below, and whoever reads
it checks it.
"""

from collections.abc import Sequence

import msgspec

from ..eventstore.errors import (
    CorruptLogError,
    EventStoreError,
    LogError,
    LogMovedError,
    LogRolledBack,
    StoreBusyError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
    WrongLogError,
)
from ..eventstore.tape import Entry, Indefinite, Seen
from ..eventstore.verify import Identity, Malformed, identity

_ERRORS: dict[str, type[EventStoreError]] = {
    error.__name__: error
    for error in (
        StoreError, StoreBusyError, StoreFullError, StoreReadOnlyError, StoreCorruptError, Indefinite,
        LogError, LogRolledBack, WrongLogError,
    )
}  # fmt: skip


class Identify(msgspec.Struct, frozen=True, tag=True):
    """Which log is there."""


class Found(msgspec.Struct, frozen=True, tag=True):
    """Make the store ready for a new log."""

    root: bytes
    slices: int
    nonce: bytes

    @property
    def log(self) -> Identity:
        """The log; `Malformed` if there can be none such."""
        return identity(self.root, self.slices, self.nonce)


class Append(msgspec.Struct, frozen=True, tag=True):
    """Add records at a lane's end, for a writer who has read up to ``seen``."""

    lane: int
    records: list[bytes]
    seen: Seen


class Read(msgspec.Struct, frozen=True, tag=True):
    """What stands behind ``seen`` by now. ``hold``: seconds to wait for something, 0 to look at once."""

    lane: int
    seen: Seen
    hold: float = 0.0


class Fetch(msgspec.Struct, frozen=True, tag=True):
    """The entries at these places."""

    lane: int
    places: list[int]


Request = Identify | Found | Append | Read | Fetch


class Holds(msgspec.Struct, frozen=True, tag=True):
    """To `Identify` and `Found`: the log, if there is one, and over how many lanes it lies, or would."""

    lanes: int
    log: tuple[bytes, int, bytes] | None

    @property
    def identity(self) -> Identity | None:
        """Which log it says it is."""
        try:
            return identity(*self.log) if self.log else None
        except Malformed as error:
            raise StoreError(f"a shard log names a log that cannot be: {error}") from error


class Chunk(msgspec.Struct, frozen=True, tag=True):
    """To the others: the entries behind a place, not necessarily all, and what to say to go on. Of an `Append`: its
    records were sent."""

    after: int
    entries: list[Entry]
    last: Seen


class Failed(msgspec.Struct, frozen=True, tag=True):
    """It raised: the error's name and what it was made with."""

    error: str
    about: list[str]

    @classmethod
    def of(cls, error: BaseException) -> "Failed":
        """How an error travels. One that is not ours says nothing of what was written."""
        if isinstance(error, LogMovedError):
            return cls("LogMovedError", [error.place, error.target])
        if isinstance(error, CorruptLogError):
            return cls("LogError", [str(error)])
        known = type(error).__name__ in _ERRORS
        said = str(error) if known else f"the shard log failed ({type(error).__name__}: {error})"
        return cls(type(error).__name__ if known else "Indefinite", [said])

    def raised(self) -> EventStoreError:
        """The error, as its caller would have met it in this process."""
        if self.error == "LogMovedError" and len(self.about) == 2:
            return LogMovedError(*self.about)
        return _ERRORS.get(self.error, Indefinite)(*self.about[:1])


Answer = Holds | Chunk | Failed


class Ask(msgspec.Struct, frozen=True, tag=True):
    """A client's requests; ``call`` is what it calls them by."""

    client: bytes
    call: int
    requests: list[Request]


class Later(msgspec.Struct, frozen=True, tag=True):
    """What has become of those requests of a call that were not answered yet."""

    client: bytes
    call: int


class Said(msgspec.Struct, frozen=True):
    """Answers by the number of the request; ``more``: others come yet. ``known`` is false where a call is not."""

    answers: list[tuple[int, Answer]]
    more: bool = False
    known: bool = True


_asked: msgspec.msgpack.Decoder[Ask | Later] = msgspec.msgpack.Decoder(Ask | Later)
_said = msgspec.msgpack.Decoder(Said)
_encoder = msgspec.msgpack.Encoder()


def packed(message: Ask | Later | Said) -> bytes:
    """A message as bytes."""
    return _encoder.encode(message)


def asked(message: bytes) -> Ask | Later:
    """What a client asks; `StoreError` if these bytes are nothing of the kind."""
    try:
        return _asked.decode(message)
    except msgspec.DecodeError as error:
        raise StoreError(f"a shard log was asked something that it does not know: {error}") from error


def said(message: bytes) -> Said:
    """What a shard log says; `StoreError` if these bytes are nothing of the kind."""
    try:
        return _said.decode(message)
    except msgspec.DecodeError as error:
        raise StoreError(f"a shard log said something that is not known here: {error}") from error


def size(records: Sequence[bytes]) -> int:
    """Bytes of records."""
    return sum(map(len, records))
