"""Planted bugs of the graph."""

from tests.mutants.planting import Mutant

B = "projections/backends/"
UNIT = ("tests/unit/test_graph.py",)
MOVES = "tests/conformance/test_graph.py::test_a_checkpoint_moves_with_its_writes"
SWAP = "tests/conformance/test_graph.py::test_a_rebuild_stands_beside_and_is_swapped"
DOOR = "::test_the_door_is_shut"

GRAPH = (
    Mutant(
        "graph-order-wins-over-clocks",
        "projections/relationships.py",
        "        state.time = max(state.time, commit.time)\n        self.found",
        "        state.time = commit.time\n        self.found",
        UNIT,
    ),
    Mutant(
        "graph-blast-from-there-on",
        "projections/blast.py",
        'case "produced" if edge.source in frontier and new and made.revision >= passing[edge.source]:',
        'case "produced" if edge.source in frontier and new:',
        UNIT,
    ),
    Mutant(
        "readers-keep-writers-out",
        B + "ladybug_file.py",
        "turnstile = self._locked(self._turnstile, fcntl.LOCK_EX, until)",
        "turnstile = os.open(self._turnstile, os.O_RDWR | os.O_CREAT)",
        ("tests/backends/test_graph_ladybug.py::test_readers_who_take_turns_keep_no_writer_out",),
    ),
    Mutant(
        "turn-in-ladybug",
        B + "graph_ladybug.py",
        '            if row["turn"] != before.turn:\n',
        "            if False:\n",
        (f"{MOVES}[ladybug]",),
    ),
    Mutant(
        "turn-in-neo4j",
        B + "graph_neo4j.py",
        '            if row["turn"] != before.turn:\n',
        "            if False:\n",
        (f"{MOVES}[neo4j]",),
    ),
    Mutant(
        "swap-turn-in-ladybug",
        B + "graph_ladybug.py",
        '        if (mine["turn"], theirs["turn"]) != (at.turn, made.turn):\n',
        "        if False:\n",
        (f"{SWAP}[ladybug]",),
    ),
    Mutant(
        "swap-turn-in-neo4j",
        B + "graph_neo4j.py",
        '            if (mine["turn"], theirs["turn"]) != (live.turn, scratch.turn):\n',
        "            if False:\n",
        (f"{SWAP}[neo4j]",),
    ),
    Mutant(
        "ladybug-door",
        B + "ladybug_door.py",
        "    if found := sorted(words & _WRITES):\n",
        "    if found := []:\n",
        (f"tests/backends/test_graph_ladybug.py{DOOR}",),
    ),
    Mutant(
        "neo4j-door",
        B + "neo4j_door.py",
        '        if "LoadCSV" in operator:\n',
        "        if False:\n",
        ("tests/backends/test_graph_neo4j.py::test_the_server_is_not_sent_to_fetch_anything",),
    ),
)
