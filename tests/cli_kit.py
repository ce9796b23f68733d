"""What tests of the command line share: the command in a folder of its own."""

import asyncio
import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from agent_party import Party
from agent_party.cli.main import app
from tests.unit import party_app

ROOT = Path(__file__).resolve().parents[1]
APP = ("--app", "tests.unit.party_app:app")
PATIENCE = 120.0
"""Seconds for what takes one or two: a machine may have much else to do."""


class Cli:
    """The command in a folder of its own, with a keyring of its own. Each call expects its exit code."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state = folder, folder / "state"

    def run(self, *arguments: str, code: int = 0, given: str | None = None) -> Result:
        """Run it; nothing but a defect shows a traceback."""
        result = CliRunner().invoke(app, list(arguments), input=given, prog_name="party")
        assert result.exit_code == code, (arguments, result.output, result.exception)
        assert "Traceback" not in result.output
        return result

    def text(self, *arguments: str, code: int = 0) -> str:
        """What people see."""
        return self.run(*arguments, code=code).output

    def json(self, *arguments: str, code: int = 0) -> Any:
        """What programs read: one line, and nothing else on standard output."""
        result = self.run(*arguments, "--json", code=code)
        assert result.stdout.count("\n") == 1, result.stdout
        return json.loads(result.stdout)

    def ask(self, topic: str = "ravens", request: str = "r1") -> str:
        """Have a task done; its id."""
        told = self.json("ask", "text.write", f"topic={topic}", "--request-id", request, *APP)
        assert told["result"] == f"{topic} has {len(topic)} letters"
        return str(told["task"])

    def open_approval(self) -> str:
        """A task that waits for a person, and whose process is gone."""

        async def ask() -> str:
            async with Party.open(agents=[party_app.writer], runtime="local") as party:
                task = await party.ask(party_app.publish, topic="ravens")
                async for state in task.watch(timeout=PATIENCE):
                    if any(state.waits[number].kind == "approval" for number in state.open):
                        return task.id
            raise AssertionError("it never asked for approval")

        return asyncio.run(ask())


def at_a_terminal(arguments: list[str], answer: Callable[[bytes], bytes]) -> str:
    """Run the command with a terminal for its input and output, and answer what it asks; all that it showed."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", "from agent_party.cli.main import run; run()", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "dumb", "COLUMNS": "200"}
    running = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, close_fds=True)
    os.close(theirs)
    shown, answered, until = b"", False, time.monotonic() + PATIENCE
    try:
        while time.monotonic() < until and select.select([ours], [], [], PATIENCE)[0]:
            try:
                shown += os.read(ours, 4096)
            except OSError:  # the other side is closed
                break
            if not answered and (typed := answer(shown)):
                answered = True
                os.write(ours, typed)
        assert running.wait(PATIENCE) == 0, shown.decode(errors="replace")
    finally:
        running.kill()
        running.wait()
        os.close(ours)
    return shown.decode()
