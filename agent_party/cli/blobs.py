"""`party blobs`: what lies beside the log. List it, verify it, sweep what nothing names."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..eventstore.blobs import Stored
from .output import NO, Answer
from .session import Session, command

if TYPE_CHECKING:
    from ..eventstore.sweeping import Swept

group = typer.Typer(help="What lies beside the log: list, verify, gc.", no_args_is_help=True)
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_SHOWN = 20


def seconds(text: str) -> float:
    """A length of time such as 90s, 15m, 36h or 7d, in seconds."""
    number, unit = (text[:-1], text[-1:]) if text[-1:] in _UNITS else (text, "s")
    try:
        if (value := float(number) * _UNITS[unit]) >= 0:
            return value
    except ValueError:
        pass
    raise typer.BadParameter(f"{text!r} is no length of time: 90s, 15m, 36h or 7d")


@command(group, "list")
async def list_blobs(
    session: Session,
    unnamed: Annotated[bool, typer.Option("--unnamed", help="Only those that nothing on the log names")] = False,
    limit: Annotated[int, typer.Option(help="At most so many", min=1)] = 1_000,
) -> Answer:
    """List blobs with size, age and whether the log names them, the oldest first."""
    from rich.table import Table

    from ..eventstore.sweeping import named_blobs

    async with session.party() as party:
        log = party.stack.log
        stored = sorted([one async for one in log.blobs.stored()], key=lambda one: (-one.age, one.name))
        named = (await named_blobs(log, {one.name: one.size for one in stored})).blobs
    chosen = [one for one in stored if not (unnamed and one.name in named)]
    rows = [{**_row(one), "named": one.name in named} for one in chosen[:limit]]
    table = Table("blob", "bytes", "age", "named by the log", box=None)
    for row in rows:
        table.add_row(row["blob"], f"{row['size']:,}", _age(row["age"]), "yes" if row["named"] else "no")
    said = f"{len(chosen):,} blobs, {sum(one.size for one in chosen):,} bytes"
    return Answer(rows, [table, said] if rows else ["no blobs"])


@command(group, "verify")
async def verify(session: Session) -> Answer:
    """Read every blob that the log names and compare it with its hash. Exit code 1 if one is missing or damaged."""
    from ..eventstore.errors import BlobError
    from ..eventstore.sweeping import named_blobs

    bad: list[dict[str, str]] = []
    async with session.party() as party:
        log = party.stack.log
        found = await named_blobs(log, {one.name: one.size async for one in log.blobs.stored()})
        for number, name in enumerate(sorted(found.blobs)):
            _progress(session, f"{number:,} of {len(found.blobs):,}")
            try:
                await log.blobs.get(name)
            except BlobError as error:
                bad.append({"blob": name.hex(), "problem": str(error)})
    data = {"ok": not bad, "named": len(found.blobs), "bad": bad}
    shown = [f"{one['problem']}" for one in bad[:_SHOWN]]
    said = f"{len(found.blobs):,} blobs are named by the log; {len(bad):,} of them are missing or damaged"
    return Answer(data, [*shown, said], NO if bad else 0)


@command(group, "gc")
async def gc(
    session: Session,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing")] = False,
    older_than: Annotated[str, typer.Option(help="Leave alone what was put later: 90s, 15m, 36h, 7d")] = "7d",
    release: Annotated[
        list[str] | None, typer.Option(help="A pin whose process is dead for sure; it is named where it holds a run up")
    ] = None,
    despite_unreadable: Annotated[
        bool, typer.Option("--despite-unreadable", help="Go on where something named cannot be read")
    ] = False,
) -> Answer:
    """Sweep what nothing on the log names, in two runs: the first sets aside, a later one deletes."""
    from ..eventstore.sweeping import sweep

    async with session.party() as party:
        told = await sweep(
            party.stack.log,
            older_than=seconds(older_than),
            dry_run=dry_run,
            one_node=party.settings.embedded,
            release=release or (),
            despite_unreadable=despite_unreadable,
        )
    return _told(told, dry_run)


def _told(told: "Swept", dry_run: bool) -> Answer:
    would = "would be " if dry_run else ""
    waiting = [{"pin": pin.partition("/")[2], "process": said} for pin, said in sorted(told.waiting.items())]
    data = {
        "dry_run": dry_run,
        "named": told.named,
        "set_aside": [_row(one) for one in told.set_aside],
        "brought_back": [name.hex() for name in told.brought_back],
        "deleted": [name.hex() for name in told.deleted],
        "waiting": waiting,
        "released": [pin.partition("/")[2] for pin in told.released],
    }
    size = sum(one.size for one in told.set_aside)
    lines = [f"{told.named:,} blobs are named by the log, {told.stored:,} are stored"]
    lines += [f"{len(told.deleted):,} {would}deleted"] if told.deleted else []
    lines += [f"{len(told.brought_back):,} {would}brought back: they are named by now"] if told.brought_back else []
    lines += [f"{len(told.set_aside):,} {would}set aside, {size:,} bytes; a later run deletes them"] * bool(size)
    lines += [f"pin {one['pin']} of {one['process']} holds this up: it may name what it has put" for one in waiting]
    lines += ["if such a process is dead for sure: --release PIN"] * bool(told.waiting)
    return Answer(data, lines)


def _row(one: Stored) -> dict[str, Any]:
    return {"blob": one.name.hex(), "size": one.size, "age": round(max(one.age, 0.0), 1)}


def _age(age: float) -> str:
    unit = next((unit for unit in "dhm" if age >= _UNITS[unit]), "s")
    return f"{age / _UNITS[unit]:.0f} {unit}"


def _progress(session: Session, text: str) -> None:
    if not session.as_json and sys.stderr.isatty():
        print(f"\r{text}", end="", file=sys.stderr)
