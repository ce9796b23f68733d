"""An entity for the tests: adds up."""

import msgspec

from agent_party import Decider, event


class Add(msgspec.Struct, frozen=True):
    """The command."""

    by: int


@event("tally.added")
class Added(msgspec.Struct, frozen=True):
    """The event."""

    by: int


class Tally(Decider[int, Add, Added]):
    """Adds up."""

    kind = "tally"
    events = (Added,)

    def initial(self) -> int:
        return 0

    def decide(self, command: Add, state: int) -> list[Added]:
        return [Added(command.by)]

    def evolve(self, state: int, event: Added) -> int:
        return state + event.by
