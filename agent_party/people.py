"""People and their roles, for programs: ``party.people``."""

from typing import TYPE_CHECKING

from .actors.people import STREAM, GrantRole, People, WithdrawRole

if TYPE_CHECKING:
    from .party import Party


class PeopleHandle:
    """Who has which role. What is granted or withdrawn is on the log when these return, and counts from then on."""

    def __init__(self, party: "Party") -> None:
        self._party = party
        self._entity = party.entity(People, STREAM.partition("/")[2])

    async def grant(self, role: str, person: str) -> None:
        """Give a person a role; one who has it keeps it. `InputError` for names that cannot be."""
        await self._entity.send(GrantRole(role, person, self._by()))

    async def withdraw(self, role: str, person: str) -> None:
        """Take a role from a person: what they sign from now on does not count by it. `InputError` if they lack it."""
        await self._entity.send(WithdrawRole(role, person, self._by()))

    async def roles(self) -> dict[str, list[str]]:
        """The people of each role that was ever granted."""
        return {role: list(people) for role, people in (await self._party.doorman.roles()).items()}

    def _by(self) -> str:
        return self._party.doorman.person(self._party.settings.person or None)[0]
