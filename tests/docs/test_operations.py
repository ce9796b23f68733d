"""docs/operations.md is executed: backed up, thrown away, and brought back, on a party of its own."""

import re
from pathlib import Path

import pytest

from tests.docs.test_readme import ROOT, blocks, run

PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
PARTY = """
import asyncio

from agent_party import Agent, Party, Task

writer = Agent("writer", version="1")


@writer.on("text.write")
async def write(task: Task, topic: str) -> str:
    return topic + str(await task.step(len, topic))


async def main() -> None:
    async with Party.open(agents=[writer]) as party:
        task = await party.ask(write, topic="crow" * 20_000)
        assert await task.result() == "crow" * 20_000 + "80000"


asyncio.run(main())
"""


def test_the_page_of_operations_runs(tmp_path: Path) -> None:
    """Every command of it, in its order; at the end the task is what it was."""
    (tmp_path / "work.py").write_text(PARTY)
    run(tmp_path, "python work.py")
    said = [run(tmp_path, script) for script in blocks(PAGE, "sh")]
    assert "complete up to the remembered checkpoint" in said[0]
    assert "holds" in said[2]
    assert "0 of them are missing or damaged" in said[3]
    assert '"forgotten": true' in said[4]
    assert run(tmp_path, "party task list --json").count('"id"') == 1
    run(tmp_path, "python work.py")


@pytest.mark.parametrize("link", re.findall(r"\]\((?!https?:)([^)#]+)", PAGE))
def test_links_of_operations_lead_somewhere(link: str) -> None:
    assert (ROOT / "docs" / link).exists()
