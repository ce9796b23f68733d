"""Artifacts that people put: each has a stream of its own, `artifact/ID`, with one commit that the person has signed.

So a data key of its own seals each, and can be destroyed alone; and the chain leads from the artifact to the person.
The statement is as others are (see `statements`): ``task`` is the stream, ``shown`` the artifact, ``name`` its name.
"""

import re
from typing import NamedTuple

import msgspec

from ..eventstore.artifacts import Artifact
from ..eventstore.codec import event

STREAM = "artifact/"
NAME = re.compile(r"[^\x00-\x1f\x7f/]{1,255}")


class _Said(msgspec.Struct):
    """Of a statement, what it is about."""

    shown: bytes = b""
    person: str = ""


@event("artifact.put")
class ArtifactPut(msgspec.Struct, frozen=True):
    """A person has put an artifact, and signed that they did."""

    statement: bytes
    signature: bytes

    @property
    def artifact(self) -> Artifact:
        """What was put; `msgspec.MsgspecError` if the statement is of something else."""
        return msgspec.msgpack.decode(msgspec.msgpack.decode(self.statement, type=_Said).shown, type=Artifact)

    @property
    def person(self) -> str:
        """Who says that they put it, before the signature is checked."""
        return msgspec.msgpack.decode(self.statement, type=_Said).person

    @property
    def attachments(self) -> list[bytes]:
        """The blob that the commit names."""
        return [self.artifact.blob]


class Kept(NamedTuple):
    """An artifact and where it is from. ``source``: a task's id, or the id under which a person put it; ``person``:
    who put it, empty for a task's; ``time``: when, in microseconds since 1970, by whoever wrote; ``trouble``: why the
    person's signature does not hold, empty if it does."""

    source: str
    artifact: Artifact
    person: str = ""
    time: int = 0
    trouble: str = ""
