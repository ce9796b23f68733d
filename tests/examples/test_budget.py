"""The example of budgets: a tree runs out, a person raises it, it finishes."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_tree_runs_out_is_raised_and_finishes(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PARTY_")}
    environment |= {"PARTY_STATE_DIR": str(tmp_path / "state"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "examples" / "budget.py")]
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [
        "topic.read needs 1,000 tokens, 710 are left of 1,700",
        "3 topics read for 1620 tokens; 30 tokens, 0.05 of money left",
        "1,670 tokens, 0.05 of money, 3 calls",
    ]
