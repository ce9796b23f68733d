"""The README and the page of the command line are executed: programs, and every command that can run unattended."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent_party.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
CLI = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
SERVICES = (ROOT / "docs" / "services.md").read_text(encoding="utf-8")
ATTENDED = (
    "make ",
    "pip install",
    "ray ",
    "PARTY_RUNTIME=ray ",
    "party task ",
    "party log forget",
    "party log move",
    "party artifact get",
    "party demo",
    "party services",
    "eval ",
)
"""What a page may show without its being run here: it needs minutes, a network, a Ray, or a person."""


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def filled(line: str, variables: dict[str, str]) -> str:
    """The line with its variables filled in as a shell does it: not between single quotes, and never with nothing."""
    return re.sub(r"'[^']*'|\$(\w+)", lambda found: variables[found[1]] if found[1] else found[0], line)


def run(folder: Path, script: str) -> str:
    """Run shell commands beside the program, as someone would who has installed it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PARTY_", "RAY_"))}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PARTY_STATE_DIR": str(folder / "state"),
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONPYCACHEPREFIX": str(folder / "cache"),  # as an installed program has it: compiled once
    }
    command = ["bash", "-euo", "pipefail", "-c", script]
    ended = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert ended.returncode == 0, f"{script}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout


def test_the_program_is_the_example() -> None:
    (program,) = blocks(README, "python")
    assert program == (ROOT / "examples" / "hello.py").read_text(encoding="utf-8")
    assert len(program.splitlines()) <= 20


def test_the_readme_runs(tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text(blocks(README, "python")[0])
    (commands,) = blocks(README, "sh")
    said = run(tmp_path, commands)
    assert said.startswith("hash chains has 11 letters\nhash chains has 11 letters\n")
    assert "agent.registered" in said
    assert "complete up to the remembered checkpoint" in said
    assert said.rstrip().endswith("all fine")
    task = run(tmp_path, "party task list --json")
    assert task.count('"id"') == 1


def test_the_agent_in_contributing_counts_words(tmp_path: Path) -> None:
    (program,) = blocks(CONTRIBUTING, "python")
    (tmp_path / "words.py").write_text(program)
    (tmp_path / "text").write_text("one two three\n")
    assert run(tmp_path, "party ask words.count path=text --app words:counter") == "3\n"


def test_the_page_of_the_command_line_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, for a start of Python for each of so many commands would take a while."""
    (tmp_path / "page_app.py").write_text(blocks(CLI, "python")[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PARTY_STATE_DIR", str(tmp_path / "state"))
    variables: dict[str, str] = {}
    said = ""
    for line in "".join(blocks(CLI, "sh")).splitlines():
        name, _, inner = line.partition("=$(") if line.endswith(")") else ("", "", line)
        words = shlex.split(filled(inner.removesuffix(")"), variables).replace("app:", "page_app:"))
        if words[0] == "party":
            ended = CliRunner().invoke(app, words[1:], prog_name="party")
            assert ended.exit_code == 0, (line, ended.output)
            said += ended.stdout
            variables |= {name: ended.stdout.strip()} if name else {}
        else:
            subprocess.run(words, check=True)
    assert "hash chains has 11 letters" in said
    assert "has agreed" in said
    assert "all fine" in said


@pytest.mark.parametrize("page", [README, CLI, SERVICES], ids=["readme", "cli", "services"])
def test_only_what_needs_attendance_is_not_run(page: str) -> None:
    shown = [line[2:] for block in blocks(page, "console") for line in block.splitlines() if line.startswith("$ ")]
    assert shown
    assert [line for line in shown if not line.startswith(ATTENDED)] == []


@pytest.mark.parametrize(
    "name", ["README.md", "SECURITY.md", "CONTRIBUTING.md", "docs/cli.md", "docs/log-format.md", "docs/services.md"]
)
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    found = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in found if not (page.parent / link).exists()] == []


def test_the_program_on_the_page_of_the_services_runs(tmp_path: Path) -> None:
    (tmp_path / "here.py").write_text(blocks(SERVICES, "python")[0])
    assert run(tmp_path, "python here.py") == "[] {} {}\n"
