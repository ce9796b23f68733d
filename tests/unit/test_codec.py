"""Typed events: versions, upcasters, and what is refused with a clear word."""

from typing import Any

import msgspec
import pytest

from agent_party.eventstore.codec import Codec, event
from agent_party.eventstore.errors import NewerSchemaError, PayloadError, UnknownEventError


@event("order.placed")
class OrderV1(msgspec.Struct, frozen=True):
    total: int


@event("order.placed", version=3, upcast={1: lambda old: {**old, "currency": "EUR"}, 2: lambda old: {"sum": old}})
class OrderV3(msgspec.Struct, frozen=True):
    sum: dict[str, Any]


@event("thing.held")
class Holds(msgspec.Struct, frozen=True):
    thing: Any


def test_an_event_comes_back() -> None:
    codec = Codec([OrderV1])
    name, version, payload = codec.encode(OrderV1(3))
    assert (name, version) == (b"order.placed", 1)
    assert codec.decode(name, version, payload) == OrderV1(3)


def test_an_old_event_is_upcast_step_by_step() -> None:
    name, version, payload = Codec([OrderV1]).encode(OrderV1(3))
    assert Codec([OrderV3]).decode(name, version, payload) == OrderV3({"total": 3, "currency": "EUR"})


def test_an_event_newer_than_the_program_says_so() -> None:
    name, version, payload = Codec([OrderV3]).encode(OrderV3({}))
    with pytest.raises(NewerSchemaError, match="schema 3, this program knows 1: upgrade"):
        Codec([OrderV1]).decode(name, version, payload)


def test_an_unknown_event_says_so_both_ways() -> None:
    with pytest.raises(UnknownEventError, match=r"order\.placed is unknown to this program"):
        Codec().decode(b"order.placed", 1, b"\x80")
    with pytest.raises(UnknownEventError, match="not registered"):
        Codec().encode(OrderV1(1))


@pytest.mark.parametrize(
    "thing",
    [object(), 1 << 80, lambda: 1, "\ud800", {1, object()}, [[object()]]],
    ids=lambda thing: type(thing).__name__,
)
def test_a_payload_that_cannot_be_encoded_says_so(thing: Any) -> None:
    with pytest.raises(PayloadError, match=r"thing\.held cannot be stored"):
        Codec([Holds]).encode(Holds(thing))


def test_a_payload_that_holds_itself_says_so() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(PayloadError):
        Codec([Holds]).encode(Holds(endless))


def test_what_is_no_event_says_so() -> None:
    with pytest.raises(PayloadError, match="mark the class with @event"):
        Codec().encode({"total": 1})

    class Child(OrderV1, frozen=True):  # a mark is not inherited: it would be read back as its parent
        more: int = 0

    with pytest.raises(PayloadError, match="Child is not an event"):
        Codec([OrderV1]).encode(Child(1))


@pytest.mark.parametrize(
    "payload", [b"", b"\xc1", b"\x81\xa5total\xa1x", b"\x80", b"\x81\xa5total\x03\x00", b"\x93" * 3]
)
def test_bytes_that_are_not_the_event_say_so(payload: bytes) -> None:
    with pytest.raises(PayloadError, match="does not decode"):
        Codec([OrderV1]).decode(b"order.placed", 1, payload)
    with pytest.raises(PayloadError, match="does not decode"):
        Codec([OrderV1]).decode(b"order.placed", 1, b"\x81\xa5total\xa1x")


def test_two_classes_of_one_name_are_refused() -> None:
    codec = Codec([OrderV1], [OrderV1])
    with pytest.raises(ValueError, match=r"two classes for event order\.placed"):
        codec.add(OrderV3)


@pytest.mark.parametrize(
    "name", ["", "order", "Order.placed", "order.", ".placed", "order placed", "grant", "o." + "x" * 64]
)
def test_a_name_outside_the_grammar_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no event type"):
        event(name)


@pytest.mark.parametrize(("version", "upcast"), [(0, {}), (2, {}), (2, {2: dict}), (1, {1: dict})])
def test_a_missing_or_idle_upcaster_is_refused(version: int, upcast: dict[int, Any]) -> None:
    with pytest.raises(ValueError, match="needs an upcaster"):
        event("order.placed", version=version, upcast=upcast)
