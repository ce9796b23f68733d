"""`party doctor`: looks at each setting and says what to do."""

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from .output import NO, OK, Answer
from .session import Session, command

if TYPE_CHECKING:
    from ..cluster.settings import Settings

FINE, NOTE, PROBLEM = "fine", "note", "problem"


class Finding(NamedTuple):
    """What a check found. ``status``: fine, note (nothing to worry about) or problem; ``advice``: what to do."""

    check: str
    status: str
    detail: str
    advice: str = ""


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "doctor")(doctor)


async def doctor(session: Session) -> Answer:
    """Check each setting: Python, code, journal, keys, log, checkpoint, views, blobs, runtime, extras."""
    from ..actors.errors import PartyError
    from . import blob_checks, brokers, checks, stores

    findings = [checks.python(tuple(sys.version_info[:3]))]
    try:
        settings = session.settings()
    except PartyError as error:
        findings.append(Finding("settings", PROBLEM, str(error), "correct the option, variable or party.toml"))
        return _answer(findings)
    findings.append(Finding("settings", FINE, f"journal {settings.address}, runtime {settings.runtime}"))
    findings += attempted("code", lambda: checks.code(settings))
    findings += attempted("journal", lambda: checks.journal(settings))
    if not settings.embedded:
        findings += [finding async for finding in brokers.look(settings)]
    findings += attempted("keyring", lambda: checks.keyring(session.keyring(settings)))
    findings += await _stores(session, settings, stores)
    findings += await blob_checks.look(settings)
    findings += attempted("runtime", lambda: checks.runtime(settings))
    findings += attempted("extras", checks.extras)
    return _answer(findings)


async def _stores(session: Session, settings: "Settings", stores: Any) -> list[Finding]:
    from ..actors.errors import PartyError
    from ..eventstore.errors import EventStoreError, LogError
    from .output import NotFoundError

    try:
        async with session.party() as party:
            return [finding async for finding in stores.look(party)]
    except NotFoundError:
        return [Finding("log", NOTE, f"there is none yet at {settings.address}", "the first party founds it")]
    except (PartyError, EventStoreError) as error:
        there = not settings.embedded or settings.log_path.exists()
        advice = "`party log verify` says where" if there and isinstance(error, LogError) else ""
        return [Finding("log", PROBLEM, f"{type(error).__name__}: {error}", advice)]


def attempted(check: str, look: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """What a check found; where it fails, that is a finding too."""
    from ..actors.errors import PartyError
    from ..eventstore.errors import EventStoreError

    found: list[Finding] = []
    try:
        found.extend(look())
    except (PartyError, EventStoreError, OSError) as error:
        found.append(Finding(check, PROBLEM, f"{type(error).__name__}: {error}"))
    return found


def _answer(findings: list[Finding]) -> Answer:
    from rich.table import Table
    from rich.text import Text

    from .output import safe

    styles = {FINE: "green", NOTE: "yellow", PROBLEM: "bold red"}
    table = Table("check", "", "found", "what to do", box=None)
    for finding in findings:
        table.add_row(
            finding.check,
            Text(finding.status, style=styles[finding.status]),
            safe(finding.detail),
            safe(finding.advice),
        )
    bad = sum(finding.status == PROBLEM for finding in findings)
    said = f"{bad} problem{'s' if bad > 1 else ''}" if bad else "all fine"
    data = {"ok": not bad, "checks": [finding._asdict() for finding in findings]}
    return Answer(data, [table, said], NO if bad else OK)
