"""Sweeping: blobs that no accepted record names are deleted, and none that one names or may yet name.

A sweep takes two runs. The first reads the log and sets aside what it does not name; then it notes the pins that stand
(see `puts`). What is set aside is still read, but whoever puts the same bytes puts them anew. A later run, when all of
those pins are gone, reads the log again: what is named by now comes back, the rest is deleted. Why that is safe,
whoever is slow, paused or dead: `docs/decisions/0012-two-runs-to-sweep.md`.
"""

from collections.abc import Collection
from typing import NamedTuple

import msgspec

from .blobs import Blobs, Stored
from .errors import BlobError, StoreBusyError, WrongLogError
from .log import Log
from .parts import may_be_list, parsed
from .puts import PINS, Process, check_owner

NOTE, TURN = "sweep", "sweeping"
AT_MOST = 100_000
"""Blobs that one sweep sets aside; the next takes the rest."""
_ROWS = 500


class _Begun(msgspec.Struct, frozen=True):
    """What a run left to the next: what was set aside before these pins were seen."""

    aside: list[tuple[bytes, str]]
    pins: list[str]


class Named(NamedTuple):
    """What the accepted records of a log name. ``lists``: of these, those that are lists of parts; ``unreadable``:
    attachments that cannot be read, so that it is not known whether they name parts."""

    blobs: set[bytes]
    lists: set[bytes]
    unreadable: dict[bytes, str]


class Swept(NamedTuple):
    """What a run did, or would do. ``waiting``: pins of the run before, and whose they are; while there are any,
    nothing is deleted. ``released``: pins of dead processes."""

    named: int
    stored: int
    set_aside: list[Stored]
    brought_back: list[bytes]
    deleted: list[bytes]
    waiting: dict[str, str]
    released: list[str]


async def named_blobs(log: Log, sizes: dict[bytes, int]) -> Named:
    """Read the whole log: every blob that an accepted record names, parts of lists too. ``sizes``: of what is here."""
    await log.refresh()
    payloads, attachments = set[bytes](), set[bytes]()
    had: dict[int, int] = {}
    while rows := log.after(had, _ROWS):
        for _, events in await log.records(rows):
            payloads |= {event.payload for event in events if event.in_blobs}
            attachments |= {name for event in events for name in event.attachments}
        for row in rows:
            had[row.part] = row.position + 1
    if any(had.get(part, 0) < size for part, size in log.index.sizes().items()):
        raise StoreBusyError("the log's index is being rebuilt: sweep again when that is done")
    found = Named(payloads | attachments, set(), {})
    for name in attachments:
        if may_be_list(sizes.get(name, -1)) or name not in sizes:
            try:
                parts = parsed(await log.blobs.get(name))
            except BlobError as error:
                found.unreadable[name] = str(error)
                continue
            if parts:
                found.lists.add(name)
                found.blobs.update(part.blob for part in parts.parts)
    return found


async def sweep(
    log: Log,
    *,
    older_than: float,
    dry_run: bool = False,
    one_node: bool = False,
    release: Collection[str] = (),
    despite_unreadable: bool = False,
) -> Swept:
    """One run. ``older_than``: seconds since a blob was put, below which it is left alone. ``release``: pins whose
    processes are known to be dead. ``one_node``: see `Process.is_dead`.

    Raises `WrongLogError` for another log's blobs, `BlobError` where something named cannot be read and may be a list
    whose parts would then be deleted, `StoreBusyError` while another run goes on. A run that breaks off while it moves
    blobs keeps its turn, for a move may be under way yet: when its process is dead, the next run takes it, or is told
    to by ``release``.
    """
    await check_owner(log.blobs, log.identity.log_id)
    options = older_than, one_node, release, despite_unreadable
    if dry_run:
        return (await _planned(log, *options, dry_run=True)).swept
    await _take_turn(log.blobs, one_node, release)
    try:
        plan = await _planned(log, *options, dry_run=False)
    except BaseException:
        await log.blobs.remove_note(TURN)
        raise
    await _carry_out(log, plan)
    await log.blobs.remove_note(TURN)
    return plan.swept


class _Plan(NamedTuple):
    """What a run will do. ``left``: what is aside and stays there."""

    swept: Swept
    brought_back: list[tuple[bytes, str]]
    deleted: list[tuple[bytes, str]]
    left: list[tuple[bytes, str]]


