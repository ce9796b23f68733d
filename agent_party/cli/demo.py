"""`party demo`: tells the story, for people or as one line of JSON."""

import asyncio
import json
import os
import secrets
import shutil
import sys
import time
from pathlib import Path
from typing import IO, Annotated, Any

import typer
from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

QUESTION = "How do I run a subprocess with a timeout?"


class ConsoleTeller:
    """Tells it at a terminal, or to a file."""

    def __init__(self, out: IO[str], *, yes: bool) -> None:
        terminal = sys.__stdin__ is not None and sys.__stdin__.isatty()
        self.console = Console(file=out, highlight=False, markup=False)
        self._yes, self._terminal, self._shown = yes, terminal, False
        columns = (TextColumn("  reading"), BarColumn(), MofNCompleteColumn())
        self._bar = Progress(*columns, console=self.console, transient=True)
        self._task = self._bar.add_task("reading", total=None)

    def say(self, text: str) -> None:
        """One thing that has happened."""
        self._stop()
        self.console.print(f"• {text}", soft_wrap=True)

    def progress(self, done: int, total: int) -> None:
        """How far the reading has come."""
        if total and done < total:
            self._shown = True
            self._bar.start()
            self._bar.update(self._task, completed=done, total=total)

    def _stop(self) -> None:
        if self._shown:
            self._shown = False
            self._bar.stop()

    def confirm(self, shown: Any) -> bool:
        """Ask the person; without a terminal or with --yes, the answer is yes, and says so."""
        self._stop()
        self.console.print(Panel(str(shown["report"]), title="To be approved: publish this report?"))
        if self._yes or not self._terminal:
            self.console.print("  approved by --yes, signed with your key")
            return True
        self.console.print("  Approve and sign? [Y/n] ", end="")
        self.console.file.flush()
        return sys.stdin.readline().strip().lower() in ("", "y", "yes")


class SilentTeller:
    """For --json: nothing but the facts at the end."""

    def say(self, text: str) -> None:
        """Nothing."""

    def progress(self, done: int, total: int) -> None:
        """Nothing."""

    def confirm(self, shown: Any) -> bool:
        """Yes: there is nobody to ask."""
        return True


def demo(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Approve without asking")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON with all facts; needs --yes")] = False,
    question: Annotated[str, typer.Option(help="What to ask")] = QUESTION,
    docs: Annotated[str, typer.Option(help="A folder of text, Markdown, HTML or Python; default: Python's own")] = "",
    profile: Annotated[str, typer.Option(help="services: on Kafka, Neo4j, Redis and MinIO, started for it")] = "",
    seed: Annotated[int, typer.Option(help="Where to kill and what to flip; default: random, and printed")] = -1,
) -> int:
    """The party's story in under two minutes: work, a crash, recovery, an approval, an answer, tampering found."""
    from ..demo.home import home, quiet, stores

    if as_json and not yes:
        raise typer.BadParameter("--json cannot ask for the approval: add --yes")
    if docs and not Path(docs).is_dir():
        raise typer.BadParameter(f"--docs {docs}: there is no such folder")
    if profile not in ("", "services"):
        raise typer.BadParameter(f"--profile {profile}: there is `services`")
    seed = seed if seed >= 0 else secrets.randbelow(1_000_000)
    with home() as place:
        os.environ["PARTY_STATE_DIR"] = str(place.state)
        with quiet(place.folder / "ray.log") as (out, _):
            teller = SilentTeller() if as_json else ConsoleTeller(out, yes=yes)
            started = time.monotonic()
            with stores(place, profile, teller.say) as urls:
                teller.say(f"Seed {seed}. Starting Ray and a party of three agents (15 to 25 s).")
                absolute = str(Path(docs).absolute()) if docs else ""
                facts = asyncio.run(_tell(place, urls, seed, teller, question, absolute))
            facts["seconds"] = round(time.monotonic() - started, 1)
            if as_json:
                print(json.dumps(facts, ensure_ascii=True), file=out)
            else:
                _close(teller, place, profile, facts)
    return 0 if facts["verify_ok"] and facts["truncation_detected"] else 1


async def _tell(place: Any, urls: dict[str, str], seed: int, teller: Any, question: str, docs: str) -> dict[str, Any]:
    from ..cluster.ray_environment import prepare
    from ..cluster.settings import load

    settings = load({**urls, "runtime": "ray", "hosts": 1, "name": "party-demo"})
    prepare(settings)  # before anything imports ray
    from ..demo.story import Story, tell
    from ..examples.research.party import agents
    from ..party import Party

    async with Party(settings, agents, stay=False) as party:
        return await tell(Story(party, place, seed, teller), question, docs)


def _close(teller: Any, place: Any, profile: str, facts: dict[str, Any]) -> None:
    repeated = facts["effects_executed"] - facts["effects_distinct"]
    teller.say(
        f"{facts['steps_total']} steps, {facts['steps_replayed']} of them replayed from the log after the kill; "
        f"{facts['effects_executed']} effects were executed, {repeated} of them twice (in flight at the kill)."
    )
    party = "party" if shutil.which("party") else str(Path(sys.argv[0]).absolute())
    teller.say(f"Done in {facts['seconds']} s. Where to look next:")
    teller.console.print(f"    cd {place.folder}; export PARTY_STATE_DIR=$PWD/state", soft_wrap=True)
    if profile:
        teller.console.print(f"    {party} services up; export PARTY_PROFILE={profile}", soft_wrap=True)
    for command in ("task list", f"task show {facts['task']}", f"replay task/{facts['task']} --at 3", "log verify"):
        teller.console.print(f"    {party} {command}", soft_wrap=True)
