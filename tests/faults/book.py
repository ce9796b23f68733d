"""Real records and the real rule, each computed once: the explorer's worlds hold numbers that stand for them.

There is no abstraction of `judge` here that could differ from it: every acceptance is its answer, on bytes that were
signed by the keys in question. A planted bug of the rule is a changed line of its own source.
"""

import types
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from agent_party.eventstore import verify
from agent_party.eventstore.commit import Draft, Payload, SigningKey, build, control
from agent_party.eventstore.verify import (
    CONTROL,
    OWNER,
    WRITER,
    ZERO,
    Record,
    SliceState,
    StreamState,
    Verdict,
    beginning,
    identity,
    judge,
    parse,
)

Rule = Callable[..., Verdict]
RULE_BUGS = {
    "ignoring prev": ("(header.prev, header.revision) == (state.head, state.revision + 1)", "True"),
    "accepting an ended grant": (
        "left = {grant: held for grant, held in grants.items() if grant != payload}",
        "left = grants",
    ),
    "accepting an overtaken grant": ("{**(grants if of_inbox else {}),", "{**grants,"),
    "body not checked": ('finding = "" if root == header.body_root else "body-mismatch"', 'finding = ""'),
    "slice not checked": ("header.slice >= log.slices or header.slice != slice_of(log, header.stream)", "False"),
    "a fence that needs the head": (
        "header.prev == payload and payload in grants",
        "state.revision == 0 and payload in grants",
    ),
}
"""Name → a piece of the rule's source, and what stands there instead."""


def planted(bug: str | None) -> Rule:
    """The rule, or the rule with a bug."""
    if bug is None:
        return judge
    right, wrong = RULE_BUGS[bug]
    source = Path(verify.__file__).read_text(encoding="utf-8")
    assert source.count(right) == 1, f"the rule does not say {right!r} any more: plant {bug!r} anew"
    module = types.ModuleType("agent_party.eventstore.verify_with_a_bug")
    exec(compile(source.replace(right, wrong), "verify.py with a bug", "exec"), vars(module))
    rule: Rule = module.judge
    return rule


class Entry(NamedTuple):
    """A record with what the explorer asks of it. ``command``: whose it is, for a data commit."""

    record: Record
    kind: str
    command: str
    target: int


class Book:
    """Everything that can be written on one stream, by number."""

    def __init__(self, bug: str | None = None, *, inbox: bool = False) -> None:
        self.rule, self.inbox = planted(bug), inbox
        self.stream = b"inbox/a" if inbox else b"note/a"
        root = SigningKey.from_seed(bytes(32))
        self.log = identity(root.public, 4, bytes(32))
        self.issuer = SigningKey.from_seed(b"i" * 32)
        part = verify.slice_of(self.log, self.stream)
        draft = Draft(b"keys/%d" % part, (), bytes(16), 0, b"")
        first = beginning(self.log, draft.stream)
        certificate = parse(control(self.log, draft, b"certify", self.issuer.public, first.head, ZERO, root).raw)
        self.part = judge(self.log, SliceState(), first, certificate).slice
        self.certificate = certificate.commit
        self.entries: list[Entry] = []
        self.states: list[StreamState] = []
        self._written: dict[tuple[object, ...], int] = {}
        self._state_numbers: dict[tuple[object, ...], int] = {}
        self._verdicts: dict[tuple[int, int], int] = {}
        self.start = self._state(beginning(self.log, self.stream))

    def data(self, state: int, grant: int, key: str, command: str) -> int:
        """The commit by which a command is carried out on a state."""
        at = self.states[state]
        payload = Payload(b"note.written", 1, command.encode(), None)
        draft = Draft(self.stream, [payload], command.encode().ljust(16), 0, bytes(32))

        def write() -> bytes:
            held = self.entries[grant].record.commit
            return build(self.log, draft, at.head, at.revision + 1, held, _key(key), 1_000).raw

        return self._entry(("data", at.head, at.revision, grant, key, command), write, "data", command)

    def grant(self, state: int, key: str) -> int:
        """The grant of the stream to a key, on a state."""
        payload = bytes([WRITER if self.inbox else OWNER]) + _key(key).public + bytes(16)
        return self._control("grant", self.states[state].head, payload)

    def fence(self, grant: int) -> int:
        """The fence that ends a grant."""
        target = self.entries[grant].record.commit
        return self._control("fence", target, target, grant)

    def altered(self, number: int) -> list[int]:
        """What an enemy of the store can make of a record: another body, another slice."""
        record = self.entries[number].record
        if record.header.kind == CONTROL:
            return []
        other_body = record.body[:-1] + bytes([record.body[-1] ^ 1])
        head = 2 + int.from_bytes(record.raw[:2])
        body = record.raw[: head + 64] + len(other_body).to_bytes(4) + other_body
        return [self._entry(("body", number), lambda: body, "other body", ""), self._other_slice(number)]

    def _other_slice(self, number: int) -> int:
        """Signed by the right key, for a slice in which the stream does not live."""
        record = self.entries[number].record
        key = next(k for k in KEYS if _key(k).public in {held for _, held in self._holders(record.header.grant)})

        def write() -> bytes:
            size = int.from_bytes(record.raw[:2])
            head = bytearray(record.raw[2 : 2 + size])
            head[2:4] = ((record.header.slice + 1) % 4).to_bytes(2)
            commit = verify.sha256(verify.COMMIT_TAG + bytes(head))
            signature = _key(key).sign(verify.SIGN_TAG + commit)
            return record.raw[:2] + bytes(head) + signature + record.raw[2 + size + 64 :]

        return self._entry(("slice", number), write, "other slice", "")

    def _holders(self, grant: bytes) -> list[tuple[int, bytes]]:
        return [state.grants[grant] for state in self.states if grant in state.grants]

    def _control(self, kind: str, prev: bytes, payload: bytes, target: int = -1) -> int:
        def write() -> bytes:
            draft = Draft(self.stream, (), bytes(16), 0, b"")
            return control(self.log, draft, kind.encode(), payload, prev, self.certificate, self.issuer).raw

        return self._entry((kind, prev, payload), write, kind, "", target)

    def _entry(
        self, name: tuple[object, ...], write: Callable[[], bytes], kind: str, command: str, target: int = -1
    ) -> int:
        if name not in self._written:
            self._written[name] = len(self.entries)
            self.entries.append(Entry(parse(write()), kind, command, target))
        return self._written[name]

    def next_state(self, state: int, number: int) -> int:
        """The state after a record, or -1 if the rule does not accept it there."""
        key = state, number
        if key not in self._verdicts:
            verdict = self.rule(self.log, self.part, self.states[state], self.entries[number].record)
            self._verdicts[key] = -1 if verdict.finding else self._state(verdict.stream)
        return self._verdicts[key]

    def _state(self, state: StreamState) -> int:
        name = (state.head, state.revision, tuple(sorted(state.grants.items())))
        if name not in self._state_numbers:
            self._state_numbers[name] = len(self.states)
            self.states.append(state)
        return self._state_numbers[name]


KEYS = ["A1", "A2", "A3", "B1", "B2", "B3"]
_KEYS = {name: SigningKey.from_seed(name.encode() * 16) for name in KEYS}


def _key(name: str) -> SigningKey:
    return _KEYS[name]
