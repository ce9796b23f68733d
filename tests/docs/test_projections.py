"""The program of docs/projections.md runs."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_a_program(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "projections.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 3
    program = tmp_path / "page.py"
    program.write_text("\n\n".join(blocks), encoding="utf-8")
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr


def test_every_projection_and_view_is_on_the_page() -> None:
    from agent_party.projections.catalogue import PROJECTIONS, VIEWS

    page = (ROOT / "docs" / "projections.md").read_text(encoding="utf-8")
    assert [name for name in (*PROJECTIONS, *VIEWS) if f"`{name}`" not in page] == []
