"""Reading streams for people: folds and lines of history that go on where an event is unknown to this program."""

from collections.abc import AsyncIterator
from typing import Any

from ..actors.activation import Fold, Folded
from ..actors.events import Advanced
from ..eventstore.log import Log
from ..eventstore.reading import Commit, Opaque
from ..eventstore.verify import STREAM
from .output import NotFoundError
from .plain import iso, plain


async def existing(log: Log, stream: str) -> int:
    """The revision of a stream, read to its end; `NotFoundError` if nothing was ever written there."""
    await log.refresh()
    known = STREAM.fullmatch(stream.encode("utf-8", "replace"))
    revision = (await log.state(stream)).revision if known else 0
    if not revision and not (known and log.index.control_rows(stream.encode())):
        raise NotFoundError(f"there is no stream {stream}: `party log streams` lists what there is")
    return revision


async def fold_at(log: Log, fold: Fold[Any], stream: str, at: int | None = None) -> Folded[Any]:
    """The fold of a stream at its head or at a revision; events that this program does not know count for nothing."""
    folded = Folded(fold, stream)
    async for commit in log.read(stream, 1, at, lenient=True):
        folded.add(commit._replace(events=tuple(e for e in commit.events if not isinstance(e, Opaque))))
    return folded


def event_name(event: Any) -> str:
    """The type of an event, as the log has it."""
    return event.type if isinstance(event, Opaque) else type(event).__event__.name.decode()


def lines(commit: Commit) -> list[dict[str, Any]]:
    """A commit's events, one line each, decoded; what could not be decoded says why."""
    where = {
        "stream": commit.stream,
        "revision": commit.revision,
        "slice": commit.slice,
        "position": commit.position,
        "commit": commit.hash.hex(),
        "time": iso(commit.time),
    }
    if commit.control:
        return [{**where, "event": 0, "type": commit.control[0], "data": _control(*commit.control)}]
    shared = {**where, **({"cause": _cause(commit)} if commit.cause else {})}
    return [{**shared, "event": index, **_event(event)} for index, event in enumerate(commit.events)]


def _event(event: Any) -> dict[str, Any]:
    if isinstance(event, Opaque):
        return {"type": event.type, "opaque": event.reason}
    data = plain(event)
    if isinstance(event, Advanced):  # empty parts say nothing
        data = {name: part for name, part in data.items() if part}
    return {"type": event_name(event), "data": data}


def _cause(commit: Commit) -> dict[str, Any]:
    assert commit.cause is not None
    stream, revision, event, digest = commit.cause
    return {"stream": stream.decode(), "revision": revision, "event": event, "commit": digest.hex()}


def _control(kind: str, payload: bytes) -> dict[str, Any]:
    if kind == "grant":
        role = {1: "owner", 2: "writer"}.get(payload[0], str(payload[0]))
        return {"role": role, "key": payload[1:33].hex(), "holder": payload[33:].hex()}
    name = {"certify": "key", "revoke": "certificate", "fence": "grant", "erase": "data_key", "upgrade": "format"}
    return {name[kind]: payload.hex()}


async def all_commits(log: Log, stream: str) -> AsyncIterator[Commit]:
    """A stream's commits, control commits too, in the order in which they were accepted."""
    rows = log.index.all_rows(stream.encode())
    for first in range(0, len(rows), 500):
        for commit in await log.commits(rows[first : first + 500], lenient=True):
            yield commit
