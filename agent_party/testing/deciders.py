"""Given events, when a command, then events or an error: tests of deciders, which also see that these are pure.

given(Tally, [Counted(2)]).when(Count(3)).then([Counted(3)], state=5)
given(Tally).when(Count(-1)).then(ValueError("count forwards"))
"""

import copy
import dataclasses
import difflib
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, cast

import msgspec

from ..actors.decider import Decider
from ..eventstore.codec import Codec

S = TypeVar("S")
C = TypeVar("C")
E = TypeVar("E")
R = TypeVar("R")
Error = BaseException | type[BaseException]
_UNSAID: Any = object()


def given(decider: type[Decider[S, C, E]], events: Sequence[E] = ()) -> "Given[S, C, E]":
    """An entity to which this has happened."""
    return Given(decider, tuple(events))


class Given(Generic[S, C, E]):
    """An entity with a past. ``state``: what the past has made of it."""

    def __init__(self, decider: type[Decider[S, C, E]], events: tuple[E, ...]) -> None:
        self._type, self._decider, self._events = decider, decider(), events
        self._codec = Codec(decider.events)
        self.state = self._initial()
        for event in events:
            self.state = self._evolve(self.state, event)

    def when(self, command: C) -> "Outcome[S, C, E]":
        """Give it a command. What `decide` raises is kept for `Outcome.then`."""
        error: Exception | None = None
        events: tuple[E, ...] = ()
        try:
            decide = self._decider.decide
            events = _pure(f"{self._name}.decide", lambda c, s: tuple(decide(c, s)), command, self.state)
        except Exception as raised:
            error = raised
        return Outcome(Given(self._type, (*self._events, *events)), events, error)

    def in_state(self, state: S) -> "Given[S, C, E]":
        """What the past has made of it is this."""
        _same(f"{self._name}'s state", [state], [self.state])
        return self

    @property
    def _name(self) -> str:
        return self._type.__name__

    def _initial(self) -> S:
        one, other = self._decider.initial(), self._decider.initial()
        assert alike(one, other), f"{self._name}.initial is not pure: it gave {one!r}, then {other!r}"
        return one

    def _evolve(self, state: S, event: E) -> S:
        name, version, payload = self._codec.encode(event)
        back = self._codec.decode(name, version, payload)
        if not alike(event, back):
            raise AssertionError(
                f"{self._name}: an event does not come back from the log as it was\n{_diff([event], [back])}"
            )
        return _pure(f"{self._name}.evolve", self._decider.evolve, state, event)


class Outcome(Generic[S, C, E]):
    """What a command led to: ``events``, or ``error``; and the ``state`` after it."""

    def __init__(self, after: Given[S, C, E], events: tuple[E, ...], error: Exception | None) -> None:
        self._after, self.events, self.error = after, events, error

    @property
    def state(self) -> S:
        """The state after the command."""
        return self._after.state

    def then(self, expected: Sequence[E] | Error = (), *, state: S = _UNSAID) -> Given[S, C, E]:
        """Just these events, or this error: its class, and its text where an instance is given. And this state."""
        if isinstance(expected, BaseException | type):
            self._refused(expected)
        elif self.error is not None:
            raise AssertionError(f"the command was refused: {self.error!r}") from self.error
        else:
            _same("the events", expected, self.events)
        if state is not _UNSAID:
            _same("the state", [state], [self.state])
        return self._after

    def _refused(self, expected: Error) -> None:
        kind = expected if isinstance(expected, type) else type(expected)
        if self.error is None:
            raise AssertionError(f"the command was not refused with {kind.__name__}; it led to\n{_lines(self.events)}")
        if not isinstance(self.error, kind):
            raise AssertionError(f"the command was refused with {self.error!r}, not {expected!r}") from self.error
        if isinstance(expected, BaseException) and str(expected) != str(self.error):
            raise AssertionError(f"the command was refused with {str(self.error)!r}, not {str(expected)!r}")


def _pure(name: str, function: Callable[..., R], *given: Any) -> R:
    """What a function gives, if it gives it twice and leaves what it is given as it was."""
    first, second = copy.deepcopy(given), copy.deepcopy(given)
    result, error = _called(function, first)
    again, error_again = _called(function, second)
    for before, after in zip(given, first, strict=True):
        if not alike(before, after):
            raise AssertionError(f"{name} is not pure: it changed what it was given\n{_diff([before], [after])}")
    if not alike(result, again) or repr(error) != repr(error_again):
        raise AssertionError(
            f"{name} is not pure: called twice, it gave\n{_diff([error or result], [error_again or again])}"
        )
    if error:
        raise error
    return cast("R", result)


def _called(function: Callable[..., R], given: tuple[Any, ...]) -> tuple[R | None, Exception | None]:
    try:
        return function(*given), None
    except Exception as error:
        return None, error


def alike(one: Any, other: Any) -> bool:
    """Equal; or, for classes without an equality of their own, made of equal parts."""
    return bool(one == other) or _parts(one) == _parts(other)


def _parts(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value).__name__, [_parts(item) for item in value]
    if isinstance(value, dict):
        return type(value).__name__, [(_parts(key), _parts(item)) for key, item in value.items()]
    if isinstance(value, msgspec.Struct):
        return type(value), [(name, _parts(getattr(value, name))) for name in value.__struct_fields__]
    if dataclasses.is_dataclass(value):
        return type(value), [(f.name, _parts(getattr(value, f.name))) for f in dataclasses.fields(value)]
    kind: Any = type(value)
    if kind.__eq__ is object.__eq__ and hasattr(value, "__dict__"):
        return kind, _parts(vars(value))
    return value


def _same(what: str, expected: Sequence[Any], found: Sequence[Any]) -> None:
    if not alike(list(expected), list(found)):
        raise AssertionError(f"{what}: expected (-) and found (+)\n{_diff(expected, found)}")


def _diff(expected: Sequence[Any], found: Sequence[Any]) -> str:
    return "\n".join(difflib.ndiff(_lines(expected).splitlines(), _lines(found).splitlines()))


def _lines(values: Sequence[Any]) -> str:
    """Values, one field a line, so that a difference shows where it is."""
    lines = []
    for value in values:
        fields = getattr(value, "__struct_fields__", None)
        if fields is None and isinstance(value, dict):
            lines += ["{", *(f"    {key!r}: {item!r}" for key, item in value.items()), "}"]
        elif fields:
            lines += [f"{type(value).__name__}(", *(f"    {name}={getattr(value, name)!r}" for name in fields), ")"]
        else:
            lines.append(repr(value))
    return "\n".join(lines) or "(nothing)"
