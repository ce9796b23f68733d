"""How the tests are shared between processes: no server is started twice, and nothing slow is left for the end."""

from pathlib import Path

from tests.together import begun, part

TESTS = Path(__file__).parents[1]


def test_what_shares_servers_stays_together() -> None:
    ray = {part(f"tests/cluster/{name}") for name in ("test_ray.py::test_a", "test_hosts.py::test_b[1]")}
    assert len(ray) == 1
    tape, blobs = part("tests/conformance/test_tape.py::test_a[kafka]"), part("tests/backends/test_s3.py::test_b")
    assert tape == blobs
    assert part("tests/unit/test_fork.py::test_a") == part("tests/unit/test_fork.py::test_b") != tape


SHARED = "(services.neo4j"


def test_who_uses_the_one_database_of_neo4j_does_so_in_one_process() -> None:
    """It is emptied before each use: by one process, for nobody else."""
    users = [path for path in TESTS.rglob("test_*.py") if path != Path(__file__) and SHARED in path.read_text()]
    assert len(users) > 3
    assert {part(f"tests/{path.relative_to(TESTS)}::test_a") for path in users} == {"services"}


def test_the_slow_goes_first() -> None:
    tests = [
        "tests/unit/test_codec.py::test_a",
        "tests/unit/test_tidy.py::test_the_tools_find_nothing[mypy-strict]",
        "tests/backends/test_s3.py::test_b",
        "tests/cluster/test_ray.py::test_a",
    ]
    assert sorted(tests, key=begun) == tests[::-1]
