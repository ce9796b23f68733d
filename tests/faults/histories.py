"""What clients did and were told, written down as it happens, and what stands afterwards, in the checker's words.

A line is on its way to the disk before its operation begins, so a killed client's last operations are known too: their
answers never came. All times are of one clock.
"""

import itertools
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from math import inf
from pathlib import Path
from typing import Any

import msgspec

from agent_party.eventstore.verify import CONTROL, DATA
from tests.eventstore_kit import Truth
from tests.faults.linearizable import (
    ACKNOWLEDGED,
    UNKNOWN,
    Append,
    Entry,
    Operation,
    Read,
    Resolved,
    Take,
    Violation,
    check,
)

APPEND, TAKE, READ, RESOLVE = "append", "take", "read", "resolve"


class Recorder:
    """Writes one client's history. ``write`` gets whole lines; ``clock`` is the one that all clients share."""

    def __init__(self, write: Callable[[bytes], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._write, self._clock = write, clock
        self._numbers = itertools.count()

    @classmethod
    def to(cls, path: Path) -> "Recorder":
        """Into a new file, past every buffer of this process."""
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)
        return cls(lambda line: os.write(file, line))

    def begin(self, stream: str, what: str, *details: Any) -> int:
        """An operation is about to begin: for an append its grant, expected revision and id; for a resolve the id."""
        number = next(self._numbers)
        self._line(number, self._clock(), stream, what, *details)
        return number

    def end(self, number: int, *answer: Any) -> None:
        """Its answer: an append's outcome, revision and commit; a take's grant; a read's first revision and ids; a
        resolve's."""
        self._line(number, self._clock(), *answer)

    def _line(self, *parts: Any) -> None:
        self._write(msgspec.json.encode(parts) + b"\n")


class Told:
    """The histories of all clients, by stream."""

    def __init__(self, histories: Iterable[Iterable[bytes]]) -> None:
        self.operations: dict[str, list[Operation]] = defaultdict(list)
        self.commits: dict[str, str] = {}
        for history in histories:
            self._add(history)

    @classmethod
    def of(cls, paths: Iterable[Path]) -> "Told":
        """What lies in these files. A last line that was cut off by a kill says nothing that was begun."""
        return cls((line for line in path.read_bytes().split(b"\n") if line) for path in paths)

    def _add(self, history: Iterable[bytes]) -> None:
        begun: dict[int, list[Any]] = {}
        for line in history:
            number, at, *rest = msgspec.json.decode(line)
            if number not in begun:
                begun[number] = [at, *rest]
            else:
                self._finished(begun[number], at, rest)
                begun[number] = []
        for begin in begun.values():
            if begin:
                self._finished(begin, inf, [UNKNOWN])

    def _finished(self, begin: list[Any], at: float, answer: list[Any]) -> None:
        call, stream, what, *asked = begin
        operations = self.operations[stream]
        if what == APPEND:
            grant, expected, commit = asked
            outcome, revision = answer[0], answer[1] if len(answer) > 1 else 0
            operations.append(Append(call, at, grant, expected, commit, outcome, revision))
            if outcome == ACKNOWLEDGED:
                self.commits[commit] = answer[2]
        elif what == TAKE:
            known = answer[0] == ACKNOWLEDGED
            operations.append(Take(call, at, answer[1] if known else "", answer[0]))
        elif answer[0] == UNKNOWN:
            return
        elif what == READ:
            operations.append(Read(call, at, answer[0], tuple(answer[1])))
        else:
            operations.append(Resolved(call, at, asked[0], answer[0]))

    def outcomes(self) -> Counter[str]:
        """How many appends came to what."""
        return Counter(op.outcome for ops in self.operations.values() for op in ops if isinstance(op, Append))


def entries(truth: Truth) -> dict[str, list[Entry]]:
    """The grants and data commits of every stream but the slices' own, in order."""
    found: dict[str, list[Entry]] = defaultdict(list)
    for record in truth.accepted:
        header = record.header
        if header.kind == DATA:
            found[header.stream.decode()].append(Entry("data", header.commit_id.hex(), header.grant.hex()))
        elif header.kind == CONTROL and b"\x05grant" in record.body[:16]:
            found[header.stream.decode()].append(Entry("grant", record.commit.hex()))
    return found


def violations(truth: Truth, told: Told, *, over: bool) -> list[Violation]:
    """Everything that is wrong with what clients were told of these streams, given what stands."""
    stand = entries(truth)
    commits = {record.header.commit_id.hex(): record.commit.hex() for record in truth.accepted}
    found = [
        Violation("lost", f"{name} was acknowledged as {commit}")
        for name, commit in told.commits.items()
        if commits.get(name) != commit
    ]
    for stream in stand.keys() | told.operations.keys():
        found += check(stand.get(stream, []), told.operations.get(stream, []), over=over)
    return found
