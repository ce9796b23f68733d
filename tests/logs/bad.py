"""Logs that do not hold, and what a verifier must say of each. What `tests/vectors/log-format/bad` is made of.

``finding`` and ``record`` are stated by hand, from the rule as it is written down; no verifier is asked.
"""

from collections.abc import Iterator

from tests.logs.bad_bytes import bodies, controls, files, frames, headers, places
from tests.logs.bad_rules import chains, ended, grants, keys, limits, rights, seals, signatures
from tests.logs.scene import Bad, Scene

GROUPS = (
    files, frames, headers, bodies, controls, places, grants, ended, chains, seals, signatures, keys, rights, limits
)  # fmt: skip


def bad_logs() -> Iterator[Bad]:
    """Every vector."""
    for group in GROUPS:
        yield from group(Scene())