async def _take_turn(blobs: Blobs, one_node: bool, release: Collection[str]) -> None:
    """One run at a time: another one's move that is under way could take away what this one has just brought back."""
    mine, said = msgspec.json.encode(Process.this()), "another process"
    for _ in range(2):
        if await blobs.note(TURN, mine, new=True):
            return
        try:
            other = msgspec.json.decode((await blobs.notes(TURN)).get(TURN, b""), type=Process)
            dead, said = other.is_dead(one_node=one_node), str(other)
        except msgspec.MsgspecError:
            dead = False
        if not dead and TURN not in release:
            break
        await blobs.remove_note(TURN)
    raise StoreBusyError(f"{said} sweeps these blobs: wait for its end, or if it is known to be dead, --release {TURN}")


async def _planned(
    log: Log,
    older_than: float,
    one_node: bool,
    release: Collection[str],
    despite_unreadable: bool,
    *,
    dry_run: bool,
) -> _Plan:
    blobs = log.blobs
    begun = await _begun(blobs)
    pins, released = await _pins(blobs, one_node, release, dry_run)  # after `begun`, or later ones would seem gone
    stored = {one.name: one async for one in blobs.stored()}
    aside = [pair async for pair in blobs.aside()]
    found = await named_blobs(log, {name: one.size for name, one in stored.items()})  # after the pins were read
    if stored and found.blobs.isdisjoint(stored) and not await check_owner(blobs, log.identity.log_id):
        raise WrongLogError("these blobs are nobody's by name, and the log names none of them: look whose they are")
    if found.unreadable and not despite_unreadable:
        name, why = next(iter(found.unreadable.items()))
        raise BlobError(
            f"{len(found.unreadable)} attachments that the log names cannot be read, {name.hex()} for one ({why}); "
            "they may be lists of parts, so nothing is swept: restore them first"
        )
    waiting = {pin: pins[pin] for pin in (begun.pins if begun else ()) if pin in pins}
    brought_back = [pair for pair in aside if pair[0] in found.blobs]
    over = set(begun.aside) if begun and not waiting else set()
    deleted = [pair for pair in aside if pair in over and pair[0] not in found.blobs]
    unnamed = [one for one in stored.values() if one.name not in found.blobs and one.age >= older_than]
    fresh = [] if waiting else sorted(unnamed, key=lambda one: -one.age)[:AT_MOST]
    left = [pair for pair in aside if pair not in deleted and pair not in brought_back]
    swept = Swept(
        named=len(found.blobs),
        stored=len(stored),
        set_aside=fresh,
        brought_back=[name for name, _ in brought_back],
        deleted=[name for name, _ in deleted],
        waiting=waiting,
        released=released,
    )
    return _Plan(swept, brought_back, deleted, left)


async def _carry_out(log: Log, plan: _Plan) -> None:
    for name, run in plan.brought_back:
        await log.blobs.bring_back(name, run)
    for name, run in plan.deleted:
        await log.blobs.drop(name, run)
    if not plan.swept.waiting:
        await _set_aside(log, plan.swept.set_aside, plan.left)


async def _set_aside(log: Log, fresh: list[Stored], left: list[tuple[bytes, str]]) -> None:
    """Set blobs aside, and only then look which pins stand. ``left``: what a run that broke off had set aside."""
    run = log.ambient.random(8).hex()
    for one in fresh:
        await log.blobs.set_aside(one.name, run)
    pairs = [*left, *((one.name, run) for one in fresh)]
    if pairs:
        seen = list(await log.blobs.notes(PINS))
        await log.blobs.note(NOTE, msgspec.msgpack.encode(_Begun(pairs, seen)))
    else:
        await log.blobs.remove_note(NOTE)


async def _begun(blobs: Blobs) -> _Begun | None:
    kept = (await blobs.notes(NOTE)).get(NOTE)
    try:
        return msgspec.msgpack.decode(kept, type=_Begun) if kept else None
    except msgspec.MsgspecError:
        return None  # then everything that is aside begins anew


async def _pins(
    blobs: Blobs, one_node: bool, release: Collection[str], dry_run: bool
) -> tuple[dict[str, str], list[str]]:
    """The pins that were found, each with whose it is, and those of them that were taken away, for their processes
    are dead. These count once more: what a process sent last may still be on its way to the log."""
    standing, released = dict[str, str](), list[str]()
    for key, content in (await blobs.notes(PINS)).items():
        try:
            process = msgspec.json.decode(content, type=Process)
            dead, said = process.is_dead(one_node=one_node), str(process)
        except msgspec.MsgspecError:
            dead, said = False, "a process of another version"
        standing[key] = said
        if dead or key.removeprefix(PINS) in release:
            released.append(key)
            if not dry_run:
                await blobs.remove_note(key)
    return standing, released
