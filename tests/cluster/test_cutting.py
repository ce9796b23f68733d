"""Real kills at chosen points, on Ray and SQLite. The campaign `ray_cuts` does twenty."""

from pathlib import Path

from tests.cluster.cutting import cut


async def test_a_host_that_dies_at_a_random_point_changes_nothing(place: Path) -> None:
    seen = await cut(place, kills=2, seed=5)
    assert seen["kills"] == 2
