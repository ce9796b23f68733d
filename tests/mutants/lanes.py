"""Planted bugs of slices that move between lanes."""

from tests.mutants.planting import Mutant

_TESTS = ("tests/unit/test_lanes.py",)

LANES = (
    Mutant(
        "sealed-takes-nothing",
        "eventstore/appending.py",
        "        sealed = part.sealed and not SLICE_STREAM.fullmatch(pending.stream)\n",
        "        sealed = False\n",
        _TESTS,
    ),
    Mutant(
        "elsewhere-is-not-accepted",
        "eventstore/index.py",
        "        if self.lane_of(header.slice) != lane and header.slice < self.log.slices:\n",
        "        if False:\n",
        _TESTS,
    ),
    Mutant(
        "opening-waits-for-its-seal",
        "eventstore/index.py",
        "                    raise Held\n",
        "                    pass\n",
        _TESTS,
    ),
    Mutant(
        "one-lane-at-a-time",
        "eventstore/backends/index_file.py",
        "itertools.islice(heapq.merge(*slices, key=lambda row: (row.lane, row.place)), limit)",
        "sorted(itertools.chain(*slices), key=lambda row: (row.lane, row.place))[:limit]",
        _TESTS,
    ),
    Mutant(
        "acknowledged-though-it-moved",
        "eventstore/appending.py",
        "            if self._stands(pending):\n                return None\n            return SliceSealed(",
        "            return SliceSealed(",
        _TESTS,
    ),
    Mutant(
        "all-lanes-jump",
        "eventstore/index.py",
        "        lanes = ahead.keys() if any(part[0].lane >= 0 for part in parts.values()) else {lane}",
        "        lanes = {lane}",
        _TESTS,
    ),
    Mutant(
        "dead-movers-slice-is-opened",
        "eventstore/grants.py",
        "            await self.open(number)\n        key = ",
        "            pass\n        key = ",
        _TESTS,
    ),
    Mutant(
        "late-brokers-are-waited-for",
        "eventstore/lanes.py",
        "                if clock() >= late:\n",
        "                if True:\n",
        ("tests/faults/test_lagging.py",),
    ),
    Mutant(
        "told-only-what-stands",
        "eventstore/appending.py",
        "        return None if taken.finding else taken.position\n",
        "        return 0 if own else None if taken.finding else taken.position\n",
        ("tests/faults/test_histories.py::test_what_clients_were_told_is_linearizable",),
    ),
)
