"""Long runs that can be interrupted and resumed; a short piece of each is among the tests.

    python -m tests.campaigns.decoders [--seed N] [--count N]

Each prints its seed and keeps its result beside itself, in `results/`.
"""

import json
from collections import Counter
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


class Result:
    """What a campaign has come to so far, in a file that is written after each chunk."""

    def __init__(self, name: str, seed: int) -> None:
        self.path, self.seed = RESULTS / f"{name}.json", seed
        self.done = 0
        self.counts: Counter[str] = Counter()
        if self.path.exists() and (kept := json.loads(self.path.read_text(encoding="utf-8")))["seed"] == seed:
            self.done, self.counts = kept["done"], Counter(kept["counts"])

    def add(self, done: int, counts: Counter[str]) -> None:
        """A chunk is finished."""
        self.done = done
        self.counts.update(counts)  # which, unlike +=, keeps a nought
        RESULTS.mkdir(exist_ok=True)
        told = {"seed": self.seed, "done": self.done, "counts": dict(sorted(self.counts.items()))}
        self.path.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
