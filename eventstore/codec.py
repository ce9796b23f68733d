"""Typed events on msgspec: types and schema versions on the way out, upcasters on the way in.

    @event("order.placed", version=2, upcast={1: lambda old: {**old, "currency": "EUR"}})
    class OrderPlaced(msgspec.Struct, frozen=True): ...

There is no global registry: a `Codec` knows the classes it was built with, and says so when it meets another.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from .errors import NewerSchemaError, PayloadError, UnknownEventError
from .verify import EVENT_TYPE, MAX_TYPE

NIL = b"\xc0"
"""MessagePack of nothing. The one object of these bytes that goes into events: a default is left out of a payload by
being the default itself, not by being equal to it, and whether two literals of a byte are one object depends on whether
their modules were compiled by this process or came from a cache. So the same run would write other bytes."""
Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
E = TypeVar("E", bound=type)


class EventType(msgspec.Struct, frozen=True):
    """What the log says of an event's class: its type name, its schema version, how to read older versions."""

    name: bytes
    version: int
    upcast: Mapping[int, Upcaster]


def event(name: str, *, version: int = 1, upcast: Mapping[int, Upcaster] | None = None) -> Callable[[E], E]:
    """Mark a msgspec Struct as an event. ``upcast[n]`` turns a decoded payload of version n into version n + 1."""
    if len(name) > MAX_TYPE or not EVENT_TYPE.fullmatch(name.encode()):
        raise ValueError(f"{name!r} is no event type: use lower-case words joined by dots, at most {MAX_TYPE} letters")
    steps = dict(upcast or {})
    if version < 1 or set(steps) != set(range(1, version)):
        raise ValueError(f"{name} version {version} needs an upcaster for each version before it, has {sorted(steps)}")

    def mark(cls: E) -> E:
        cls.__event__ = EventType(name.encode(), version, steps)  # type: ignore[attr-defined]
        return cls

    return mark


def event_type(cls: type) -> EventType:
    """The mark that `event` left on a class; `PayloadError` if it is not an event."""
    mark = cls.__dict__.get("__event__")
    if not isinstance(mark, EventType):
        raise PayloadError(f"{cls.__name__} is not an event: mark the class with @event(name)")
    return mark


class Codec:
    """Encodes and decodes the events of these classes as MessagePack."""

    def __init__(self, *groups: Iterable[type]) -> None:
        self._encoder = msgspec.msgpack.Encoder()
        self._known: dict[bytes, tuple[type, EventType, msgspec.msgpack.Decoder[Any]]] = {}
        for cls in (cls for group in groups for cls in group):
            self.add(cls)

    def add(self, cls: type) -> None:
        """Learn one more event class; the same class twice is nothing, another of the same name an error."""
        mark = event_type(cls)
        known = self._known.get(mark.name)
        if known and known[0] is not cls:
            raise ValueError(f"two classes for event {mark.name.decode()}: {known[0].__name__} and {cls.__name__}")
        self._known[mark.name] = (cls, mark, msgspec.msgpack.Decoder(cls))

    def encode(self, value: object) -> tuple[bytes, int, bytes]:
        """Type name, schema version and payload of an event; `PayloadError` says what cannot be encoded."""
        mark = event_type(type(value))
        if mark.name not in self._known:
            raise UnknownEventError(f"event {mark.name.decode()} is not registered with this log: add its class")
        return mark.name, mark.version, self.pack(value, mark.name.decode())

    def pack(self, value: object, what: str = "a value") -> bytes:
        """Any value as MessagePack; `PayloadError` if it has no form there."""
        try:
            return self._encoder.encode(value)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise PayloadError(
                f"{what} cannot be stored ({error}): use numbers, text, bytes, lists, dicts or msgspec Structs"
            ) from error

    def decode(self, name: bytes, version: int, payload: bytes) -> Any:
        """The event, upcast to the version this program has."""
        if name not in self._known:
            raise UnknownEventError(
                f"event {name.decode()} is unknown to this program: open the log with the app that wrote it"
            )
        cls, mark, decoder = self._known[name]
        if version > mark.version:
            raise NewerSchemaError(
                f"event {name.decode()} has schema {version}, this program knows {mark.version}: upgrade the program"
            )
        try:
            if version == mark.version:
                return decoder.decode(payload)
            value = msgspec.msgpack.decode(payload, type=dict[str, Any])
            for step in range(version, mark.version):
                value = mark.upcast[step](value)
            return msgspec.convert(value, cls)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise PayloadError(f"event {name.decode()} schema {version} does not decode: {error}") from error
