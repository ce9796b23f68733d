"""Every error this package raises, one tree.

    EventStoreError
    ├── AppendError                 an append was refused or is unresolved
    │   ├── ConflictError           another commit occupies the expected revision: read, decide again
    │   ├── GrantEndedError         this writer's grant is over: stay down, only placement activates
    │   ├── ControlRefusedError     a grant, fence or certificate that the rule does not allow there
    │   ├── IdReusedError           the same id came with another request
    │   └── UnknownOutcomeError     nobody can say yet; the next append on the stream finds out first
    ├── LogError                    the log is not what it should be: a person must look
    │   ├── CorruptLogError         a record that the rule does not accept, in a store that holds only accepted ones
    │   ├── LogRolledBack           a prefix that was seen before has changed or shrunk
    │   ├── LogMovedError           the log was moved from here to another address
    │   └── WrongLogError           another party's log, or none, where this one was expected
    ├── StoreError                  the store under the log, translated from its driver
    │   ├── StoreBusyError          locked by another process for longer than the deadline: try again
    │   ├── StoreFullError          no room
    │   ├── StoreReadOnlyError      may not be written
    │   └── StoreCorruptError       the store itself is damaged (a torn page)
    ├── PayloadError                a payload that cannot be encoded, or is too large
    ├── SchemaError
    │   ├── UnknownEventError       an event type nobody registered
    │   └── NewerSchemaError        written by a newer program than this one
    ├── KeyringError
    │   ├── KeyringPermissionsError others could read the keys
    │   ├── WrongKeyError           the keyring holds another key than this log's
    │   └── DataKeyMissingError     no data key: erased, or never here
    └── BlobError                   a blob that is missing, damaged or too large

`agent_party.eventstore.verify.Malformed` (a `ValueError`) stays outside: it belongs to the file that imports nothing
of ours, and the log never lets it through.
"""

from collections.abc import Mapping


class EventStoreError(Exception):
    """The root of the tree. Each error's text says what happened, to what, and what to do next."""


class AppendError(EventStoreError):
    """An append was refused or is unresolved; nothing of it was acknowledged."""

    def __init__(self, stream: str, message: str) -> None:
        super().__init__(message)
        self.stream = stream


class ConflictError(AppendError):
    """Another data commit occupies the expected revision. Retryable: read on to ``current`` and decide again."""

    def __init__(self, stream: str, expected: int, current: int) -> None:
        super().__init__(
            stream,
            f"{stream} is at revision {current}, not at the expected {expected}: read what came and decide again",
        )
        self.expected, self.current = expected, current

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.stream, self.expected, self.current)


class GrantEndedError(AppendError):
    """Terminal for this writer: its grant on the stream was ended by a later grant or a fence."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream, f"this process no longer owns {stream}: another took it over, leave it alone")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.stream,)


class ControlRefusedError(AppendError):
    """A control commit that the rule would not accept; ``finding`` says which test it fails."""

    def __init__(self, stream: str, kind: str, finding: str) -> None:
        super().__init__(stream, f"a {kind} on {stream} is refused by the rule: {finding}")
        self.kind, self.finding = kind, finding

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.stream, self.kind, self.finding)


class IdReusedError(AppendError):
    """A command id that was used before, with another request."""

    def __init__(self, stream: str, command_id: str) -> None:
        super().__init__(stream, f"id {command_id} was used on {stream} for another request: choose a new id")
        self.command_id = command_id

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.stream, self.command_id)


class NewerFormatError(AppendError):
    """The stream's slice was upgraded to a format that this program does not know; it reads nothing written since."""

    def __init__(self, stream: str, format: int) -> None:  # noqa: A002
        super().__init__(
            stream,
            f"{stream} goes on in format {format} of the log, which a newer program began: upgrade this one",
        )
        self.format = format

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.stream, self.format)


class UnknownOutcomeError(AppendError):
    """The deadline passed before anyone could say whether the commit stands. Not found is not failed."""

    def __init__(self, stream: str, commit: bytes) -> None:
        super().__init__(
            stream,
            f"it is not known yet whether commit {commit.hex()[:16]} stands on {stream}: "
            "the next append there finds out first, or read the stream",
        )
        self.commit = commit

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.stream, self.commit)


class LogError(EventStoreError):
    """The log is not what it should be."""


class CorruptLogError(LogError):
    """A record that does not hold. ``finding`` and ``at`` say which rule it breaks, and where."""

    def __init__(self, finding: str, at: Mapping[str, object]) -> None:
        place = ", ".join(f"{key} {value}" for key, value in at.items())
        super().__init__(f"{finding} at {place}: stop, keep a copy, and run `party log verify`")
        self.finding, self.at = finding, dict(at)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.finding, self.at)


class LogRolledBack(LogError):
    """Something that was in the log, as a remembered checkpoint or this process itself knows, is not any more."""


class LogMovedError(LogError):
    """The log was moved: what is appended here does not count. ``target``: where it is now."""

    def __init__(self, place: str, target: str) -> None:
        super().__init__(
            f"{place} was moved to {target}: set the journal to that, everywhere; to go back, move it on from there to "
            "a new journal, for this one is closed for good"
        )
        self.place, self.target = place, target

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.place, self.target)


class WrongLogError(LogError):
    """Another party's log, or none, where a certain one was expected."""


class StoreError(EventStoreError):
    """The store under the log failed; nothing was acknowledged."""


class StoreBusyError(StoreError):
    """Another process held the store for longer than the deadline. Retryable."""


class StoreFullError(StoreError):
    """There is no room left. Free some and go on: what was acknowledged is safe."""


class StoreReadOnlyError(StoreError):
    """The store may not be written by this user."""


class StoreCorruptError(StoreError):
    """The store itself is damaged: restore a copy, then let `party log verify` say what it holds."""


class PayloadError(EventStoreError):
    """A payload that cannot be encoded, decoded or is over a limit of the format."""


class SchemaError(EventStoreError):
    """An event that this program has no code for."""


class UnknownEventError(SchemaError):
    """An event type that nobody registered here."""


class NewerSchemaError(SchemaError):
    """An event written with a newer schema than this program knows."""


class KeyringError(EventStoreError):
    """The keyring cannot be used as it is."""


class KeyringPermissionsError(KeyringError):
    """Others than its owner could read the keys."""


class WrongKeyError(KeyringError):
    """The keyring holds another key than the one this log was founded with."""


class DataKeyMissingError(KeyringError):
    """The data key of an event is not here: it was erased, or this keyring never had it."""


class BlobError(EventStoreError):
    """A blob that is missing, damaged or over the limit."""
