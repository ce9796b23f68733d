"""Forks: a task goes on from another's past, with something changed. What was recorded is not done again.

The first commit of a fork says all of it: what is asked for, whose past it is, and the waits of that past as they
were. What had come to something keeps its outcome; what was open is awaited anew: a step runs, a child is started as
the fork's own, a person is asked again. Outcomes that were taken over cost the fork's budget nothing.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from ..eventstore.artifacts import Artifact, keep, keep_pieces
from ..eventstore.errors import ConflictError, IdReusedError
from ..eventstore.log import Log
from ..eventstore.reading import request_digest
from ..eventstore.verify import Cause
from .activation import Activation, Fold
from .approvals import postponed
from .decider import stream_of
from .doorman import Doorman
from .errors import MovedError
from .events import (
    Advanced,
    Checkpointed,
    Completed,
    Continued,
    Forked,
    Opened,
    Parent,
    Received,
    Requested,
    Settled,
    Source,
    Started,
    Stopped,
)
from .packing import pack_input
from .past import Past, Recorded, input_of
from .task_state import TASK
from .waits import packed

T = TypeVar("T")
S = TypeVar("S")
_TRIES = 10
_PIECE = 1024 * 1024
_NAMED = 16
"""How many blobs one event can name."""


class Change(NamedTuple):
    """What a fork does otherwise. ``input``: arguments that replace those of the same name; ``agent``: who does it;
    ``version``: of the agent, if only that one will do; ``models``: names of models to use instead of others."""

    input: Mapping[str, Any] = {}
    agent: str = ""
    version: str = ""
    models: Mapping[str, str] = {}


class Swaps:
    """Artifacts under new keys: packed values that name the old ones name the new ones instead."""

    def __init__(self) -> None:
        self._packed: dict[bytes, bytes] = {}
        self._blobs: dict[bytes, bytes] = {}

    async def take_over(self, log: Log, past: Past, recorded: Recorded, stream: str) -> None:
        """Keep the artifacts that a task made under the data key of another stream as well."""
        for artifact in _artifacts(recorded):
            if artifact.parts:
                kept = await keep_pieces(log, stream, artifact.name, past.pieces(artifact))
            else:
                kept = await keep(log, stream, artifact.name, await past.content(artifact))
            self._packed[msgspec.msgpack.encode(artifact)] = msgspec.msgpack.encode(kept)
            self._blobs[artifact.blob] = kept.blob

    def __call__(self, packed: bytes) -> bytes:
        for old, new in self._packed.items():
            packed = packed.replace(old, new)
        return packed

    def blobs(self, names: Sequence[bytes]) -> list[bytes]:
        """The same for names of blobs."""
        return [self._blobs.get(name, name) for name in names]


def _artifacts(recorded: Recorded) -> Iterator[Artifact]:
    for wait in recorded.state.waits:
        if wait.settled and wait.settled.attachments and wait.name.startswith("artifact "):
            with contextlib.suppress(msgspec.MsgspecError):
                yield msgspec.msgpack.decode(wait.settled.value, type=Artifact)


class Birth(NamedTuple):
    """A fork to be: its id, and what its first commit says beside the waits that it takes over.

    ``settled``: outcomes of waits that were open; ``source``: where in the fork an outcome comes from; ``ended``:
    whether it ends as the past did.
    """

    task: str
    by: str
    log: bytes
    now: int
    change: Change = Change()
    parent: Parent | None = None
    team: str = ""
    members: Mapping[str, str] = {}
    cut: Mapping[str, int] = {}
    mail: Sequence[Received] = ()
    settled: Mapping[int, Settled] = {}
    source: Callable[[Source | None], Source | None] = lambda source: source
    ended: bool = False


def requested_by(recorded: Recorded, birth: Birth, swaps: Swaps) -> tuple[Requested, bytes]:
    """What a fork is asked for, and the input that its handler begins with."""
    state, change = recorded.state, birth.change
    given = swaps(state.input)
    if change.input:
        given = pack_input({**input_of(given), **change.input}, f"the input of {state.capability}")
    requested = msgspec.structs.replace(
        recorded.requested,
        input=swaps(recorded.requested.input) if state.begun else given,
        agent=change.agent or state.agent,
        parent=birth.parent,
        by=birth.by,
        budget=state.budget,
        models={**state.models, **change.models},
        version=change.version,
        team=birth.team or state.team,
    )
    return requested, given


def opening(recorded: Recorded, birth: Birth, swaps: Swaps) -> list[Any]:
    """The events of a fork's first commit."""
    state, head = recorded.state, recorded.head
    requested, given = requested_by(recorded, birth, swaps)
    mail = [message for messages in state.mail.values() for message in messages]
    forked = Forked(
        recorded.task,
        head.revision,
        head.hash,
        birth.log,
        len(state.waits),
        birth.team,
        dict(birth.members),
        tuple(msgspec.structs.replace(m, input=swaps(m.input), inbox=0) for m in [*mail, *birth.mail]),
        dict(birth.cut),
        (recorded.task, *(state.forked.names if state.forked else ())),
    )
    events: list[Any] = [requested, *([Continued(given)] if state.begun else [])]
    # The messages that nothing has awaited yet come after those waits that have had theirs.
    events += [*_waits(recorded, birth, swaps), forked]
    events += [event for event in (state.progress, state.cancelling) if event]
    if state.checkpoint is not None:
        events.append(Checkpointed(swaps(state.checkpoint)))
    if birth.ended and recorded.ending and not isinstance(recorded.ending, Stopped):
        events += [Started(state.agent, state.version, 1, len(state.waits)), _ending(recorded.ending, swaps)]
    return events


