"""``python -m benchmarks [PART ...] [--quick] [--json]``, which is ``make bench``."""

import argparse
import asyncio
import importlib
import json
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path

from .activation import activation
from .appending import group_commit, one_at_a_time
from .growth import growth
from .measure import Figure, Report, machine, save, show, told
from .size import size
from .verification import verification
from .views import views_in_redis

PARTS: dict[str, Callable[[bool], Coroutine[None, None, Report]]] = {
    "one-at-a-time": one_at_a_time,
    "group-commit": group_commit,
    "verification": verification,
    "size": size,
    "activation": activation,
    "growth": growth,
    "views-in-redis": views_in_redis,
}
SERVED = {
    "kafka-append": "kafka",
    "kafka-log": "kafka_log",
    "kafka-reading": "kafka_reading",
    "graph": "graph",
    "shard-logs": "shard_logs",
}
"""Parts that need a server, and their modules: they run where they are named."""
RESULTS = Path(__file__).parent / "results"


def _part(name: str) -> Callable[[bool], Coroutine[None, None, Report]]:
    if name in PARTS:
        return PARTS[name]
    module = importlib.import_module(f"benchmarks.{SERVED[name]}")
    found: Callable[[bool], Coroutine[None, None, Report]] = getattr(module, name.replace("-", "_"))
    return found


def main(arguments: list[str]) -> int:
    """Run the parts that are named, or all. 0 if every part ran and what it wrote was verified."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Side by side with raw parts.")
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="PART",
        help=f"{', '.join(PARTS)} (these if none is named), {', '.join(SERVED)}",
    )
    parser.add_argument("--quick", action="store_true", help="a few rounds only: shows that it runs, not how fast")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of the table")
    parser.add_argument("--results", type=Path, help="file for the results (default, unless quick: results/NAME.json)")
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - {*PARTS, *SERVED}:
        parser.error(f"no part is called {', '.join(sorted(unknown))}: choose of {', '.join([*PARTS, *SERVED])}")
    parts = [part for part in (*PARTS, *SERVED) if part in (options.parts or PARTS)]
    facts, figures, verified = machine(), list[Figure](), dict[str, str]()
    for part in parts:
        print(f"{part} ...", file=sys.stderr, flush=True)
        report = asyncio.run(_part(part)(options.quick))
        figures += report.figures
        verified[part] = report.verified
    results = told(facts, figures, verified)
    if options.results or not options.quick:
        name = "all" if len(parts) == len(PARTS) else "+".join(parts)
        save(options.results or RESULTS / f"{name}.json", results)
    if options.json:
        print(json.dumps(results))
    else:
        show(figures, verified)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
