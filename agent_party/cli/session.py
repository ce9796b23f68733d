"""What all commands share: the options that each of them takes, and how they run, answer and fail."""

import asyncio
import contextlib
import inspect
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .output import INTERRUPTED, Answer, NotFoundError, complain, give

if TYPE_CHECKING:
    from ..cluster.settings import Settings
    from ..eventstore.keyring import Keyring
    from ..party import Party

USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]
"""Typer's, or Click's where an older Typer still stands on it."""
_PANEL = "Options of every command"
Journal = Annotated[
    str | None, typer.Option(help="The log's address, for example sqlite:///.party/log.db", rich_help_panel=_PANEL)
]
StateDir = Annotated[str | None, typer.Option(help="Where keys and remembered checkpoints lie", rich_help_panel=_PANEL)]
App = Annotated[str | None, typer.Option(help="Where code is needed: module:attribute", rich_help_panel=_PANEL)]
AsJson = Annotated[bool, typer.Option("--json", help="One line of JSON, errors too", rich_help_panel=_PANEL)]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error", rich_help_panel=_PANEL)]
Profile = Annotated[
    str | None, typer.Option(help="services: the stores are what `party services` started here", rich_help_panel=_PANEL)
]
COMMON: dict[str, Any] = {
    "journal": Journal,
    "state_dir": StateDir,
    "app": App,
    "profile": Profile,
    "as_json": AsJson,
    "debug": Debug,
}


@dataclass(frozen=True)
class Session:
    """One run of the command."""

    journal: str | None = None
    state_dir: str | None = None
    app: str | None = None
    profile: str | None = None
    as_json: bool = False
    debug: bool = False

    @classmethod
    def of(cls, context: typer.Context, given: dict[str, Any]) -> "Session":
        """From the options of a command, then those that stand before it."""
        root = context.find_root().obj or {}
        return cls(**{name: given.pop(name) or root.get(name) or default for name, default in _DEFAULTS.items()})

    def settings(self, **more: Any) -> "Settings":
        """The settings, from these options, then the environment, then ``party.toml``."""
        from ..cluster.settings import load

        state = str(Path(self.state_dir).expanduser().absolute()) if self.state_dir else ""
        return load({"journal": self.journal, "state": state, "app": self.app, "profile": self.profile, **more})

    def keyring(self, settings: "Settings") -> "Keyring":
        """The keyring that the settings name."""
        from ..eventstore.keyring import Keyring, state_folder

        return Keyring(Path(settings.state) if settings.state else state_folder())

    @contextlib.asynccontextmanager
    async def party(self, *, code: bool = False, create: bool = False, **more: Any) -> AsyncIterator["Party"]:
        """An open party. ``code``: with the agents of ``--app``; else it only reads the log and leaves messages.

        `NotFoundError` where there is no log and ``create`` does not allow to found one.
        """
        from ..apps import find_app
        from ..cluster.stores import held
        from ..eventstore.errors import WrongLogError
        from ..party import Party

        settings = self.settings(**({} if code else {"runtime": "local"}), **more)
        known = self.keyring(settings).pinned(settings.address)
        if not create and settings.embedded and not settings.log_path.exists() and known is None:
            raise NotFoundError(f"there is no log at {settings.address}: start a party there, or name it by --journal")
        party = Party(settings, find_app(settings.app) if code and settings.app else [], stay=False)
        try:
            await party.start(create=create)
        except WrongLogError:
            if create or await held(settings) is not None:
                raise
            raise NotFoundError(f"there is no log at {settings.address}: its store is empty") from None
        try:
            yield party
        finally:
            await party.close()

    def run(self, work: Callable[[], Coroutine[Any, Any, Answer]]) -> int:
        """Do the work, print its answer or its error; the exit code."""
        return self.guarded(lambda: give(asyncio.run(work()), as_json=self.as_json))

    def guarded(self, work: Callable[[], int]) -> int:
        """Turn what a command raises into one line and an exit code."""
        try:
            return work()
        except KeyboardInterrupt:
            return INTERRUPTED
        except (BrokenPipeError, USAGE_ERROR, typer.Exit, typer.Abort):
            raise
        except Exception as error:
            if self.debug:
                traceback.print_exception(error)
            return complain(error, as_json=self.as_json)


_DEFAULTS: dict[str, Any] = {
    "journal": None,
    "state_dir": None,
    "app": None,
    "profile": None,
    "as_json": False,
    "debug": False,
}


def command(group: typer.Typer, name: str, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a command of ``async def work(session, ...) -> Answer``; it gets the options of every command too."""

    def register(work: Callable[..., Any]) -> Callable[..., Any]:
        def run(context: typer.Context, **given: Any) -> None:
            session = Session.of(context, given)
            if code := session.run(lambda: work(session, **given)):
                raise typer.Exit(code)

        own = list(inspect.signature(work).parameters.values())[1:]
        kind = inspect.Parameter.KEYWORD_ONLY
        shared = [inspect.Parameter(n, kind, default=_DEFAULTS[n], annotation=a) for n, a in COMMON.items()]
        context = inspect.Parameter("context", kind, annotation=typer.Context)
        parameters = [context, *(parameter.replace(kind=kind) for parameter in own), *shared]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        run.__doc__ = work.__doc__
        group.command(name, **options)(run)
        return work

    return register
