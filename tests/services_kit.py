"""The real servers that tests use: where each one listens. Started once for the run (see `tests/conftest.py`)."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from agent_party.cluster import services
from agent_party.eventstore.puts import Process

GIVEN = "PARTY_TEST_SERVICES"
FOLDER = "PARTY_TEST_FOLDER"
PREFIX, OWNER = "party-services-", "owner.json"
"""Variables: the file that names running servers; the folder of those that the run starts."""


class Services(NamedTuple):
    """``kafka``: bootstrap servers, ``host:port``. The others are URLs with whatever is needed to enter.

    Tests share the servers, so each makes what it uses under a name of its own: a topic, a bucket, a Redis prefix.
    Neo4j's one database is emptied by the test that uses it.
    """

    kafka: str
    neo4j: str
    redis: str
    s3: str

    def journal(self, topic: str) -> str:
        """The journal URL of a topic."""
        return f"kafka://{self.kafka}/{topic}"

    def blobs(self, bucket: str) -> str:
        """The blobs URL of a bucket: ``s3`` is ``http://key:secret@host:port``."""
        scheme, _, rest = self.s3.partition("://")
        login, _, address = rest.rpartition("@")
        return f"s3://{login}@{bucket}?endpoint={scheme}://{address}"


def entering(url: str, login: str) -> str:
    """The URL with another login, ``name:password``, or with none if that is empty."""
    scheme, _, rest = url.partition("://")
    address = rest.rpartition("@")[2]
    return f"{scheme}://{login}@{address}" if login else f"{scheme}://{address}"


def given() -> Services | None:
    """The running servers that were named, if any."""
    named = os.environ.get(GIVEN)
    return Services(**json.loads(Path(named).read_text())) if named else None


def new_folder(within: Path | None = None) -> str:
    """A folder for the servers of this run, which says whose it is."""
    folder = tempfile.mkdtemp(prefix=PREFIX, dir=within)
    (Path(folder) / OWNER).write_bytes(msgspec.json.encode(Process.this()))
    return folder


def end_left_behind(within: Path | None = None) -> list[Path]:
    """End the servers of runs that were killed before they could do it, and remove their folders: those whose owner is
    known to be dead, by the pids that are recorded there. The folders that are gone."""
    gone: list[Path] = []
    for owner in (within or Path(tempfile.gettempdir())).glob(f"{PREFIX}*/{OWNER}"):
        with contextlib.suppress(OSError, msgspec.MsgspecError, services.ServiceError):
            if msgspec.json.decode(owner.read_bytes(), type=Process).is_dead():
                services.stop(owner.parent, delete=True)
                shutil.rmtree(owner.parent)
                gone.append(owner.parent)
    return gone


def started() -> Services:
    """The servers of this run: whichever of its processes comes first starts them, all at once."""
    there = services.start(Path(os.environ[FOLDER])).addresses
    return Services(there["kafka"], there["neo4j"], there["redis"], there["minio"])


def told() -> Iterator[str]:
    """What the servers that were used said they are."""
    if named := os.environ.get(GIVEN):
        yield f"services: those of {named}"
        return
    running = services.attach(Path(os.environ[FOLDER]))
    for name, version in running.versions.items():
        yield f"services: {name} says that it is {version}"


def end() -> None:
    """End what this run has started, if anything, and remove it."""
    folder = os.environ.pop(FOLDER, "")
    if folder:
        services.stop(Path(folder), delete=True)
        shutil.rmtree(folder, ignore_errors=True)
