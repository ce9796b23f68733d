"""The programs of `examples/` on Ray, unchanged, come to what they come to without it.

Not `saga`: it counts in its own process what the steps did, and on Ray they do it elsewhere.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.conftest import Head

ROOT = Path(__file__).resolve().parents[2]
HERE = re.compile(r"; called: .*|(?<=task )[0-9a-z]{16}\b|^\d+ tokens, .*\n", re.MULTILINE)
"""What is said where the handler runs, or counted in the program's own process; and a task's id."""


def said(name: str, folder: Path, environment: dict[str, str]) -> str:
    """What an example says at its end, run in a folder of its own."""
    folder.mkdir()
    program = ROOT / "examples" / name
    done = subprocess.run(
        [sys.executable, str(program)],
        cwd=folder,
        env={**environment, "PARTY_STATE_DIR": str(folder / "state"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return HERE.sub("", done.stdout)


@pytest.mark.parametrize("name", ["approvals", "budget", "fork", "model_with_tools"])
def test_it_comes_to_the_same(name: str, tmp_path: Path, head: Head) -> None:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("PARTY_", "RAY_"))}
    local = said(f"{name}.py", tmp_path / "local", plain)
    assert local
    assert said(f"{name}.py", tmp_path / "ray", head.environment) == local
