"""Planted bugs of projections, and of the stores of their views."""

from tests.mutants.planting import Mutant

WORKER, STANDING, REBUILDING = (f"projections/{name}.py" for name in ("worker", "standing", "rebuilding"))
B = "projections/backends/"
AHEAD = ("tests/unit/test_worker_ahead.py",)
CARE, FAST = ("tests/unit/test_worker_care.py",), ("tests/unit/test_worker.py",)
REDIS = "tests/backends/test_redis.py::"
TURN = "tests/conformance/test_views.py::test_of_many_who_follow_the_same_checkpoint_one_succeeds"
SCRATCH = "tests/conformance/test_views.py::test_the_scratch_side_is_seen_by_nobody_until_it_is_swapped"
_HGET = "if (redis.call('HGET', side, ARGV[1]) or '') ~= ARGV[2] then return 0 end\n"

PROJECTIONS = (
    Mutant(
        "turn-in-memory", B + "views_memory.py", "        if stands.turn != before.turn:\n", "        if False:\n", FAST
    ),
    Mutant(
        "turn-in-sqlite",
        B + "views_sqlite.py",
        "            if stands.turn != before.turn:\n",
        "            if False:\n",
        (f"{TURN}[sqlite]",),
    ),
    Mutant(
        "swap-of-the-turns-seen",
        B + "views_sqlite.py",
        "            if (was.turn, stands.turn) != (live.turn, scratch.turn):\n",
        "            if False:\n",
        (f"{SCRATCH}[sqlite]",),
    ),
    Mutant(
        "redis-fence",
        B + "redis_scripts.py",
        f"local side, docs, names, live, source = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]\n{_HGET}",
        "local side, docs, names, live, source = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]\n",
        (f"{TURN}[redis]",),
    ),
    Mutant(
        "redis-fence-of-the-live-side",
        B + "redis_scripts.py",
        f"local side, live, docs, names = KEYS[1], KEYS[2], KEYS[3], KEYS[4]\n{_HGET}",
        "local side, live, docs, names = KEYS[1], KEYS[2], KEYS[3], KEYS[4]\n",
        (f"{REDIS}test_a_swap_that_meets_a_change_does_nothing",),
    ),
    Mutant(
        "redis-fence-of-the-scratch-side",
        B + "redis_scripts.py",
        "if (redis.call('HGET', side, ARGV[4]) or '') ~= ARGV[5] then return 0 end\n",
        "",
        (f"{REDIS}test_a_swap_that_meets_a_change_does_nothing",),
    ),
    Mutant(
        "redis-kinds-first",
        B + "redis_scripts.py",
        "if not (kind(docs, 'hash') and kind(names, 'zset') and kind(live, 'hash')) then\n",
        "if false then\n",
        (f"{REDIS}test_what_cannot_be_applied_whole_leaves_everything_as_it_was",),
    ),
    Mutant(
        "the-batch-before-is-known",
        "projections/graph.py",
        "        self._before = before._states if before else {}\n",
        "        self._before: dict[str, str] = {}\n",
        AHEAD,
    ),
    Mutant(
        "made-after-what-was-not-applied",
        WORKER,
        "            return (after, done[1]) if after else (await self._start(), None)\n",
        "            return after or await self._start(), done[1]\n",
        AHEAD,
    ),
    Mutant(
        "stream-stands",
        WORKER,
        "        going = [row for row in rows if row.stream.decode() not in self._standing.letters]\n",
        "        going = list(rows)\n",
        CARE,
    ),
    Mutant(
        "replayed-in-order",
        "projections/replaying.py",
        "waiting = [row for row in rows if letter.position <= row.position < now",
        "waiting = [row for row in reversed(rows) if letter.position <= row.position < now",
        CARE,
    ),
    Mutant(
        "letters-have-a-limit", STANDING, "        if len(self.letters) >= MOST_LETTERS:\n", "        if False:\n", CARE
    ),
    Mutant(
        "limit-within-a-batch",
        WORKER,
        "            self._standing.bound()\n            after = await",
        "            after = await",
        CARE,
    ),
    Mutant(
        "swap-covers-what-was-read",
        REBUILDING,
        "            if behind and not beyond(self._log, live.sizes):  # readers must not be taken back\n",
        "            if False:\n",
        CARE,
    ),
    Mutant(
        "rebuild-beside",
        WORKER,
        "            await self._rebuild()\n            now = await",
        "            await self.sink.drop(self.projection)\n            now = await",
        CARE,
    ),
    Mutant(
        "held-by-the-dead",
        REBUILDING,
        "            if clock() >= until:\n                await self._release()\n",
        "            if clock() >= until:\n                return now\n",
        (f"{CARE[0]}::test_who_holds_a_projection_and_dies_holds_it_no_longer",),
    ),
    Mutant(
        "shorter-log",
        WORKER,
        "            if beyond(self._log, now.sizes):\n                await self.sink.drop(self.projection)\n",
        "            if False:\n                await self.sink.drop(self.projection)\n",
        FAST,
    ),
)
