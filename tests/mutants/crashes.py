"""Planted bugs of what a crash leaves open, and of programs that were held up."""

from tests.mutants.planting import Mutant

_COURSE, _CRASHES = "tests/unit/test_course.py", "tests/unit/test_steps_crashes.py"

CRASHES = (
    Mutant(
        "crash-asks",
        "actors/work.py",
        'left_open = left_open and options.on_crash != "retry"',
        "left_open = False",
        (_COURSE,),
    ),
    Mutant(
        "crash-is-no-error",
        "actors/work.py",
        "max(CRASHES, options.retries)",
        "options.retries",
        (_CRASHES,),
    ),
    Mutant(
        "crash-asks-again",
        "actors/work.py",
        "max(opened.revision, opened.admitted, opened.freed_at)",
        "max(opened.revision, opened.admitted, opened.freed and self._cell.known + 1)",
        (_COURSE,),
    ),
    Mutant(
        "signed-once-counts-once",
        "actors/deciding.py",
        "if stated.statement in wait.freed_by:",
        "if False:",
        (_CRASHES,),
    ),
    Mutant(
        "ends-with-everything",
        "actors/work.py",
        "                if self._cell.host.ending:\n",
        "                if False:\n",
        (_CRASHES,),
    ),
    Mutant(
        "held-up-is-not-changed",
        "actors/replay.py",
        "for _ in range(_TURNS):",
        "for _ in range(0):",
        ("tests/unit/test_fork.py",),
    ),
    Mutant(
        "a-rehearsal-held-up",
        "actors/rehearsal.py",
        "or late > _ROUNDS",
        "or late",
        ("tests/unit/test_fork.py",),
    ),
    Mutant(
        "rests-by-the-time-of-the-log",
        "actors/passivation.py",
        "self._host.now() + int(self.idle",
        "self._host.log.ambient.now() + int(self.idle",
        ("tests/unit/test_tasks_ending.py",),
    ),
    Mutant(
        "an-owner-has-its-time",
        "cluster/projecting.py",
        "                if asyncio.get_running_loop().time() >= until:\n                    raise _silent",
        "                if True:\n                    raise _silent",
        ("tests/cluster/test_projecting.py",),
    ),
    Mutant(
        "watch-shows-the-last",
        "agent_party/handles.py",
        "            over = left <= 0\n",
        "            if left <= 0:\n                return\n",
        ("tests/unit/test_party.py",),
    ),
)
