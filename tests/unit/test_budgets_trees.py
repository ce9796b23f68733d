"""Random trees of delegated tasks: never overspent, never leaked; see `budgets_trees`.

``BUDGET_TREES=1000 pytest tests/unit/test_budgets_trees.py`` runs a thousand, forty at once in one process, which is
killed twice; ``BUDGET_SEED`` is the first seed, which every failure names.
"""

import os

import pytest

from tests.unit.budgets_kit import world
from tests.unit.budgets_trees import grown
from tests.unit.world import World

__all__ = ["world"]
AT_ONCE = 40
TREES = int(os.environ.get("BUDGET_TREES", AT_ONCE))
SEED = int(os.environ.get("BUDGET_SEED", "1000"))


@pytest.mark.parametrize("seed", range(SEED, SEED + TREES // AT_ONCE))
async def test_no_tree_is_overspent_and_nothing_leaks(world: World, seed: int) -> None:
    print(f"seed {seed}, {AT_ONCE} trees")
    seen = await grown(world, seed, AT_ONCE, crashes=2)
    assert seen["completed"] > AT_ONCE // 2
    assert min(seen["held"], seen["raised"], seen["failed"], seen["cancelled"]) > 0
