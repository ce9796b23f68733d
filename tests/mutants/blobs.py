"""Planted bugs of artifacts in parts, and of sweeps (more of these: `tests/faults/test_sweeping_races.py`)."""

from tests.mutants.planting import Mutant

P, A, S, U = "eventstore/parts.py", "eventstore/artifacts.py", "eventstore/sweeping.py", "eventstore/puts.py"
H, PUT = "agent_party/artifacts.py", ("tests/unit/test_artifacts.py",)
PARTS, SWEEPS = ("tests/unit/test_parts.py",), ("tests/unit/test_sweeping.py",)

BLOBS = (
    Mutant("parts-last-bound", P, 'number, int(last), b"part"', 'number, 0, b"part"', PARTS),
    Mutant("parts-in-place", P, "stream.encode(), number, int(last)", "stream.encode(), 0, int(last)", PARTS),
    Mutant("parts-size-recorded", A, " or found.size != artifact.size", "", PARTS),
    Mutant("parts-bounded", P, "if len(running) == AT_ONCE:", "if len(running) == 1_000:", PARTS),
    Mutant("put-unchanged", H, "    if left or (ended", "    if False and (ended", PUT),
    Mutant("put-signature-told", H, "            trouble = str(error)", "            pass", PUT),
    Mutant("put-leads-to-the-person", "projections/questions.py", '("produced", "put")', '("produced",)', PUT),
    Mutant(
        "graph-sees-parts",
        "projections/relationships.py",
        "value.keys() in (_ARTIFACT, _IN_PARTS)",
        "value.keys() == _ARTIFACT",
        ("tests/unit/test_graph.py",),
    ),
    Mutant("sweep-follows-lists", S, "found.blobs.update(part.blob for part in parts.parts)", "pass", SWEEPS),
    Mutant("sweep-leaves-the-young", S, " and one.age >= older_than", "", SWEEPS),
    Mutant("sweep-held-up", S, "if begun and not waiting else set()", "if begun else set()", SWEEPS),
    Mutant("sweep-dry", S, "    if dry_run:\n        return", "    if False:\n        return", SWEEPS),
    Mutant(
        "sweep-of-its-own",
        S,
        "    await check_owner(log.blobs, log.identity.log_id)\n    options",
        "    options",
        SWEEPS,
    ),
    Mutant(
        "one-sweep-at-a-time", S, "        if await blobs.note(TURN, mine, new=True):\n", "        if True:\n", SWEEPS
    ),
    Mutant("doubt-keeps-the-pin", U, "            if not known and in_doubt():", "            if False:", SWEEPS),
)
