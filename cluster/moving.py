"""Moving a party's log to another journal: stores opened, presence asked, the keyring's pin moved."""

import contextlib
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

from ..actors.errors import ConfigurationError, InputError
from ..actors.events import CORE
from ..actors.presence import Presence
from ..eventstore.backends.index_file import delete
from ..eventstore.codec import Codec
from ..eventstore.errors import LogMovedError, LogRolledBack, WrongLogError
from ..eventstore.keyring import Keyring, state_folder
from ..eventstore.log import Log
from ..eventstore.moves import Movable
from ..eventstore.moving import Moved, Progress, move, summed
from ..eventstore.tape import Tape
from ..eventstore.verify import Identity
from .settings import Settings, scheme_of
from .stores import open_blobs, open_tape


class Plan(NamedTuple):
    """What a move would do. ``there``: whether the target holds a beginning of this log already, from a run that broke
    off; ``lanes``: of source and target."""

    log_id: bytes
    commits: int
    slices: int
    lanes: tuple[int, int]
    there: bool


async def move_log(settings: Settings, target: Settings, *, progress: Progress = lambda *_: None) -> Moved:
    """Carry the log of one journal to another, and remember that it lies there.

    `InputError` while other processes of this machine have the log open, or for a target that is the source;
    `WrongLogError` for one that holds anything else. What broke off is taken up by doing it again.
    """
    keyring = _keyring(settings)
    async with contextlib.AsyncExitStack() as opened:
        try:
            source, tape = await _both(settings, target, keyring, opened)
        except LogRolledBack:
            source = await _gone_on(settings, target, keyring, opened)
            moved = await summed(source, progress=progress)
        else:
            assert tape
            caches = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="agent-party-")))
            moved = await move(source, tape, target.address, caches=caches, keyring=keyring, progress=progress)
    keyring.move_pin(source.identity, settings.address, target.address)
    if target.folder.exists():
        delete(target.folder / "index.db")  # what it knows of places is of the other tape
    return moved


async def plan_move(settings: Settings, target: Settings) -> Plan:
    """What `move_log` would do; refused as it would be. Nothing is changed."""
    keyring = _keyring(settings)
    async with contextlib.AsyncExitStack() as opened:
        try:
            source, tape = await _both(settings, target, keyring, opened, look_only=True)
        except LogRolledBack:
            gone = await _gone_on(settings, target, keyring, opened)
            sizes, lanes = gone.index.sizes(), gone.tape.lanes
            return Plan(gone.identity.log_id, sum(sizes.values()), len(sizes), (lanes, lanes), True)
        held = await tape.identity() if tape else None
        if held not in (None, source.identity):
            raise WrongLogError(f"{target.address} holds another log: move to an empty one")
        await source.refresh()
        sizes = source.index.sizes()
        both = source.tape.lanes, tape.lanes if tape else 1
        return Plan(source.identity.log_id, sum(sizes.values()), len(sizes), both, held is not None)


async def _both(
    settings: Settings, target: Settings, keyring: Keyring, opened: contextlib.AsyncExitStack, look_only: bool = False
) -> tuple[Log, Tape | None]:
    """The log as it lies here, whether or not it is marked as moved already, and the tape it goes to; None where that
    would have to be made."""
    if settings.address == target.address:
        raise InputError(f"the log lies at {target.address} already")
    _refuse_to_lose_sight_of_blobs(settings, target)
    pinned = keyring.pinned(settings.address)
    if pinned is None:
        raise ConfigurationError(f"there is no log at {settings.address}: name its journal by --journal")
    if pinned.moved and pinned.moved != target.address:
        raise LogMovedError(f"the log of {settings.address}", pinned.moved)
    there = keyring.pinned(target.address)
    if there and there.identity() != pinned.identity():
        raise WrongLogError(
            f"another log is remembered at {target.address}: choose another target, or run `party log forget`"
        )
    _refuse_while_others_live(settings, opened)
    source = await _as_it_lies(settings, keyring, pinned.identity())
    opened.push_async_callback(source.close)
    if look_only and target.embedded and not target.log_path.exists():
        return source, None
    goal = open_tape(target)
    opened.push_async_callback(goal.close)
    if isinstance(goal, Movable) and (went := await goal.moved_to()):
        raise LogMovedError(f"the log of {target.address}", went)
    return source, goal


async def _gone_on(settings: Settings, target: Settings, keyring: Keyring, opened: contextlib.AsyncExitStack) -> Log:
    """The log at the target, where a move broke off when all was done but for remembering it, and somebody has gone on
    there since: so the source holds less than is remembered. Else `LogRolledBack`, as whoever opens it gets it."""
    pinned = keyring.pinned(settings.address)
    assert pinned
    went = ""
    try:
        log = await _as_it_lies(settings, keyring, pinned.identity(), to_the_mark=False)
        await log.close()
    except LogMovedError as moved:
        went = moved.target
    if went != target.address:
        raise LogRolledBack(f"{settings.address} holds less of the log than was there before: restore the newest copy")
    log = await _as_it_lies(target, keyring, pinned.identity())
    opened.push_async_callback(log.close)
    return log


async def _as_it_lies(settings: Settings, keyring: Keyring, identity: Identity, *, to_the_mark: bool = True) -> Log:
    """The log, up to the mark if it was moved, or else `LogMovedError`; nothing is written to it."""
    tape = open_tape(settings)
    async with contextlib.AsyncExitStack() as opened:
        opened.push_async_callback(tape.close)
        if not isinstance(tape, Movable):
            raise ConfigurationError(f"a log cannot be moved away from {settings.address}")
        tape.to_the_mark = to_the_mark
        if not to_the_mark and (went := await tape.moved_to()):
            raise LogMovedError(f"the log of {settings.address}", went)
        if (held := await tape.identity()) != identity:
            said = f"holds log {held.log_id.hex()[:16]}" if held else "is empty"
            raise WrongLogError(f"{settings.address} {said}, and {identity.log_id.hex()[:16]} was here before")
        log = Log(
            identity, tape, keyring, index=settings.folder / "index.db", blobs=open_blobs(settings), codec=Codec(CORE)
        )
        opened.callback(log.keys.close)
        await log.start()
        opened.pop_all()
    return log


def _refuse_to_lose_sight_of_blobs(settings: Settings, target: Settings) -> None:
    """Blobs do not move: both journals must find them in one place."""
    if {scheme_of(one.blobs) for one in (settings, target)} <= {"", "file"}:
        here, there = settings.blobs_path, target.blobs_path
        if here != there and next(here.glob("??/*"), None):
            raise InputError(
                f"blobs lie in {here}, and with the new journal they would be looked for in {there}: "
                f"set PARTY_BLOBS=file:///{here} for both, and move then"
            )


def _refuse_while_others_live(settings: Settings, opened: contextlib.AsyncExitStack) -> None:
    presence = Presence(settings.folder / "hosts", os.urandom(16))
    opened.callback(presence.close)
    others = [path.name for path in presence.folder.iterdir() if path.name != presence.holder.hex()]
    if living := [name for name in others if len(name) == 32 and presence.alive(bytes.fromhex(name))]:
        raise InputError(
            f"{len(living)} other processes of this machine have the log of {settings.address} open: end them first"
        )


def _keyring(settings: Settings) -> Keyring:
    return Keyring(Path(settings.state) if settings.state else state_folder())
