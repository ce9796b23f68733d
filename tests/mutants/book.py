"""The planted bugs, in the order of docs/features.md."""

from tests.mutants.planting import Mutant

_MESSAGES = "tests/unit/test_messages.py"
_SCHEDULES = "tests/unit/test_schedules.py"

MESSAGES = (
    Mutant(
        "signal-kept",
        "actors/messages.py",
        "self._mail = {key: list(messages) for key, messages in cell.state.mail.items()}",
        "self._mail: dict[str, list[Received]] = {}",
        (_MESSAGES,),
    ),
    Mutant(
        "message-once",
        "actors/messages.py",
        "            if not self.knows(message.id):\n",
        "            if True:\n",
        (_MESSAGES,),
    ),
    Mutant(
        "update-validated",
        "actors/messages.py",
        "                await self._validated(message)\n",
        "                pass\n",
        (_MESSAGES,),
    ),
    Mutant(
        "query-after-replay",
        "actors/messages.py",
        "        await cell.waits.replay.over()\n",
        "",
        (_MESSAGES,),
    ),
    Mutant(
        "losers-abandoned",
        "actors/cell.py",
        "        self.waits.abandon(wait)\n",
        "",
        (_MESSAGES,),
    ),
    Mutant(
        "first-recorded",
        "actors/task.py",
        'int(self._value("first", lambda: min(running.index(one) for one in done)))',
        "max(running.index(one) for one in done)",
        ("tests/faults/test_cut_points.py",),
    ),
    Mutant("saga-reversed", "actors/saga.py", "in reversed(self._undo):", "in self._undo:", (_MESSAGES,)),
    Mutant(
        "saga-cancelled",
        "actors/cell.py",
        "        if self.cleaning and not self.state.cancelling:\n",
        "        if False:\n",
        (_MESSAGES,),
    ),
    Mutant(
        "cancel-with-outcomes",
        "actors/cell.py",
        "            self.waits.note(Cancelling(by, reason), soon=False)\n            self._interrupt(by)\n            await self.waits.flush()\n",
        "            await self.waits.flush(Cancelling(by, reason))\n            self.waits.stop()\n            self._interrupt(by)\n",
        (_MESSAGES,),
    ),
    Mutant(
        "paused-begins-nothing",
        "actors/task.py",
        "            await cell.unpaused()\n",
        "            pass\n",
        (_MESSAGES,),
    ),
    Mutant(
        "anew-with-empty-record",
        "actors/task_state.py",
        "            _drop(state, 0)\n",
        "",
        (_MESSAGES,),
    ),
    Mutant(
        "keys-differ-when-anew",
        "actors/work.py",
        'again = f"\\0{begun}" if begun else ""\n    return hashlib',
        'again = ""\n    return hashlib',
        (_MESSAGES,),
    ),
    Mutant(
        "patched-by-record",
        "actors/task.py",
        'if name in self._unpatched or (recorded and (recorded.kind, recorded.name) != ("value", name)):',
        "if False:",
        (_MESSAGES,),
    ),
    Mutant(
        "crash-asks",
        "actors/work.py",
        'if options.on_crash != "retry" and opened.revision <= self._cell.known and not opened.freed:',
        "if False:",
        (_MESSAGES,),
    ),
    Mutant(
        "restarts-children",
        "actors/delegation.py",
        "for left in range(self._restarts, -1, -1):",
        "for left in range(0, -1, -1):",
        (_MESSAGES,),
    ),
    Mutant(
        "cycles-refused",
        "actors/delegation.py",
        "        if link(name, packed) in chain:\n",
        "        if False:\n",
        (_MESSAGES,),
    ),
)

SCHEDULES = (
    Mutant(
        "missed-times-once",
        "actors/schedules.py",
        "takewhile(lambda moment: moment > last, before)",
        "takewhile(lambda moment: moment >= last, before)",
        (_SCHEDULES,),
    ),
    Mutant(
        "schedule-in-its-zone",
        "actors/schedules.py",
        ".astimezone(_zone(zone))",
        ".astimezone(UTC)",
        (_SCHEDULES,),
    ),
)

MUTANTS = (*MESSAGES, *SCHEDULES)
