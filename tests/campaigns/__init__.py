"""Long runs that can be interrupted and resumed; a short piece of each is among the tests.

    python -m tests.campaigns.decoders [--seed N] [--count N]

Each prints its seed and keeps its result beside itself, in `results/`, with the commit each of its parts ran on.
"""

import json
import subprocess
from collections import Counter
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def commit_here() -> str:
    """The commit of the code that runs, with `-dirty` where it was changed since; empty outside of a clone."""
    here = RESULTS.parent
    head = ["git", "rev-parse", "--short=12", "HEAD"]
    changed = ["git", "status", "--porcelain", "--untracked-files=no", "--", ":/", f":!{RESULTS}"]
    try:
        commit, changes = (
            subprocess.run(command, cwd=here, capture_output=True, text=True, check=True).stdout.strip()
            for command in (head, changed)
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{commit}-dirty" if changes else commit


class Result:
    """What a campaign has come to so far, in a file that is written after each chunk."""

    def __init__(self, name: str, seed: int) -> None:
        self.path, self.seed = RESULTS / f"{name}.json", seed
        self.done = 0
        self.counts: Counter[str] = Counter()
        self.commits: list[str] = []
        if self.path.exists() and (kept := json.loads(self.path.read_text(encoding="utf-8")))["seed"] == seed:
            self.done, self.counts = kept["done"], Counter(kept["counts"])
            self.commits = kept.get("commits", [])

    def add(self, done: int, counts: Counter[str]) -> None:
        """A chunk is finished."""
        self.done = done
        self.counts.update(counts)  # which, unlike +=, keeps a nought
        RESULTS.mkdir(exist_ok=True)
        self.commits = list(dict.fromkeys([*self.commits, commit_here()]))
        told: dict[str, object] = {"seed": self.seed, "done": self.done, "commits": self.commits}
        told["counts"] = dict(sorted(self.counts.items()))
        self.path.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
