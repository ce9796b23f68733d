"""Plant every bug and see it caught: python -m tests.mutants [NAME...]"""

import sys
from concurrent.futures import ThreadPoolExecutor

from tests.mutants.book import MUTANTS
from tests.mutants.planting import fate, passes

AT_ONCE = 2


def main(names: list[str]) -> int:
    """0 if each was caught, and the tests pass without any."""
    chosen = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    unknown = set(names) - {mutant.name for mutant in MUTANTS}
    if unknown:
        print(f"no mutants of these names: {', '.join(sorted(unknown))}")
        return 2
    tests = tuple(sorted({test for mutant in chosen for test in mutant.tests}))
    if not passes(tests):
        print("the tests fail without any planted bug: mend that first")
        return 1
    survivors = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for found in pool.map(fate, chosen):
            print(f"{'caught  ' if found.caught else 'SURVIVED'}  {found.mutant.name}", flush=True)
            if not found.caught:
                survivors += 1
                print(found.told)
    print(f"{len(chosen) - survivors} of {len(chosen)} planted bugs caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
