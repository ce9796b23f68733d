"""The example of forks, run as it is read."""

import os
import stat
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "fork.py"


def test_a_failed_task_finishes_elsewhere_with_what_was_recorded(tmp_path: Path) -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 60
    environment = {**os.environ, "PARTY_STATE_DIR": str(tmp_path / "state"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    failed, gone_over, forked = done.stdout.splitlines()
    assert failed.endswith("AssertionError: the oven is cold")
    assert gone_over == "it asked again for 1 wait, and raised AssertionError('the oven is cold'); called: []"
    assert forked == "dough of rye, baked at 230; called: ['bake']"
    assert stat.S_IMODE((tmp_path / "failed.party").stat().st_mode) == 0o600
