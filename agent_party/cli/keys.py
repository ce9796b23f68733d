"""`party keys`: the issuing keys of a log, which sign who may write what; and people's roles."""

from typing import Annotated, Any

import typer

from .output import Answer, NotFoundError
from .session import Session, command

group = typer.Typer(help="Issuing keys: list, rotate, revoke. People's roles: role.", no_args_is_help=True)
roles = typer.Typer(help="People's roles: add, remove, list.", no_args_is_help=True)
group.add_typer(roles, name="role")
Role = Annotated[str, typer.Argument(metavar="ROLE", help="For example editor")]
Who = Annotated[str, typer.Argument(metavar="PERSON", help="The person's id")]


@command(group, "list")
async def list_keys(session: Session) -> Answer:
    """List the issuing keys in force, and in how many slices each is certified; the one in use is marked."""
    async with session.party() as party:
        rows = _rows(party)
    return Answer(rows, [f"{row['key']}  {row['slices']} slices{'  in use' * row['in_use']}" for row in rows])


@command(group, "rotate")
async def rotate(session: Session) -> Answer:
    """Make a new issuing key, certify it in every slice, and use it from now on. The old one stays until revoked."""
    async with session.party() as party:
        key = (await party.doorman.issuer.rotate()).hex()
    return Answer({"key": key}, [f"{key} signs from now on; `party keys revoke` ends an old one"])


@command(group, "revoke")
async def revoke(
    session: Session, key: Annotated[str, typer.Argument(metavar="KEY", help="Public key, hex")]
) -> Answer:
    """Revoke an issuing key in every slice. What it signed before stays accepted; nothing it signs later will be."""
    async with session.party() as party:
        known = {row["key"]: row for row in _rows(party)}
        if key not in known:
            raise NotFoundError(f"no issuing key {key[:16]} is in force: `party keys list` shows those that are")
        if known[key]["in_use"]:
            await party.doorman.issuer.rotate()
        await party.doorman.issuer.revoke(bytes.fromhex(key))
    return Answer({"revoked": key}, [f"{key} is revoked in every slice"])


@command(roles, "add")
async def add_role(session: Session, role: Role, person: Who) -> Answer:
    """Give a person a role. It counts for approvals that they sign from then on."""
    async with session.party() as party:
        await party.people.grant(role, person)
    return Answer({"role": role, "person": person, "has": True}, [f"{person} has role {role}"])


@command(roles, "remove")
async def remove_role(session: Session, role: Role, person: Who) -> Answer:
    """Take a role from a person. What they signed and was accepted before stays; nothing counts by it from now on."""
    async with session.party() as party:
        await party.people.withdraw(role, person)
    return Answer({"role": role, "person": person, "has": False}, [f"{person} does not have role {role} any more"])


@command(roles, "list")
async def list_roles(session: Session) -> Answer:
    """List the roles that were ever granted, and who has them now."""
    async with session.party() as party:
        found = await party.people.roles()
    return Answer(found, [f"{role}: {', '.join(people) or 'nobody'}" for role, people in sorted(found.items())])


def _rows(party: Any) -> list[dict[str, Any]]:
    log = party.stack.log
    now = log.keyring.issuing(log.identity).public
    found: dict[bytes, int] = {}
    for number in range(log.identity.slices):
        for key in log.index.part(number)[0].issuers.values():
            found[key] = found.get(key, 0) + 1
    return [{"key": key.hex(), "slices": count, "in_use": key == now} for key, count in found.items()]
