"""Each example runs as a script, unattended, in a folder of its own, and ends well; each fits on a screen."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.py") if path.name != "__init__.py")
SAYS = {
    "hello.py": "",
    "saga.py": "cancelled hotel\ncancelled train",
    "schedule.py": "09:00 JST",
}
LONGEST = 60


def test_all_are_there() -> None:
    assert set(SAYS) <= set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_example(name: str, tmp_path: Path) -> None:
    path = EXAMPLES / name
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST
    environment = {**os.environ, "PARTY_STATE_DIR": str(tmp_path / "state"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(path)]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    assert SAYS.get(name, "") in done.stdout
