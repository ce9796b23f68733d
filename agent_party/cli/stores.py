"""The checks of `party doctor` on an open party: the log with its index, the remembered checkpoint, keys, views."""

from collections import Counter
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from ..cluster.settings import scheme_of
from ..eventstore import checkpoints
from ..eventstore.errors import EventStoreError
from ..projections.worker import DEAD_LETTERS
from .doctor import FINE, NOTE, PROBLEM, Finding

if TYPE_CHECKING:
    from ..party import Party


async def look(party: "Party") -> AsyncIterator[Finding]:
    """Everything that opening the log, which compares it with its checkpoint, did not refuse already."""
    log = party.stack.log
    await log.refresh()
    commits = sum(log.index.sizes().values())
    said = f"log {log.identity.log_id.hex()[:16]}: {commits:,} commits in {len(log.index.sizes())} slices"
    yield Finding("log", FINE, said)
    rebuilt = log.index.generation
    yield Finding("index", NOTE if rebuilt else FINE, "was damaged and has been rebuilt" if rebuilt else "up to date")
    if beside := log.index.findings:
        yield _beside(beside)
    yield _checkpoint(party, commits)
    yield _keys(party)
    try:
        async for finding in _views(party, commits):
            yield finding
    except EventStoreError as error:
        yield Finding("views", PROBLEM, f"{type(error).__name__}: {error}")
    yield await _graph(party, commits)


def _beside(found: Counter[str]) -> Finding:
    """What lies on the tape beside accepted records: of no effect, but somebody put it there."""
    said = ", ".join(f"{count:,} {kind}" for kind, count in sorted(found.items()))
    if found["gap"]:
        return Finding(
            "tape", PROBLEM, f"not accepted: {said}", "a gap means that records are missing: party log verify"
        )
    if set(found) <= {"stale"}:
        return Finding("tape", FINE, f"not accepted: {said}, which lost a race or came twice")
    return Finding("tape", NOTE, f"not accepted: {said}", "of no effect; see who else may write to the topic")


def _checkpoint(party: "Party", commits: int) -> Finding:
    log = party.stack.log
    kept = checkpoints.remembered(log.checkpoint_file, log.identity, log.keyring.checkpoint_key(log.identity).public)
    if kept is None:
        return Finding("checkpoint", NOTE, "none is remembered yet", "closing a party remembers one")
    said = f"the log continues the remembered one of {kept.size:,} commits; {commits - kept.size:,} after it"
    return Finding("checkpoint", FINE, said)


def _keys(party: "Party") -> Finding:
    folder = party.stack.log.keyring.log_folder(party.stack.log.identity)
    path = folder / "keys.db"
    if mode := path.stat().st_mode & 0o077:
        return Finding("keys.db", PROBLEM, f"others may read {path} ({mode:03o})", f"chmod 600 {path}")
    return Finding("keys.db", FINE, f"{path}", "back it up with the keyring: without it nothing can be decrypted")


async def _views(party: "Party", commits: int) -> AsyncIterator[Finding]:
    views, worker = party.stack.views, party.stack.worker
    before = await views.checkpoint(worker.projection)
    lag = commits - sum(before.sizes.values())
    if before.paused:
        advice = f"`party projection resume {worker.projection.name}`"
        yield Finding("views", PROBLEM, f"paused ({before.paused}), {lag:,} commits behind", advice)
        return
    after = sum((await worker.catch_up()).values())
    if after < commits:
        advice = f"`party projection rebuild {worker.projection.name}`: it is made anew from the log"
        yield Finding("views", PROBLEM, f"{commits - after:,} commits behind, and do not catch up", advice)
    else:
        yield Finding("views", FINE, f"were {lag:,} commits behind, and have caught up" if lag else "up to date")
    if dead := await views.scan(DEAD_LETTERS):
        which = ", ".join(f"{fields['stream']} {fields['revision']}" for _, fields in dead[:3])
        yield Finding(
            "views", PROBLEM, f"{len(dead)} dead letters: {which}", "`party projection dead-letters` says why"
        )


async def _graph(party: "Party", commits: int) -> Finding:
    """The party needs no graph: where that is away, only `party graph` is."""
    from ..eventstore.errors import EventStoreError
    from ..projections.relationships import Relationships

    settings = party.settings
    if scheme_of(settings.graph) in ("", "ladybug") and not settings.graph_path.exists():
        return Finding("graph", FINE, "nobody has asked it yet; it is made from the log when somebody does")
    try:
        now = await party.graph.store.checkpoint(Relationships())
    except EventStoreError as error:
        advice = "the party goes on without it; what is missing is made from the log when it is back"
        return Finding("graph", PROBLEM, str(error), advice)
    behind = commits - sum(now.sizes.values())
    held = f", paused: {now.paused}" if now.paused else ""
    return Finding("graph", FINE, f"{behind:,} commits behind; it catches up when it is asked{held}")
