"""`party log verify`: what can be proved of the live log, of a copy of its folder, or of an export."""

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .output import NO, OK, Answer, NotFoundError
from .session import Session

if TYPE_CHECKING:
    from ..cluster.settings import Settings
    from ..eventstore.audit import Audit
    from ..eventstore.keyring import Keyring
    from ..eventstore.verify import Identity


async def verify(
    session: Session,
    file: Annotated[Path | None, typer.Option("--file", help="Check an export instead of the live log")] = None,
    root: Annotated[str, typer.Option(help="With --file: the log's root key, hex; by default this log's")] = "",
    copy: Annotated[Path | None, typer.Option("--copy", help="Check a copy of a party's folder (.party)")] = None,
) -> Answer:
    """Judge every record, and say precisely what was proved. Exit code 1 if something does not hold.

    Which log it must be, and what it was when it was last seen, comes from your keyring, never from what is checked.
    """
    from ..actors.errors import InputError

    if file and copy:
        raise InputError("--file and --copy exclude each other: name one of them")
    if root and not file:
        raise InputError("--root goes with --file: a live log's root key comes from the keyring")
    settings = session.settings()
    keyring = session.keyring(settings)
    if file:
        return _export(file, root, settings, keyring)
    if copy is None and not settings.embedded:
        return _answer(await _audit_live(settings, keyring))
    folder = copy if copy is None or copy.is_dir() else copy.parent
    path = settings.log_path if folder is None else _log_in(folder, copy, settings)
    with tempfile.TemporaryDirectory(prefix="agent-party-verify-") as scratch:
        # A copy is evidence, and a log that is gone must not come into being: neither is opened where it lies.
        opened = path if copy is None and path.exists() else _aside(path, Path(scratch))
        return _answer(await _audit(opened, settings, keyring))


def _log_in(folder: Path, named: Path | None, settings: "Settings") -> Path:
    path = (
        named
        if named is not None and named.is_file()
        else folder / (settings.log_path.name if settings.embedded else "log.db")
    )
    if not path.exists():
        raise NotFoundError(f"there is no {path.name} in {folder}: name a copy of a party's folder")
    return path


def _aside(path: Path, scratch: Path) -> Path:
    """A copy of a log's file, with what SQLite keeps beside it; nothing if there is nothing."""
    from ..eventstore.errors import StoreReadOnlyError

    try:
        for part in (path, path.with_name(f"{path.name}-wal")):
            if part.exists():
                shutil.copyfile(part, scratch / part.name)
    except OSError as error:
        raise StoreReadOnlyError(f"{path} cannot be copied to be looked at: {error.strerror}") from error
    return scratch / path.name


async def _audit(path: Path, settings: "Settings", keyring: "Keyring") -> "Audit":
    from ..cluster.wiring import audit_file

    pinned = keyring.pinned(settings.address)
    identity = pinned.identity() if pinned else _of_this_keyring(await held(path), settings, keyring)
    return await audit_file(path, identity, keyring)


async def _audit_live(settings: "Settings", keyring: "Keyring") -> "Audit":
    """Audit a log that is no file: where it lies, for nobody can put a topic aside."""
    from ..cluster import stores
    from ..cluster.wiring import audit_tape

    pinned, found = keyring.pinned(settings.address), await stores.held(settings)
    identity = pinned.identity() if pinned else _of_this_keyring(found, settings, keyring)
    tape = stores.open_tape(settings)
    await tape.identity()
    return await audit_tape(tape, identity, keyring)


def _of_this_keyring(found: "Identity | None", settings: "Settings", keyring: "Keyring") -> "Identity":
    """Nothing is remembered for the address: what the store says it is will do, if this keyring founded it."""
    from ..eventstore.errors import WrongLogError

    if found is None:
        raise NotFoundError(f"there is no log at {settings.address}: start a party there, or name it by --journal")
    if not keyring.has(found):
        raise WrongLogError(
            f"this is log {found.log_id.hex()[:16]}, whose keys are not in {keyring.folder}: it is another user's or "
            "party's. Ask its owner for an export and the root key, and check that with --file and --root"
        )
    return found


def _answer(audit: "Audit") -> Answer:
    from ..eventstore.audit import MATCHES
    from .plain import plain

    data = {"ok": audit.ok, **plain(audit), "proved": audit.proved}
    verdict = f"log {audit.log[:16]}: " + ("holds" if audit.ok else "does NOT hold")
    said = [f"{verdict}; {audit.commits:,} commits, {audit.events:,} events, {audit.streams:,} streams"]
    if audit.finding:
        place = ", ".join(f"{name} {value}" for name, value in audit.at.items())
        said.append(f"finding: {audit.finding} at {place} {audit.detail}".rstrip())
    if audit.findings:
        beside = ", ".join(f"{count:,} {kind}" for kind, count in sorted(audit.findings.items()))
        said.append(f"beside them on the tape, and of no effect: {beside}")
    said += [f"- {proof}" for proof in audit.proved]
    if audit.checkpoint.status != MATCHES:
        said += [f"checkpoint: {audit.checkpoint.status}: {detail}" for detail in audit.checkpoint.details]
    return Answer(data, said, OK if audit.ok else NO)


def _export(file: Path, root: str, settings: "Settings", keyring: "Keyring") -> Answer:
    from ..actors.errors import InputError
    from ..eventstore.verify import check_export

    pinned = keyring.pinned(settings.address)
    try:
        key = bytes.fromhex(root or (pinned.root if pinned else ""))
    except ValueError:
        key = b""
    if len(key) != 32:
        raise InputError("--root must be the log's root key, 64 hex digits: its owner has it from `party log root`")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise NotFoundError(f"{file} cannot be read: {error.strerror}") from error
    report = check_export(content, key)
    holds = not report["finding"]
    data = {"ok": holds, "file": str(file), "root": key.hex(), **report}
    counts = f"{report['commits']:,} commits, {report['events']:,} events, {report['streams']:,} streams"
    if not holds:
        at = report["at"]
        place = ", ".join(f"{name} {value}" for name, value in at.items()) if isinstance(at, dict) else str(at)
        said = [f"{file}: does NOT hold; before it, {counts}", f"finding: {report['finding']} at {place}"]
        return Answer(data, [*said, str(report.get("detail", ""))], NO)
    proved = [
        f"{counts}: chains, grants, signatures and contents hold, under this root key",
        "not shown: whether later records, or other streams, were left out",
        "not shown: when anything was written; times are their writers' claims",
    ]
    return Answer({**data, "proved": proved}, [f"{file}: holds", *(f"- {proof}" for proof in proved)])


async def held(path: Path) -> "Identity | None":
    """Which log a store says it holds."""
    from ..eventstore.backends.sqlite import SqliteTape

    tape = SqliteTape(path)
    try:
        return await tape.identity()
    finally:
        await tape.close()


async def set_aside(settings: "Settings", keyring: "Keyring", identity: "Identity") -> str | None:
    """Where the same log lies, cut short, its checkpoint would be refused for ever: keep it under another name."""
    from ..cluster import stores
    from ..eventstore.audit import ROLLED_BACK

    if await stores.held(settings) != identity:
        return None
    audit = await (
        _audit(settings.log_path, settings, keyring) if settings.embedded else _audit_live(settings, keyring)
    )
    if audit.checkpoint.status != ROLLED_BACK:
        return None
    kept = keyring.log_folder(identity) / "checkpoint"
    number = 1 + len(list(kept.parent.glob("checkpoint.forgotten-*")))
    return str(kept.rename(kept.with_name(f"checkpoint.forgotten-{number}")))
