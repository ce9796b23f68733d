"""The example of approvals: two people, two keys, one answer; somebody behind them; and nobody at all."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_people_decide(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PARTY_")}
    environment |= {"PARTY_STATE_DIR": str(tmp_path / "state"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "examples" / "approvals.py")]
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [
        "30 from main to the baker, signed by ada and bob and dan",
        "cai decided, in ada's absence",
        "approval 'forget' has expired: nobody decided it in time",
    ]
