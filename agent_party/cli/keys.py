"""`party keys`: the issuing keys of a log, which sign who may write what."""

from typing import Annotated, Any

import typer

from .output import Answer, NotFoundError
from .session import Session, command

group = typer.Typer(help="Issuing keys: list, rotate, revoke.", no_args_is_help=True)


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


def _rows(party: Any) -> list[dict[str, Any]]:
    log = party.stack.log
    now = log.keyring.issuing(log.identity).public
    found: dict[bytes, int] = {}
    for number in range(log.identity.slices):
        for key in log.index.part(number)[0].issuers.values():
            found[key] = found.get(key, 0) + 1
    return [{"key": key.hex(), "slices": count, "in_use": key == now} for key, count in found.items()]
