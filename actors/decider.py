"""Deciders: pure, typed entities. The whole of an entity's behaviour is three functions.

class Tally(Decider[int, Count, Counted]):
    kind = "tally"
    events = (Counted,)

    def initial(self): return 0
    def decide(self, command, state): return [Counted(command.by)]
    def evolve(self, state, event): return state + event.by
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from ..eventstore.verify import STREAM
from .errors import InputError

S = TypeVar("S")
C = TypeVar("C")
E = TypeVar("E")


class Decider(ABC, Generic[S, C, E]):
    """State S, commands C, events E. ``kind`` is the first word of its streams' names, ``events`` what it writes.

    ``decide`` may refuse by raising: then nothing is recorded and the caller gets the error. All three must be pure:
    no clock, no chance, no input or output.
    """

    kind: ClassVar[str]
    events: ClassVar[tuple[type, ...]]
    state_version: ClassVar[int] = 1
    """Raise it when the state's shape or `evolve` changes: older snapshots are then not used."""

    @abstractmethod
    def initial(self) -> S:
        """The state before the first event."""

    @abstractmethod
    def decide(self, command: C, state: S) -> Sequence[E]:
        """The events a command leads to; none is fine."""

    @abstractmethod
    def evolve(self, state: S, event: E) -> S:
        """The state after an event."""


class Reply(NamedTuple, Generic[S]):
    """What a command led to: the state after it, the stream's revision, the events it recorded."""

    state: S
    revision: int
    events: tuple[Any, ...]


def stream_of(kind: str, name: str) -> str:
    """The stream of an entity; `InputError` if the name does not fit the grammar."""
    stream = f"{kind}/{name}"
    if not STREAM.fullmatch(stream.encode("utf-8", "replace")) or len(stream) > 190:
        raise InputError(f"{name!r} cannot name a {kind}: use ASCII letters, digits and . _ ~ -, at most 64 in a part")
    return stream
