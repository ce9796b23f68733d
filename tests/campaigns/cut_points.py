"""Crashes a task of thirty waits at every point, then twice at random points: python -m tests.campaigns.cut_points

python -m tests.campaigns.cut_points --doubles 1000 --seed 1
"""

import argparse
import logging
from collections import Counter

from agent_party.testing import Faults, assert_effects_once, assert_same_outcome, assert_timers, double_crashes
from tests.campaigns import Result
from tests.faults.test_cut_points import SCENARIO

CHUNK = 50


def main(doubles: int, seed: int) -> None:
    """Go on from where an earlier run with this seed has stopped."""
    logging.getLogger("agent_party").setLevel(logging.ERROR)
    clean, result = SCENARIO.run(), Result("cut_points", seed)
    plans = [*(Faults().crash(cut) for cut in clean.cuts), *double_crashes(clean.cuts, doubles, seed)]
    print(f"seed {seed}: {len(clean.cuts)} cut points, {doubles} double crashes, {result.done} done before")
    while result.done < len(plans):
        counts: Counter[str] = Counter()
        for faults in plans[result.done : result.done + CHUNK]:
            crashed = SCENARIO.run(faults)
            assert_same_outcome(clean, crashed)
            assert_effects_once(crashed)
            assert_timers(crashed)
            again = len(crashed.effects) - len(clean.effects)
            counts += Counter(runs=1, crashes=len(crashed.died), effects_again=max(0, again))
        result.add(min(result.done + CHUNK, len(plans)), counts)
        print(f"{result.done} runs: {dict(result.counts)}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--doubles", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    main(options.doubles, options.seed)
