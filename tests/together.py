"""How two processes share the tests (`make test`), by files: what needs the same costly servers stays in one."""

from pathlib import PurePath

from xdist.scheduler import LoadFileScheduling

SERVERS = {"cluster": "Ray", "conformance": "services", "backends": "services"}
"""The folders whose tests share servers that are started once for the run. Their parts go first: they take longest."""

NEO4J = ("test_projections_graph.py",)
"""Files elsewhere that use Neo4j: it has one database, so those who use it do so one after the other."""

ALONE = ("test_the_tools_find_nothing", "test_cut_points")
"""Tests and files that take long for other reasons, in the order they are begun in."""


class Sharing(LoadFileScheduling):  # type: ignore[misc] # xdist is not typed
    """Each file is one part; all that needs the same servers is one; each run of a tool is one."""

    def _split_scope(self, nodeid: str) -> str:
        return part(nodeid)


def part(nodeid: str) -> str:
    """Which part a test belongs to; the tests of a part run in one process, in order."""
    file, _, test = nodeid.partition("::")
    folders = PurePath(file).parts
    if len(folders) > 1 and folders[1] in SERVERS:
        return SERVERS[folders[1]]
    if folders[-1] in NEO4J:
        return "services"
    return nodeid if test.startswith(ALONE) else file


def begun(nodeid: str) -> int:
    """When it is begun, as a number to sort by: what takes longest is not left for the end."""
    first = [*dict.fromkeys(SERVERS.values()), *ALONE]
    named = part(nodeid)
    return next((at for at, name in enumerate(first) if name in named), len(first))
