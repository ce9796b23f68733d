"""How the tests are shared between processes: no server is started twice, and nothing slow is left for the end."""

from tests.together import begun, part


def test_what_shares_servers_stays_together() -> None:
    ray = {part(f"tests/cluster/{name}") for name in ("test_ray.py::test_a", "test_hosts.py::test_b[1]")}
    assert len(ray) == 1
    tape, blobs = part("tests/conformance/test_tape.py::test_a[kafka]"), part("tests/backends/test_s3.py::test_b")
    assert tape == blobs
    assert part("tests/unit/test_fork.py::test_a") == part("tests/unit/test_fork.py::test_b") != tape


def test_the_slow_goes_first() -> None:
    tests = [
        "tests/unit/test_codec.py::test_a",
        "tests/unit/test_tidy.py::test_the_tools_find_nothing[mypy-strict]",
        "tests/backends/test_s3.py::test_b",
        "tests/cluster/test_ray.py::test_a",
    ]
    assert sorted(tests, key=begun) == tests[::-1]
