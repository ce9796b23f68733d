"""Opening a log: which one it is comes from the keyring, never from the store."""

import contextlib
from pathlib import Path

from .ambient import Ambient
from .blobs import Blobs
from .checkpoints import remembered
from .codec import Codec
from .errors import LogMovedError, LogRolledBack, WrongLogError
from .grants import Issuer
from .keyring import Keyring, Pinned
from .log import Log
from .moves import Movable
from .tape import Tape
from .verify import Identity

EMBEDDED_SLICES = 16


async def open_log(
    tape: Tape,
    keyring: Keyring,
    *,
    journal: str,
    index: Path,
    blobs: Blobs,
    codec: Codec,
    slices: int = EMBEDDED_SLICES,
    create: bool = True,
    ambient: Ambient | None = None,
) -> Log:
    """Open the log at a journal address, founding it if there is none and ``create`` allows it.

    Raises `WrongLogError` where the store holds another log than the one remembered for this address, and
    `LogRolledBack` where it holds less. Where it cannot be opened, the tape is closed.
    """
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(tape.close)
        identity = await _identify(tape, keyring, journal, slices, create)
        log = Log(identity, tape, keyring, index=index, blobs=blobs, codec=codec, ambient=ambient)
        stack.callback(log.keys.close)
        await log.start()
        stack.pop_all()
    try:
        await Issuer(log).ensure_certified()
    except BaseException:
        await log.close()
        raise
    return log


async def _identify(tape: Tape, keyring: Keyring, journal: str, slices: int, create: bool) -> Identity:
    pinned, held = keyring.pinned(journal), await tape.identity()
    went = pinned.moved if pinned else ""
    if went or (isinstance(tape, Movable) and (went := await tape.moved_to())):
        raise LogMovedError(f"the log of {journal}", went)
    if pinned is None and held is None:
        if not create:
            raise WrongLogError(f"there is no log at {journal}: start a party there first")
        identity, _ = keyring.found(slices)
        try:
            await tape.found(identity)
        except WrongLogError:
            held = await tape.identity()
    if held is None:
        identity = pinned.identity() if pinned else identity
        if pinned:
            await _found_again(tape, keyring, identity, journal)
    elif pinned is None or pinned.identity() == held:
        identity = held
        if not keyring.has(identity):
            raise WrongLogError(
                f"{journal} holds log {held.log_id.hex()[:16]}, whose keys are not in {keyring.folder}: it is another "
                "user's or party's, or this is another node: bring the keyring it was founded with here, or choose "
                "another journal"
            )
        keyring.root(identity)
    else:
        raise WrongLogError(
            f"{journal} holds log {held.log_id.hex()[:16]}, and {pinned.identity().log_id.hex()[:16]} was here before: "
            "put the right one back, or run `party log forget` to accept this one"
        )
    if pinned is None:
        keyring.pin(Pinned(identity.root.hex(), identity.slices, identity.nonce.hex(), journal))
        if (pinned := keyring.pinned(journal)) and pinned.identity() != identity:
            raise WrongLogError(f"another process has just founded another log for {journal}: open it again")
    return identity


async def _found_again(tape: Tape, keyring: Keyring, identity: Identity, journal: str) -> None:
    """An empty store where a log was founded: fine only if nothing was ever acknowledged there."""
    folder = keyring.log_folder(identity)
    kept = remembered(folder / "checkpoint", identity, keyring.checkpoint_key(identity).public)
    if kept and kept.size:
        raise LogRolledBack(
            f"{journal} is empty, and {kept.size} commits were there before. Restore the newest copy; "
            f"if it was deleted on purpose, run `party log forget {journal}`"
        )
    try:
        await tape.found(identity)
    except WrongLogError:
        if await tape.identity() != identity:  # else another process was a moment faster
            raise
