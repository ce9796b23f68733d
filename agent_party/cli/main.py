"""The `party` command: the program that people and scripts use."""

import importlib
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from . import (
    agents,
    artifacts,
    asking,
    blobs,
    doctor,
    forking,
    graph,
    histories,
    keys,
    log,
    projections,
    replay,
    schedules,
    tasks,
    views,
)
from .output import USAGE, line
from .services import group as servers
from .session import USAGE_ERROR, App, AsJson, Debug, Journal, Profile, Session, StateDir

_HELP = (
    "Teams of AI agents on a log that can be trusted.\n\n"
    "A party is agents, their tasks, and the log they live on. It is found where you stand, in .party; name another "
    "by --journal."
)
_EPILOG = (
    "Exit codes: 0 fine · 1 the answer is no (verification failed, a task failed, was cancelled or rejected, a check "
    "found a problem) · 2 usage or bad input · 3 not found · 4 the log is damaged, rolled back or another's · 5 a "
    "store or the runtime is unavailable, or time ran out · 70 unexpected. Every command takes --json."
)


class PartyGroup(TyperGroup):
    """The program as a whole: with ``--json``, errors of usage are JSON too."""

    def main(self, args: Any = None, prog_name: str | None = None, *more: Any, **extra: Any) -> Any:
        """Run; exits like any command-line program."""
        given = list(sys.argv[1:] if args is None else args)
        if "--json" not in given:
            return super().main(given, prog_name, *more, **extra)
        try:
            sys.exit(super().main(given, prog_name, standalone_mode=False, **extra))
        except USAGE_ERROR as error:
            print(line({"error": type(error).__name__, "message": " ".join(str(error).split())}))
            sys.exit(USAGE)


app = typer.Typer(
    cls=PartyGroup, name="party", help=_HELP, epilog=_EPILOG, no_args_is_help=True, pretty_exceptions_enable=False
)
app.add_typer(servers, name="services")
app.add_typer(tasks.group, name="task")
app.add_typer(agents.group, name="agent")
app.add_typer(schedules.group, name="schedule")
app.add_typer(log.group, name="log")
app.add_typer(graph.group, name="graph")
app.add_typer(artifacts.group, name="artifact")
app.add_typer(blobs.group, name="blobs")
app.add_typer(keys.group, name="keys")
app.add_typer(projections.group, name="projection")
app.add_typer(views.group, name="view")
asking.register(app)
replay.register(app)
forking.register(tasks.group)
histories.register(app)
doctor.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        print(f"party {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    journal: Journal = None,
    state_dir: StateDir = None,
    app: App = None,
    profile: Profile = None,
    as_json: AsJson = False,
    debug: Debug = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version")
    ] = False,
) -> None:
    """The options of every command may stand before it as well."""
    shared = {"journal": journal, "state_dir": state_dir, "app": app, "profile": profile}
    context.obj = {name: value for name, value in {**shared, "as_json": as_json, "debug": debug}.items() if value}


@app.command(
    "demo",
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def demo(context: typer.Context) -> None:
    """The party's story in under two minutes: work, a crash, recovery, an approval, tampering found."""
    shared = context.obj or {}
    arguments = [argument for argument in context.args if argument != "--debug"]
    if shared.get("as_json") and "--json" not in arguments:
        arguments.append("--json")
    if shared.get("profile") and "--profile" not in arguments:
        arguments += ["--profile", shared["profile"]]
    debug = bool(shared.get("debug")) or "--debug" in context.args

    def tell() -> int:
        story = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        story.command()(importlib.import_module(".demo", __package__).demo)
        ended = typer.main.get_command(story).main(arguments, prog_name="party demo", standalone_mode=False)
        return ended if isinstance(ended, int) else 0

    code = Session(as_json="--json" in arguments, debug=debug).guarded(tell)
    if code:
        raise typer.Exit(code)


def run() -> None:
    """The entry point."""
    app(prog_name="party")
