"""`party replay`: the state of a stream at any revision, and what the commit that led there changed."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import complete
from .output import Answer, NotFoundError, safe
from .session import Session, command

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ..actors.activation import Fold
    from ..eventstore.log import Log


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "replay")(replay)


async def replay(
    session: Session,
    stream: Annotated[str, typer.Argument(metavar="STREAM", autocompletion=complete.streams)],
    at: Annotated[int | None, typer.Option(help="The revision; by default the last", min=1)] = None,
) -> Answer:
    """Replay a stream: its state at a revision, its events there, and the difference to the revision before.

    Tasks and agents need no code; entities need --app with their Decider classes, else their events are shown.
    """
    from .reading import existing, lines

    async with session.party() as party:
        log = party.stack.log
        last = await existing(log, stream)
        revision = last if at is None else at
        if not 1 <= revision <= last:
            raise NotFoundError(f"{stream} has no revision {revision}: it is at {last}")
        fold = _fold(log, stream, party.settings.app)
        events = [line async for commit in log.read(stream, revision, revision, lenient=True) for line in lines(commit)]
        if fold is None:
            return _without_state(stream, revision, last, events)
        before = await _state(log, fold, stream, revision - 1)
        after = await _state(log, fold, stream, revision)
    return _with_state(stream, revision, last, events, before, after)


async def _state(log: "Log", fold: "Fold[Any]", stream: str, revision: int) -> Any:
    from .plain import plain
    from .reading import fold_at

    return plain((await fold_at(log, fold, stream, revision)).state)


def _fold(log: "Log", stream: str, app: str) -> "Fold[Any] | None":
    """The fold of a stream, by the first word of its name."""
    from ..actors.agent_state import AGENT
    from ..actors.entities import entity_fold
    from ..actors.task_state import TASK
    from ..apps import find_deciders

    kind = stream.partition("/")[0]
    if kind in ("task", "agent"):
        return TASK if kind == "task" else AGENT
    decider = next((found for found in (find_deciders(app) if app else []) if found.kind == kind), None)
    if decider is None:
        return None
    for cls in decider.events:
        log.codec.add(cls)
    return entity_fold(decider())


def _with_state(stream: str, revision: int, last: int, events: list[dict[str, Any]], before: Any, after: Any) -> Answer:
    from rich.text import Text

    from .approvals import readable
    from .plain import changes

    diff = list(changes(before, after))
    data = {"stream": stream, "revision": revision, "last": last, "state": after, "events": events, "diff": diff}
    bold = "bold"
    return Answer(
        data,
        [
            Text(f"{stream} at revision {revision} of {last}", style=bold),
            *readable(after),
            Text("\nwhat led there", style=bold),
            *_told(events),
            Text(f"\nwhat changed since revision {revision - 1}", style=bold),
            *(_change(change) for change in diff),
            *([] if diff else ["nothing"]),
        ],
    )


def _without_state(stream: str, revision: int, last: int, events: list[dict[str, Any]]) -> Answer:
    data = {"stream": stream, "revision": revision, "last": last, "state": None, "events": events, "diff": None}
    why = f"no code here folds {stream.partition('/')[0]}/…: name its Decider classes by --app; its events:"
    return Answer(data, [f"{stream} at revision {revision} of {last}", why, *_told(events)])


def _told(events: list[dict[str, Any]]) -> "list[RenderableType]":
    import json

    return [
        safe(
            f"{event['time']}  {event['type']}  {event.get('opaque') or json.dumps(event['data'], ensure_ascii=False)}"
        )
        for event in events
    ]


def _change(change: dict[str, Any]) -> "RenderableType":
    import json

    from rich.text import Text

    def said(side: str) -> str:
        return safe(json.dumps(change[side], ensure_ascii=False)) if side in change else "nothing"

    text = Text(f"  {safe(change['path']) or 'state'}: ")
    return text.append(said("before"), style="red").append(" → ").append(said("after"), style="green")
