"""``python -m benchmarks.peers [NAME ...] [--short] [--json]``, which is ``make bench-peers``."""

import argparse
import asyncio
import json
import sys
from pathlib import Path

from ..measure import machine, save, show
from .field import FIELD, OURS
from .page import DOCS, RESULTS, figures, results, written
from .race import LONG, QUICK, race


def main(arguments: list[str]) -> int:
    """Run the race. 0 if Agent Party ran and everything that anybody recorded was verified; peers may be missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description="Side by side with peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(entry.name for entry in FIELD)}; or all")
    parser.add_argument("--short", action="store_true", help="one short round: shows that it runs, not how fast")
    parser.add_argument("--rounds", type=int, help="how many")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of the table")
    parser.add_argument(
        "--results", type=Path, help="file for the results (default, of a whole run: results/peers.json)"
    )
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - {entry.name for entry in FIELD}:
        parser.error(f"nobody is called {', '.join(sorted(unknown))}: choose of {', '.join(e.name for e in FIELD)}")
    length = QUICK if options.short else LONG
    length = length._replace(rounds=options.rounds) if options.rounds else length
    named = set(options.names) | {OURS}
    field = [e for e in FIELD if (e.name in named if options.names else e.main or not options.short)]
    facts = machine()
    found = asyncio.run(race(field, length))
    told = results(facts, found, length)
    whole = not (options.short or options.names)
    if options.results or whole:
        save(options.results or RESULTS, told)
    if whole and not options.results:
        DOCS.write_text(written(DOCS.read_text(), told))
    if options.json:
        print(json.dumps(told))
    else:
        show(figures(found), told["verified"])
        for name, why in found.missing.items():
            print(f"{name} did not take part: {why}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
