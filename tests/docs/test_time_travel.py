"""The page on time travel is executed."""

import os
import re
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from agent_party.cli.main import app

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "time-travel.md").read_text(encoding="utf-8")


def test_the_page_runs_and_says_what_it_prints(tmp_path: Path) -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "program.py").write_text(program)
    environment = {**os.environ, "PARTY_STATE_DIR": str(tmp_path / "state")}
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert f"It prints `{first}`, then `{second}`" in PAGE


def test_each_command_of_the_page_is_there() -> None:
    commands = set(re.findall(r"party (task [a-z]+|check-histories|replay)", PAGE))
    assert {"task fork", "task diff", "task export", "task debug", "check-histories"} <= commands
    for words in commands:
        assert CliRunner().invoke(app, [*words.split(), "--help"]).exit_code == 0, words
