"""The page on models and its example are executed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "examples" / "model_with_tools.py"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
SAID = [
    "Weather(city='Oslo', degrees=4)\n",
    """OpenAICompatible('gpt-4o-mini', base_url='https://api.openai.com/v1')
OpenAICompatible('qwen3', base_url='http://localhost:11434/v1')
OpenAICompatible('large', base_url='https://models.example/v1')
""",
    "Hello.\nHello.\n",
]


def run(folder: Path, program: str) -> str:
    """What a program says in a folder of its own."""
    (folder / "program.py").write_text(program)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PARTY_", "OPENAI_"))}
    environment |= {"PARTY_STATE_DIR": str(folder / "state")}
    ended = subprocess.run(
        [sys.executable, "program.py"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.parametrize(("program", "said"), list(zip(BLOCKS, SAID, strict=True)), ids=["tools", "server", "recorded"])
def test_the_page_runs(tmp_path: Path, program: str, said: str) -> None:
    assert run(tmp_path, program) == said


def test_the_example_runs_and_is_done_once(tmp_path: Path) -> None:
    program = EXAMPLE.read_text(encoding="utf-8")
    assert len(program.splitlines()) <= 60
    first = run(tmp_path, program)
    assert first.endswith("Order(item='nuts', amount=88)\n")
    assert "Decimal('0.00000" in first
    assert run(tmp_path, program) == "Order(item='nuts', amount=88)\n"