def _ending(ending: Any, swaps: Swaps) -> Any:
    free = msgspec.structs.replace(ending, spent=None, raised=None)
    return msgspec.structs.replace(free, result=swaps(free.result)) if isinstance(free, Completed) else free


def _waits(recorded: Recorded, birth: Birth, swaps: Swaps) -> list[Advanced]:
    """The waits of the past: all openings, then what had come to something."""
    opened: list[Opened] = []
    settled: list[Settled] = []
    for number, wait in enumerate(recorded.state.waits):
        outcome, given = wait.settled or birth.settled.get(number), swaps(wait.input)
        if outcome is None and not birth.team:  # what is begun anew knows the fork by its own id
            given = given.replace(packed(recorded.task), packed(birth.task))
        due, terms = wait.due, wait.terms
        if wait.kind == "approval" and due and outcome is None:  # a person is asked anew, and has as long again
            later = max(0, birth.now - recorded.opened.get(number, birth.now))
            due, terms = due + later, postponed(terms, later)
        reserved = wait.reserved if outcome is None else None
        opened.append(Opened(number, wait.kind, wait.name, given, list(wait.taken), terms, due, reserved))
        if outcome is not None:
            settled.append(_outcome(outcome, birth, swaps))
    events = [Advanced([], list(piece)) for piece in _pieces(opened, lambda one: len(one.input), lambda one: 0)]
    pieces = _pieces(settled, lambda one: len(one.value), lambda one: len(one.attachments))
    return [*events, *(Advanced(list(piece)) for piece in pieces)]


def _outcome(outcome: Settled, birth: Birth, swaps: Swaps) -> Settled:
    return msgspec.structs.replace(
        outcome,
        value=swaps(outcome.value),
        attachments=swaps.blobs(outcome.attachments),
        source=birth.source(outcome.source),
        spent=None,
        raised=None,
    )


def _pieces(items: Sequence[T], size: Callable[[T], int], named: Callable[[T], int]) -> Iterator[Sequence[T]]:
    """Runs of items that fit into one event, or of one that is larger."""
    start = total = blobs = 0
    for n, item in enumerate(items):
        if n > start and (total + size(item) > _PIECE or blobs + named(item) > _NAMED):
            yield items[start:n]
            start, total, blobs = n, 0, 0
        total, blobs = total + size(item), blobs + named(item)
    if items:
        yield items[start:]


async def found(
    log: Log, doorman: Doorman, fold: Fold[S], stream: str, identity: bytes, events: Sequence[Any], cause: Cause | None
) -> None:
    """Write the first commit of a stream, once, and let the stream go for whoever runs it.

    ``identity``: another one under the same name is `IdReusedError`. A crash leaves all of it or nothing.
    """
    command = hashlib.sha256(log.identity.log_id + stream.encode() + b"#fork").digest()[:16]
    for _ in range(_TRIES):
        await log.refresh()
        state = await log.state(stream)
        if state.revision:
            await _same(log, stream, command, identity)
            return
        activation = Activation(log, fold, stream)
        with contextlib.suppress(MovedError, ConflictError):
            await activation.start(lambda name, grants=state.grants: doorman.successor(name, grants))  # type: ignore[misc]
            if not activation.folded.revision:
                await activation.command(command, identity, lambda _: events, cause)
            await activation.release(doorman.release)
    await _same(log, stream, command, identity)


async def is_founded(log: Log, stream: str, identity: bytes) -> bool:
    """Whether the first commit of a stream was written; `IdReusedError` if it was another."""
    await log.refresh()
    if not (await log.state(stream)).revision:
        return False
    await _same(log, stream, hashlib.sha256(log.identity.log_id + stream.encode() + b"#fork").digest()[:16], identity)
    return True


async def _same(log: Log, stream: str, command: bytes, identity: bytes) -> None:
    digest = request_digest(log.keyring.secret(log.identity, "request"), identity)
    async for commit in log.read(stream, 1, 1, lenient=True):
        if (commit.id, commit.digest) == (command, digest):
            return
    raise IdReusedError(stream, stream.partition("/")[2])


async def fork(
    log: Log, doorman: Doorman, past: Past, recorded: Recorded, *, task: str, by: str, change: Change
) -> Requested:
    """Put a fork of a task on the log under an id, once; what was asked for by it. Whoever has its code runs it."""
    stream, head = stream_of("task", task), recorded.head
    birth = Birth(task, by, past.log_id, log.ambient.now(), change)
    swaps = Swaps()
    requested, _ = requested_by(recorded, birth, swaps)
    asked = msgspec.structs.replace(requested, by="")
    identity = msgspec.msgpack.encode((past.log_id, recorded.task, head.hash, asked))
    if not await is_founded(log, stream, identity):
        await swaps.take_over(log, past, recorded, stream)
        events = opening(recorded, birth, swaps)
        await found(log, doorman, TASK, stream, identity, events, cause_in(log, past, recorded))
    return await requested_of(log, task)


def cause_in(log: Log, past: Past, recorded: Recorded) -> Cause | None:
    """The commit of the past that a fork follows from, where it stands on the same log."""
    if past.log_id != log.identity.log_id:
        return None
    return Cause(stream_of("task", recorded.task).encode(), recorded.head.revision, 0, recorded.head.hash)


async def requested_of(log: Log, task: str) -> Requested:
    """What a task was asked for."""
    async for commit in log.read(stream_of("task", task), 1, 1):
        return next(event for event in commit.events if isinstance(event, Requested))
    raise MovedError(f"task {task} is not on the log yet: fork it again with the same id")
