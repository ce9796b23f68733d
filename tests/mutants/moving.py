"""Planted bugs of moving a log."""

from tests.mutants.planting import Mutant

M, S, K = "eventstore/moving.py", "eventstore/backends/sqlite.py", "eventstore/founding.py"
MOVE = ("tests/unit/test_moving.py",)

MOVING = (
    Mutant(
        "move-closes-the-source",
        S,
        "                    for statement in _MOVED:",
        "                    for statement in _MOVED[:1]:",
        MOVE,
    ),
    Mutant("move-not-too-early", M, "await copy.fill(_all_but_one(source), progress)", "pass", MOVE),
    Mutant(
        "move-in-order",
        M,
        "        if not self._tape.conditional:\n            rows",
        "        if False:\n            rows",
        MOVE,
    ),
    Mutant("move-of-a-beginning", M, "        await copy.look()\n", "", MOVE),
    Mutant(
        "move-done-before",
        "cluster/moving.py",
        "        except LogRolledBack:\n            source",
        "        except ZeroDivisionError:\n            source",
        MOVE,
    ),
    Mutant("move-remembered", K, 'went = pinned.moved if pinned else ""', 'went = ""', MOVE),
)
