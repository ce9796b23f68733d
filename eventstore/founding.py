"""Opening a log: which one it is comes from the keyring, never from the store."""

from pathlib import Path

from .ambient import Ambient
from .blobs import Blobs
from .checkpoints import remembered
from .codec import Codec
from .errors import LogRolledBack, WrongLogError
from .grants import Issuer
from .keyring import Keyring, Pinned
from .log import Log
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
    `LogRolledBack` where it holds less.
    """
    identity = await _identify(tape, keyring, journal, slices, create)
    log = Log(identity, tape, keyring, index=index, blobs=blobs, codec=codec, ambient=ambient)
    await log.start()
    await Issuer(log).ensure_certified()
    return log


async def _identify(tape: Tape, keyring: Keyring, journal: str, slices: int, create: bool) -> Identity:
    pinned, held = keyring.pinned(journal), await tape.identity()
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
        keyring.root(identity)
    else:
        raise WrongLogError(
            f"{journal} holds log {held.log_id.hex()[:16]}, and {pinned.identity().log_id.hex()[:16]} was here before: "
            "put the right one back, or run `party log forget` to accept this one"
        )
    if pinned is None:
        keyring.pin(Pinned(identity.root.hex(), identity.slices, identity.nonce.hex(), journal))
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
    await tape.found(identity)
