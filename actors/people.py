"""Who has which role: on the log, so that it can be said of any moment who could decide what, and who made it so."""

import re
from collections.abc import Mapping, Sequence

import msgspec

from ..eventstore.codec import event
from ..eventstore.reading import Commit
from .activation import Fold
from .decider import Decider
from .errors import InputError

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
"""Ids of people and names of roles."""
STREAM = "people/roles"
LIMIT = 10_000
Roles = Mapping[str, Sequence[str]]
"""The people of each role. One that nobody has any more is there, with nobody; one that nobody ever had is not."""


@event("people.granted")
class RoleGranted(msgspec.Struct, frozen=True):
    """A person has a role from now on."""

    role: str
    person: str
    by: str


@event("people.withdrawn")
class RoleWithdrawn(msgspec.Struct, frozen=True):
    """A person does not have a role any more."""

    role: str
    person: str
    by: str


class GrantRole(msgspec.Struct, frozen=True):
    """Give a person a role; one who has it keeps it."""

    role: str
    person: str
    by: str


class WithdrawRole(msgspec.Struct, frozen=True):
    """Take a role from a person; `InputError` if they do not have it."""

    role: str
    person: str
    by: str


class People(Decider[dict[str, list[str]], GrantRole | WithdrawRole, RoleGranted | RoleWithdrawn]):
    """The roles of all people of a party. Whoever can write the log can grant: a policy is the Doorman's affair."""

    kind = "people"
    events = (RoleGranted, RoleWithdrawn)

    def initial(self) -> dict[str, list[str]]:
        return {}

    def decide(
        self, command: GrantRole | WithdrawRole, state: dict[str, list[str]]
    ) -> Sequence[RoleGranted | RoleWithdrawn]:
        role, person = command.role, command.person
        for name, what in ((role, "role"), (person, "person's id")):
            if not NAME.fullmatch(name):
                raise InputError(f"{name!r} is no {what}: use lower-case letters, digits and dashes")
        has = person in state.get(role, ())
        if isinstance(command, WithdrawRole):
            if not has:
                raise InputError(f"{person} does not have role {role}: {those_with(role, state)}")
            return [RoleWithdrawn(role, person, command.by)]
        if not has and sum(map(len, state.values())) >= LIMIT:
            raise InputError(f"{LIMIT:,} roles are granted already: withdraw those that nobody needs")
        return [] if has else [RoleGranted(role, person, command.by)]

    def evolve(self, state: dict[str, list[str]], event: RoleGranted | RoleWithdrawn) -> dict[str, list[str]]:
        others = [person for person in state.get(event.role, []) if person != event.person]
        return {**state, event.role: sorted([*others, event.person]) if isinstance(event, RoleGranted) else others}


def _evolve(state: dict[str, list[str]], commit: Commit) -> dict[str, list[str]]:
    for found in commit.events:
        if isinstance(found, RoleGranted | RoleWithdrawn):
            state = People().evolve(state, found)
    return state


ROLES: Fold[dict[str, list[str]]] = Fold(dict, _evolve, dict[str, list[str]], "people/1")


def those_with(role: str, roles: Roles) -> str:
    """Who has a role, in words."""
    if role not in roles:
        return f"nobody ever had role {role}: `party keys role add {role} PERSON` grants it"
    return f"those who have it are {', '.join(roles[role]) or 'nobody'}"
