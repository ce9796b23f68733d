"""`party log`: the log itself. Streams, events, proofs, exports, and which log it is."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import complete, moving, slices, verifying
from .output import NO, Answer, NotFoundError, safe
from .session import Session, command

if TYPE_CHECKING:
    from ..eventstore.keyring import Pinned
    from ..eventstore.log import Log

group = typer.Typer(help="The log: streams, slices, read, verify, export, move, root …", no_args_is_help=True)
command(group, "verify")(verifying.verify)
command(group, "move")(moving.move)
command(group, "slices")(slices.slices)
Stream = Annotated[str, typer.Argument(metavar="STREAM", autocompletion=complete.streams)]


@command(group, "streams")
async def streams(
    session: Session,
    prefix: Annotated[str, typer.Option(help="Only those that begin so, for example task/")] = "",
    after: Annotated[str, typer.Option(help="Only those after this name")] = "",
    limit: Annotated[int, typer.Option(help="At most so many", min=1)] = 1_000,
) -> Answer:
    """List streams by name, with revision and slice."""
    from rich.table import Table

    from ..eventstore.verify import slice_of

    async with session.party() as party:
        log = party.stack.log
        await log.refresh()
        names = log.streams(prefix, after, limit)
        found = [
            {
                "stream": name,
                "revision": (await log.state(name)).revision,
                "slice": slice_of(log.identity, name.encode()),
            }
            for name in names
        ]
    more = f"there may be more: --after {names[-1]}" if len(names) == limit else None
    table = Table("stream", "revision", "slice", box=None, caption=more)
    for row in found:
        table.add_row(str(row["stream"]), str(row["revision"]), str(row["slice"]))
    return Answer(found, [table if found else "no streams"])


@command(group, "read")
async def read(
    session: Session,
    stream: Stream,
    first: Annotated[int, typer.Option("--from", help="From this revision on", min=1)] = 1,
    last: Annotated[int | None, typer.Option("--to", help="To this revision, included", min=1)] = None,
    control: Annotated[bool, typer.Option("--control", help="Grants, fences and certificates too")] = False,
) -> Answer:
    """Read a stream's events, decoded; what this program has no code or no key for is shown as opaque."""
    from .reading import all_commits, existing, lines

    async with session.party() as party:
        log = party.stack.log
        revision = await existing(log, stream)
        if control or not revision:
            commits = [commit async for commit in all_commits(log, stream)]
            commits = [c for c in commits if c.control or first <= c.revision <= (last or c.revision)]
        else:
            commits = [commit async for commit in log.read(stream, first, last, lenient=True)]
    found = [line for commit in commits for line in lines(commit)]
    return Answer(found, [_line(line) for line in found] or ["no events there"])


def _line(line: dict[str, Any]) -> str:
    import json

    what = line.get("opaque") or json.dumps(line["data"], ensure_ascii=False)
    return safe(f"{line['revision'] or '-'}\t{line['time']}\t{line['type']}\t{what}")


@command(group, "export")
async def export(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it")],
    names: Annotated[list[str] | None, typer.Argument(metavar="[STREAM]...", autocompletion=complete.streams)] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there")] = False,
) -> Answer:
    """Write the log, or some streams, into one file that a stranger can check with verify.py and nothing else."""
    from ..actors.errors import ConfigurationError
    from ..eventstore import verify
    from ..eventstore.export import export_chunks
    from .reading import existing

    if file.exists() and not force:
        raise ConfigurationError(f"{file} is there already: choose another name, or write over it with --force")
    async with session.party() as party:
        log = party.stack.log
        for name in names or []:
            await existing(log, name)
        scratch, size = file.with_name(f".{file.name}.{os.getpid()}"), 0
        try:
            with scratch.open("wb") as out:
                async for chunk in export_chunks(log, names or []):
                    size += out.write(chunk)
                out.flush()
                os.fsync(out.fileno())
            scratch.replace(file)
        except OSError as error:
            raise ConfigurationError(f"{file} cannot be written: {error.strerror}") from error
        finally:
            scratch.unlink(missing_ok=True)
        root, log_id = log.identity.root.hex(), log.identity.log_id.hex()
    check = f"python {verify.__file__} {file} --root {root} --log {log_id}"
    data = {"file": str(file), "bytes": size, "root": root, "log": log_id, "check": check}
    said = f"{file}: {size:,} bytes\nroot key  {root}\nlog id    {log_id}\ncheck it, also without us: {check}"
    return Answer(data, [said])


