"""Given/when/then: what it accepts, what it says where something differs, and that it sees what is not pure."""

import random
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import msgspec
import pytest

from agent_party import Decider, event
from agent_party.eventstore.errors import EventStoreError
from agent_party.testing import given


class Count(msgspec.Struct, frozen=True):
    by: int


@event("kit.counted")
class Counted(msgspec.Struct, frozen=True):
    by: int
    note: str = ""


class Tally(Decider[int, Count, Counted]):
    kind = "tally"
    events = (Counted,)

    def initial(self) -> int:
        return 0

    def decide(self, command: Count, state: int) -> Sequence[Counted]:
        if command.by < 0:
            raise ValueError("count forwards")
        return [Counted(command.by)] if command.by else []

    def evolve(self, state: int, event: Counted) -> int:
        return state + event.by


def test_events_and_state() -> None:
    given(Tally, [Counted(2)]).when(Count(3)).then([Counted(3)], state=5)
    given(Tally).when(Count(0)).then([], state=0)


def test_an_outcome_goes_on() -> None:
    after = given(Tally).when(Count(1)).then([Counted(1)])
    after.in_state(1).when(Count(2)).then([Counted(2)], state=3)


@pytest.mark.parametrize("error", [ValueError, ValueError("count forwards"), Exception])
def test_a_refusal(error: Any) -> None:
    given(Tally, [Counted(2)]).when(Count(-1)).then(error, state=2)


def test_other_events_show_the_field_that_differs() -> None:
    with pytest.raises(AssertionError) as raised:
        given(Tally).when(Count(3)).then([Counted(4)])
    lines = str(raised.value).splitlines()
    assert "-     by=4" in lines
    assert "+     by=3" in lines
    assert "      note=''" in lines


@pytest.mark.parametrize(
    ("command", "expected", "said"),
    [
        (Count(3), [], "Counted("),
        (Count(3), ValueError, "not refused"),
        (Count(-1), [Counted(-1)], "was refused: ValueError('count forwards')"),
        (Count(-1), KeyError, "not <class 'KeyError'>"),
        (Count(-1), ValueError("other"), "'count forwards', not 'other'"),
    ],
)
def test_what_differs_is_said(command: Count, expected: Any, said: str) -> None:
    with pytest.raises(AssertionError) as raised:
        given(Tally).when(command).then(expected)
    assert said in str(raised.value)


def test_another_state_is_said() -> None:
    with pytest.raises(AssertionError, match="the state"):
        given(Tally).when(Count(3)).then([Counted(3)], state=4)
    with pytest.raises(AssertionError, match="Tally's state"):
        given(Tally, [Counted(1)]).in_state(2)


# Planted bugs


class Bag(Tally):
    """A state that can be changed in place."""

    def initial(self) -> Any:
        return {"n": 0}

    def evolve(self, state: Any, event: Counted) -> Any:
        return {"n": state["n"] + event.by}


class ChangesState(Bag):
    def evolve(self, state: Any, event: Counted) -> Any:
        state["n"] += event.by
        return state


class DecideChangesState(Bag):
    def decide(self, command: Count, state: Any) -> Sequence[Counted]:
        state["n"] = 9
        return [Counted(1)]


class Chance(Tally):
    def decide(self, command: Count, state: int) -> Sequence[Counted]:
        return [Counted(random.getrandbits(60))]


class ChanceRefuses(Tally):
    def decide(self, command: Count, state: int) -> Sequence[Counted]:
        raise ValueError(random.getrandbits(60))


class Remembers(Tally):
    seen = 0

    def evolve(self, state: int, event: Counted) -> int:
        self.seen += 1
        return self.seen


class NewStart(Tally):
    def initial(self) -> int:
        return random.getrandbits(60)


@pytest.mark.parametrize(
    ("decider", "said"),
    [
        (ChangesState, "ChangesState.evolve is not pure: it changed"),
        (DecideChangesState, "DecideChangesState.decide is not pure: it changed"),
        (Chance, "Chance.decide is not pure: called twice"),
        (ChanceRefuses, "ChanceRefuses.decide is not pure: called twice"),
        (Remembers, "Remembers.evolve is not pure"),
        (NewStart, "NewStart.initial is not pure"),
    ],
)
def test_what_is_not_pure_is_caught(decider: type[Tally], said: str) -> None:
    with pytest.raises(AssertionError) as raised:
        given(decider).when(Count(2)).then([Counted(2)])
    assert said in str(raised.value)


def test_a_pure_decider_with_a_mutable_state_is_fine() -> None:
    given(Bag, [Counted(1)]).when(Count(2)).then([Counted(2)], state={"n": 3})  # type: ignore[arg-type]


def test_events_may_be_generated() -> None:
    class Generates(Tally):
        def decide(self, command: Count, state: int) -> Any:
            def events() -> Iterator[Counted]:
                yield Counted(command.by)

            return events()

    given(Generates).when(Count(2)).then([Counted(2)])


@event("kit.loose")
class Loose(msgspec.Struct, frozen=True):
    value: Any


class Keeps(Decider[int, Count, Loose]):
    kind = "keeps"
    events = (Loose,)

    def initial(self) -> int:
        return 0

    def decide(self, command: Count, state: int) -> Sequence[Loose]:
        return [Loose((command.by,))]  # comes back as a list

    def evolve(self, state: int, event: Loose) -> int:
        return state + 1


def test_an_event_that_the_log_would_change_is_caught() -> None:
    with pytest.raises(AssertionError, match="does not come back from the log as it was"):
        given(Keeps).when(Count(1)).then([Loose([1])])


def test_an_event_that_is_not_declared_is_caught() -> None:
    class Undeclared(Tally):
        events: ClassVar[Any] = ()

    with pytest.raises(EventStoreError, match=r"kit\.counted is not registered"):
        given(Undeclared).when(Count(1))
