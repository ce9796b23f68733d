"""Bugs planted in eventstore/appending.py: a piece of its source, and what stands there instead."""

import types
from pathlib import Path

from agent_party.eventstore import appending

NEEDS_A_JUMP = "its own commit is not looked for first"
BUGS = {
    "ack on tape ack": (
        """
            if attempt:
                await self.take(attempt.entries, own)
""",
        """
            for p in group:
                p.succeed(Appended(p.built.revision, p.built.commit, p.built.slice, 0, p.built.time))
""",
    ),
    "counting an unread own position": (
        "return None if taken.finding else taken.position",
        "return 0 if own else None if taken.finding else taken.position",
    ),
    "conflict on time-out": (
        """
                pending.fail(UnknownOutcomeError(stream, pending.built.commit) if pending.sent else unsent)
""",
        """
                if pending.built.revision:
                    from .errors import ConflictError
                    pending.fail(ConflictError(stream, pending.built.revision - 1, pending.built.revision))
""",
    ),
    "conflict against a control commit": (
        """
        pending.built, pending.basis, pending.sent = None, None, False
""",
        """
        if built and built.revision:
            from .errors import ConflictError
            return ConflictError(pending.stream.decode(), built.revision - 1, built.revision)
        pending.built, pending.basis, pending.sent = None, None, False
""",
    ),
    "not-found taken as failed": (
        """
            self._expire(group)
""",
        """
            from .errors import ConflictError
            for p in group:
                if p.built.revision:
                    p.fail(ConflictError(p.stream.decode(), p.built.revision - 1, p.built.revision))
""",
    ),
    NEEDS_A_JUMP: (
        "        built = pending.built if pending.sent else None\n",
        "        built = None\n",
    ),
}
AT_ONCE = {
    "at once: placed or not": (
        """
            for entry in attempt.entries:
                self._take(entry, own)
            self.grown()
""",
        """
            for p in group:
                p.succeed(Appended(p.built.revision, p.built.commit, p.built.slice, 0, p.built.time))
""",
    ),
    "at once: acknowledged without being taken": (
        """
            for entry in attempt.entries:
                self._take(entry, own)
            self.grown()
""",
        """
            for p in group if attempt.placed else ():
                p.succeed(Appended(p.built.revision, p.built.commit, p.built.slice, 0, p.built.time))
""",
    ),
    "at once: whatever comes is one's own": (
        "        pending = own.get(entry.raw)\n",
        "        pending = own.get(entry.raw) or next(iter(own.values()), None)\n",
    ),
}
"""Bugs of what is committed on the event loop, which no unconditional tape does."""


def planted(bug: str) -> type[appending.Appender]:
    """The appender with a bug."""
    right, wrong = (BUGS | AT_ONCE)[bug]
    source = Path(appending.__file__).read_text(encoding="utf-8")
    assert source.count(right) == 1, f"appending.py does not say {right!r} any more: plant {bug!r} anew"
    module = types.ModuleType("agent_party.eventstore.appending_with_a_bug")
    vars(module)["__package__"] = "agent_party.eventstore"
    exec(compile(source.replace(right, wrong), "appending.py with a bug", "exec"), vars(module))
    appender: type[appending.Appender] = module.Appender
    return appender
