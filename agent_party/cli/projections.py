"""`party projection`: what is made of the log, who carries it there, and how to throw it away."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .output import NO, OK, Answer, safe
from .session import Session, command

if TYPE_CHECKING:
    from ..cluster.projections import AnyWorker, Status
    from ..projections.checking import Check

group = typer.Typer(
    help="Projections: list, status, run, rebuild, pause, resume, check, dead-letters.", no_args_is_help=True
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="The projection: `party projection list` shows them")]


@command(group, "list")
async def list_projections(session: Session) -> Answer:
    """List projections: how far each has come, how far it is behind, whether it is paused, its dead letters."""
    from ..cluster.projections import Status, names, status, workers
    from ..eventstore.errors import StoreError

    found, away = list[Status](), dict[str, str]()
    async with session.party() as party:
        await party.stack.log.refresh()
        for name in names():
            try:
                found += [await status(worker) for worker in await workers(party.stack, name)]
            except StoreError as error:  # the others can be told all the same
                away[name] = str(error)
    told = [*map(_plain, found), *({"name": name, "error": said} for name, said in away.items())]
    return Answer(told, [_table(found), *(f"{safe(name)}: {safe(said)}" for name, said in away.items())])


def _table(found: "list[Status]") -> Any:
    from rich.table import Table

    table = Table("projection", "version", "commits", "behind", "seconds", "dead letters", "", box=None)
    for one in found:
        said = f"paused: {one.stands.paused}" if one.stands.paused else ""
        said = said or (f"a rebuild has {one.scratch:,} commits" if one.scratch else "")
        commits, behind = f"{sum(one.stands.sizes.values()):,}", f"{one.lag.commits:,}"
        version = str(one.stands.version or one.version)
        cells = (one.name, version, commits, behind, f"{one.lag.seconds:.1f}", str(one.letters), said)
        table.add_row(*(safe(cell) for cell in cells))
    return table


def _plain(one: "Status") -> dict[str, Any]:
    return {
        "name": one.name,
        "version": one.version,
        "projected_by": one.stands.version,
        "commits": sum(one.stands.sizes.values()),
        "lag": one.lag.commits,
        "lag_seconds": round(one.lag.seconds, 3),
        "paused": one.stands.paused,
        "dead_letters": one.letters,
        "rebuilding": one.scratch,
    }


@command(group, "status")
async def status(session: Session, name: Name) -> Answer:
    """Show one projection, with its checkpoint and the hash of what stands."""
    from ..cluster.projections import status as look

    async with session.party() as party:
        await party.stack.log.refresh()
        told = []
        for worker in await _workers(party, name):
            found = await look(worker)
            slices = {str(part): size for part, size in sorted(found.stands.sizes.items())}
            hashed = await worker.sink.digest(worker.projection)
            told.append({**_plain(found), "checkpoint": slices, "hash": hashed})
    shown = [f"{safe(key)}: {safe(str(value))}" for one in told for key, value in one.items()]
    return Answer(told[0] if len(told) == 1 else told, shown)


@command(group, "run")
async def run(
    session: Session,
    name: Name,
    once: Annotated[bool, typer.Option("--once", help="Catch up with the log and end")] = False,
    owners: Annotated[
        int, typer.Option(help="Among how many owners the slices are shared out; only where a projection allows it")
    ] = 1,
) -> Answer:
    """Carry commits into a projection until it is interrupted: here, or in a Ray job or cluster by Ray actors."""
    from ..cluster.projections import part_worker, share_out
    from ..cluster.settings import chosen_runtime

    settings = session.settings()
    if not once and chosen_runtime(settings) == "ray":
        from ..cluster.ray_environment import prepare

        prepare(settings)
        from ..cluster.projecting import carry_on_ray

        async with session.party() as party:
            await share_out(party.stack, name, owners)
        return _told(name, await carry_on_ray(settings, name, owners, _say))
    async with session.party() as party:
        parts = await share_out(party.stack, name, owners)
        carriers = [part_worker(party.stack, name, part, _limits()) for part in parts]
        await party.stack.log.refresh()
        if once:
            return _told(name, sum([sum((await one.catch_up()).values()) for one in carriers]))
        await _until_interrupted(name, carriers)
        commits = [sum((await one.sink.checkpoint(one.projection)).sizes.values()) for one in carriers]
    return _told(name, sum(commits))


def _limits() -> Any:
    from ..cluster.projections import LIMITS

    return LIMITS


def _told(name: str, commits: int) -> Answer:
    return Answer({"name": name, "commits": commits}, [f"{safe(name)}: {commits:,} commits projected"])


def _say(said: str) -> None:
    import sys

    print(said, file=sys.stderr, flush=True)


async def _until_interrupted(name: str, carriers: "list[AnyWorker]") -> None:
    import asyncio

    from ..cluster.ending import until_told

    _say(f"carrying {name}, until it is interrupted")
    running = [asyncio.ensure_future(one.run()) for one in carriers]
    ending = asyncio.ensure_future(until_told())
    done, _ = await asyncio.wait([*running, ending], return_when=asyncio.FIRST_COMPLETED)
    for one in (*running, ending):
        one.cancel()
    await asyncio.gather(*running, ending, return_exceptions=True)
    for one in done - {ending}:
        one.result()


@command(group, "rebuild")
async def rebuild(session: Session, name: Name) -> Answer:
    """Project everything anew beside what stands, then put it in its place at once."""
    async with session.party() as party:
        told = [{"name": one.projection.name, "hash": await one.rebuild()} for one in await _workers(party, name)]
    shown = [f"{safe(one['name'])}: rebuilt, hash {one['hash']}" for one in told]
    return Answer(told[0] if len(told) == 1 else told, shown)


@command(group, "pause")
async def pause(
    session: Session, name: Name, reason: Annotated[str, typer.Option(help="Why; others see it")] = "by hand"
) -> Answer:
    """Project nothing more, in no process, until it is resumed."""
    return await _paused(session, name, reason or "by hand")


@command(group, "resume")
async def resume(session: Session, name: Name) -> Answer:
    """Go on where it was paused."""
    return await _paused(session, name, "")


async def _paused(session: Session, name: str, reason: str) -> Answer:
    async with session.party() as party:
        for worker in await _workers(party, name):
            await worker.sink.pause(worker.projection, reason)
    said = f"paused ({reason})" if reason else "resumed"
    return Answer({"name": name, "paused": reason}, [f"{safe(name)}: {safe(said)}"])


@command(group, "check")
async def check(session: Session, name: Name) -> Answer:
    """Compare what stands with what the log gives; exit code 1 if anything differs."""
    from ..cluster.projections import reference_of

    async with session.party() as party:
        await party.stack.log.refresh()
        found = [(one.projection.name, await one.check(reference_of(name))) for one in await _workers(party, name)]
    ok = all(checked.ok for _, checked in found)
    told = [_checked(part, checked) for part, checked in found]
    shown = [line for part, checked in found for line in _lines(part, checked)]
    return Answer(told[0] if len(told) == 1 else told, shown, OK if ok else NO)


def _checked(name: str, found: "Check") -> dict[str, Any]:
    differing = [{"id": list(one.id), "expected": one.expected, "found": one.found} for one in found.differences]
    return {"name": name, "ok": found.ok, "commits": found.commits, "hash": found.found, "differences": differing}


def _lines(name: str, found: "Check") -> list[str]:
    if found.ok:
        return [f"{safe(name)}: as the log gives it, {found.commits:,} commits, hash {found.found}"]
    lines = [f"{safe(name)}: not what the log gives: `party projection rebuild {safe(name)}` mends it"]
    return lines + [
        f"  {safe('/'.join(one.id))}: expected {safe(repr(one.expected))}, found {safe(repr(one.found))}"
        for one in found.differences
    ]


@command(group, "dead-letters")
async def dead_letters(
    session: Session,
    name: Name,
    replay: Annotated[bool, typer.Option("--replay", help="Project them again, and what waits behind them")] = False,
    stream: Annotated[str, typer.Option(help="Replay this stream only")] = "",
) -> Answer:
    """List the streams that stand at a commit that cannot be projected; with --replay try them again."""
    async with session.party() as party:
        await party.stack.log.refresh()
        carriers = await _workers(party, name)
        replayed = [await one.replay(stream) for one in carriers] if replay else []
        letters = [letter for one in carriers for letter in await one.letters()]
    mended = sorted(name for told in replayed for name, letter in told.items() if letter is None)
    lines = [f"{safe(one.stream)} revision {one.revision}: {safe(one.reason)}" for one in letters]
    lines += [f"{safe(one)}: projected" for one in mended]
    data = {"name": name, "dead_letters": [one._asdict() for one in letters], "replayed": mended}
    return Answer(data, lines or ["no dead letters"], NO if replay and letters else OK)


async def _workers(party: Any, name: str) -> "list[AnyWorker]":
    from ..cluster.projections import workers

    return await workers(party.stack, name, _limits())