@command(group, "head")
async def head(
    session: Session, stream: Annotated[str, typer.Argument(metavar="[STREAM]", autocompletion=complete.streams)] = ""
) -> Answer:
    """Show where the log stands: slices with size and root, the remembered checkpoint; or one stream's head."""
    from .reading import existing

    async with session.party() as party:
        log = party.stack.log
        if stream:
            await existing(log, stream)
            return await _head_of(log, stream)
        await log.refresh()
        return _heads(log)


async def _head_of(log: "Log", stream: str) -> Answer:
    from ..eventstore.verify import OWNER, slice_of

    state = await log.state(stream)
    grants = [
        {"grant": grant.hex(), "role": "owner" if role == OWNER else "writer", "key": key.hex()}
        for grant, (role, key) in state.grants.items()
    ]
    part = slice_of(log.identity, stream.encode())
    data = {"stream": stream, "revision": state.revision, "head": state.head.hex(), "slice": part, "grants": grants}
    said = [f"{name:9} {data[name]}" for name in ("stream", "revision", "head", "slice")]
    return Answer(data, [*said, *(f"{held['role']:9} {held['key']} by grant {held['grant'][:16]}" for held in grants)])


def _heads(log: "Log") -> Answer:
    from rich.table import Table

    from ..eventstore.checkpoints import Checkpoint, remembered

    def told(checkpoint: Checkpoint) -> dict[str, Any]:
        slices = [
            {"slice": number, "size": size, "root": root.hex()}
            for number, (size, root) in sorted(checkpoint.slices.items())
            if size
        ]
        return {"size": checkpoint.size, "slices": slices}

    now = told(log.checkpoint())
    kept = remembered(log.checkpoint_file, log.identity, log.keyring.checkpoint_key(log.identity).public)
    table = Table("slice", "commits", "root", box=None)
    for row in now["slices"]:
        table.add_row(str(row["slice"]), str(row["size"]), row["root"])
    said = f"remembered checkpoint: {kept.size:,} commits" if kept else "no checkpoint is remembered yet"
    data = {"log": log.identity.log_id.hex(), **now, "remembered": told(kept) if kept else None}
    return Answer(data, [f"log {data['log']}: {now['size']:,} commits", table, said])


@command(group, "root")
async def root(session: Session) -> Answer:
    """Print the log's root key and id: what somebody who checks an export must have from you, and from nobody else."""
    settings = session.settings()
    pinned = _pinned(session, settings.address)
    data = {
        "root": pinned.root,
        "log": pinned.identity().log_id.hex(),
        "slices": pinned.slices,
        "journal": pinned.journal,
    }
    return Answer(data, [f"root key  {data['root']}", f"log id    {data['log']}"])


def _pinned(session: Session, journal: str) -> "Pinned":
    pinned = session.keyring(session.settings()).pinned(journal)
    if pinned is None:
        raise NotFoundError(f"no log is remembered for {journal}: name another by --journal")
    return pinned


@command(group, "forget")
async def forget(
    session: Session,
    address: Annotated[str, typer.Argument(metavar="[JOURNAL]", help="Its address; by default this one")] = "",
    sure: Annotated[bool, typer.Option("--yes", help="Do not ask")] = False,
) -> Answer:
    """Accept what lies at an address now: another log, none, or less than there was. Keys and checkpoints are kept.

    Where it is the same log, cut short, its remembered checkpoint is set aside in the keyring, beside the keys.
    """
    from ..actors.errors import InputError
    from .approvals import at_a_terminal, yes
    from .output import console

    settings = session.settings(**({"journal": address} if address else {}))
    pinned, keyring = _pinned(session, settings.address), session.keyring(settings)
    identity = pinned.identity()
    said = f"{settings.address} was log {identity.log_id.hex()[:16]}; what lies there now will be believed"
    if not sure:
        if session.as_json or not at_a_terminal():
            raise InputError(f"{said}: add --yes to do that")
        if not await yes(f"{said}. Forget it?", console(sys.stderr)):
            return Answer({"journal": settings.address, "forgotten": False}, ["nothing was forgotten"], NO)
    aside = await verifying.set_aside(settings, keyring, identity)
    keyring.forget(settings.address)
    data = {"journal": settings.address, "log": identity.log_id.hex(), "forgotten": True, "set_aside": aside}
    kept = f"; its checkpoint is set aside as {aside}" if aside else ""
    return Answer(data, [f"forgotten: {settings.address} was log {identity.log_id.hex()}; its keys stay{kept}"])
