"""Planted bugs of the log's format and its successors."""

from tests.mutants.planting import Mutant

_GOLDEN, _RULE = ("tests/unit/test_golden.py",), ("tests/unit/test_verify.py",)

FORMATS = (
    Mutant(
        "first-record-sets-the-format",
        "eventstore/verify.py",
        "    part_after = part if part.format != NOT_BEGUN else part._replace(format=header.format)\n",
        "    part_after = part._replace(format=header.format)\n",
        _RULE,
    ),
    Mutant(
        "old-log-goes-on-as-it-is",
        "eventstore/commit.py",
        "        return part.format\n",
        "        return FORMAT\n",
        _GOLDEN,
    ),
    Mutant(
        "newer-format-is-not-written",
        "eventstore/commit.py",
        "    raise NewerFormatError(stream, part.format)\n",
        "    return part.format\n",
        _GOLDEN,
    ),
)
