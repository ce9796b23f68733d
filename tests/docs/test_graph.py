"""The page of the graph is a program, and the commands on it run."""

import re
import sys
from pathlib import Path

from tests.docs.test_readme import ROOT, blocks, run

PAGE = (ROOT / "docs" / "graph.md").read_text(encoding="utf-8")


def test_the_page_runs(tmp_path: Path) -> None:
    (program,) = blocks(PAGE, "python")
    (commands,) = blocks(PAGE, "sh")
    (tmp_path / "desk.py").write_text(program)
    said = run(tmp_path, f"{sys.executable} desk.py\n{commands}")
    assert "produced task/" in said
    assert "agent/writer worked with agent/researcher" in said
    assert "+ agent/writer" in said
    last = said.rsplit("what", 1)[1]
    assert " asked for task/" in last, "why ends at the person"
    assert " approved task/" in last


def test_links_lead_somewhere() -> None:
    found = re.findall(r"\]\((?!https?:)([^)#]+)", PAGE)
    assert found
    assert [link for link in found if not (ROOT / "docs" / link).exists()] == []
