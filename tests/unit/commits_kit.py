"""Commits as a fold is given them, of no log."""

from collections.abc import Iterable
from typing import Any

from agent_party.eventstore.reading import Commit


def committed(revision: int, events: Iterable[Any], stream: str = "task/t") -> Commit:
    """The commit of a stream at a revision, with these events; its hash and its time are the revision's."""
    which = (stream, revision, revision.to_bytes(32), bytes(16), b"")
    return Commit(*which, revision, None, b"", b"", tuple(events), None, 0, revision)
