"""The page about the test kit is a file of tests: it is run as one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "testing.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("plugin", "only", "count"),
    [
        ("-pno:asyncio", "test", 4),
        ("-oasyncio_mode=auto", "letter_takes", 1),
        ("-oasyncio_mode=strict", "letter_takes", 1),
    ],
    ids=["none", "auto", "strict"],
)
def test_the_page_runs_with_and_without_a_plugin_for_async_tests(
    tmp_path: Path, plugin: str, only: str, count: int
) -> None:
    program = tmp_path / "test_letter.py"
    program.write_text("\n\n".join(re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PARTY_")}
    options = ["-q", "-p", "no:cacheprovider", "-o", "asyncio_default_fixture_loop_scope=function", plugin, "-k", only]
    errors = ["-W", "error", "-W", "ignore:Unknown config option"]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *errors, program.name],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{count} passed" in ended.stdout


def test_the_page_names_what_there_is() -> None:
    from agent_party import testing

    named = set(re.findall(r"`testing\.(\w+)", PAGE)) | set(re.findall(r"`(assert_\w+)", PAGE))
    assert named <= set(testing.__all__)
    for method in re.findall(r"^\| `(\w+)\(", PAGE, re.MULTILINE):
        assert hasattr(testing.Faults, method) or method in testing.__all__, method
