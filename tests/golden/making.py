"""How `v1/` was written: a small log with something of everything, its keyring, its blobs, and what it says.

    python -m tests.golden.making

The keys are test keys, made from a seed. Once it was released a folder stays as it is: a new format, or a program that
writes other things, gets a new one. `v0/` is from before the format was 1.
"""

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from agent_party.eventstore.ambient import Ambient, Seeded
from agent_party.eventstore.backends.blob_folder import FolderBlobs
from agent_party.eventstore.backends.sqlite import SqliteTape
from agent_party.eventstore.codec import Codec, event
from agent_party.eventstore.export import export
from agent_party.eventstore.founding import open_log
from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.keyring import Keyring
from agent_party.eventstore.log import Log
from agent_party.eventstore.reading import Commit
from agent_party.eventstore.verify import Cause

LOGS = [Path(__file__).parent / name for name in ("v0", "v1")]
JOURNAL = "sqlite:///golden/log.db"


@event("golden.said")
class Said(msgspec.Struct, frozen=True):
    """A line of text."""

    text: str


@event("golden.measured")
class Measured(msgspec.Struct, frozen=True):
    """Something of every type."""

    whole: int
    real: float
    data: bytes
    names: list[str]
    more: dict[str, int | None]
    yes: bool = True


async def opened(folder: Path, *, ambient: Ambient | None = None, random: Callable[[int], bytes] | None = None) -> Log:
    """The log in a folder; founded if it is empty."""
    keyring = Keyring(folder / "state", random) if random else Keyring(folder / "state")
    return await open_log(
        SqliteTape(folder / "log.db"),
        keyring,
        journal=JOURNAL,
        index=folder / "index.db",
        blobs=FolderBlobs(folder / "blobs"),
        codec=Codec([Said, Measured]),
        slices=4,
        create=random is not None,
        ambient=ambient,
    )


async def write(folder: Path) -> None:
    """The log, as it was written."""
    ambient = Seeded(0)
    log = await opened(folder, ambient=ambient, random=ambient.random)
    issuer = Issuer(log)
    first = await issuer.writer("note/a")
    said = await log.append(first, [Said("first"), Said("second"), Said("schön 🎉")], expected=0)
    cause = Cause(b"note/a", 1, 2, said.commit)
    await log.append(
        first,
        [Measured(-(2**63), 0.1, bytes(range(256)), ["a", ""], {"k": 2**64 - 1, "none": None})],
        expected=1,
        cause=cause,
        correlation=bytes(range(16)),
        authority=bytes(range(32)),
        digest=bytes(range(16, 32)),
    )
    await log.append(first, [Said("x" * 70_000)], expected=2)
    guests = [await issuer.writer("inbox/note/a"), await issuer.writer("inbox/note/a")]
    for revision, guest in enumerate(guests):
        await log.append(guest, [Said(f"from guest {revision}")], expected=revision)
    await issuer.fence("inbox/note/a", guests[0].grant)
    second = await issuer.writer("note/a")
    await log.append(second, [Said("after a takeover")], expected=3, subject="person/p1")
    old = log.keyring.issuing(log.identity).public
    await issuer.rotate()
    await issuer.revoke(old)
    await log.append(await issuer.writer("task/t1"), [Said("after a rotation")], expected=0)
    await log.append(second, [Said("the last")], expected=4)
    (folder / "export.party").write_bytes(await export(log))
    (folder / "expected.json").write_text(json.dumps(await told(log), indent=1) + "\n", encoding="utf-8")
    await log.close()


async def told(log: Log) -> dict[str, Any]:
    """All that the log says to its readers, in a form that stays."""
    streams = {
        name: [_commit(commit) async for commit in log.read(name)]
        for name in log.streams()
        if not name.startswith("keys/")
    }
    return {"root": log.identity.root.hex(), "log": log.identity.log_id.hex(), "streams": streams}


def _commit(commit: Commit) -> dict[str, Any]:
    cause = commit.cause
    return {
        "revision": commit.revision,
        "hash": commit.hash.hex(),
        "id": commit.id.hex(),
        "time": commit.time,
        "digest": commit.digest.hex(),
        "correlation": commit.correlation.hex(),
        "authority": commit.authority.hex(),
        "cause": cause and [cause.stream.decode(), cause.revision, cause.event, cause.commit.hex()],
        "slice": commit.slice,
        "position": commit.position,
        "events": [[type(item).__name__, msgspec.to_builtins(item)] for item in commit.events],
    }


def main() -> None:
    folder = LOGS[-1]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    asyncio.run(write(folder))
    for path in [*folder.glob("index.db*"), *folder.rglob("*.lock"), *folder.glob(".gitignore")]:
        path.unlink(missing_ok=True)
    print(*sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()), sep="\n")


if __name__ == "__main__":
    main()
