"""`party log move`: carry the log to another journal."""

import sys
from typing import Annotated

import typer

from .output import NO, Answer
from .session import Session


async def move(
    session: Session,
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="Where to, for example kafka://host:9092/agent.events")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing")] = False,
    sure: Annotated[bool, typer.Option("--yes", help="Do not ask")] = False,
) -> Answer:
    """Carry the log to another journal, record by record, and compare both. What broke off goes on when done again.

    The source is closed for good: whoever still has it open is refused, and told where the log is now.
    """
    from ..actors.errors import InputError
    from ..cluster.moving import move_log, plan_move
    from .approvals import at_a_terminal, yes
    from .output import console

    settings, goal = session.settings(), session.settings(journal=target)
    plan = await plan_move(settings, goal)
    lanes = f"{plan.lanes[0]} to {plan.lanes[1]} lanes"
    said = f"{plan.commits:,} commits in {plan.slices} slices go from {settings.address} to {goal.address}, {lanes}"
    data = {"log": plan.log_id.hex(), "from": settings.address, "to": goal.address, "commits": plan.commits}
    if dry_run:
        begun = ["a run that broke off has begun it"] if plan.there else []
        return Answer({**data, "slices": plan.slices, "lanes": plan.lanes, "begun": plan.there}, [said, *begun])
    if not sure:
        if session.as_json or not at_a_terminal():
            raise InputError(f"{said}, for good: add --yes to do that")
        if not await yes(f"{said}, for good. Move it?", console(sys.stderr)):
            return Answer({**data, "moved": False}, ["nothing was moved"], NO)
    shown = not session.as_json and sys.stderr.isatty()

    def progress(what: str, done: int, total: int) -> None:
        if shown:
            print(f"\r{what}: {done:,}{f' of {total:,}' if total else ''}   ", end="", file=sys.stderr, flush=True)

    moved = await move_log(settings, goal, progress=progress)
    data = {**data, "commits": moved.commits, "moved": True, "copied": moved.copied, "export": moved.export}
    return Answer(
        {**data, "checkpoint": moved.checkpoint},
        [
            f"moved: {moved.commits:,} commits lie at {goal.address}, {moved.copied:,} copied by this run",
            f"every slice's tree, the checkpoint and the export of all ({moved.export[:16]}…) are the same as before",
            f"set the journal to {goal.address} everywhere: PARTY_JOURNAL, or journal in party.toml",
        ],
    )
