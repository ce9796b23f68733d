"""What every command gives back: an answer, for people or as one line of JSON, and an exit code.

    0   fine
    1   the answer is no: verification failed, a task failed, was cancelled or rejected, a check found a problem
    2   usage or bad input
    3   not found
    4   the log is damaged, rolled back or another's
    5   a store or the runtime is unavailable, or time ran out: try again
    70  unexpected: a defect of this program

Text from the log was written by others; what could steer a terminal is shown escaped.
"""

import sys
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from ..actors import errors as actors
from ..eventstore import errors as store
from ..projections import graph_errors as graph

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

OK, NO, USAGE, NOT_FOUND, DAMAGED, UNAVAILABLE, UNEXPECTED = 0, 1, 2, 3, 4, 5, 70
INTERRUPTED = 130
_UNBROKEN = 4_000


class NotFoundError(actors.PartyError):
    """What a command names is not there: a log, a stream, an agent, a file."""


CODES: tuple[tuple[type[Exception], int], ...] = (
    (NotFoundError, NOT_FOUND),
    (actors.UnknownTaskError, NOT_FOUND),
    (actors.TaskError, NO),
    (actors.ReplayError, NO),
    (actors.StepError, NO),
    (actors.MailboxFullError, UNAVAILABLE),
    (actors.DeadlineError, UNAVAILABLE),
    (actors.MovedError, UNAVAILABLE),
    (actors.RuntimeUnavailableError, UNAVAILABLE),
    (actors.PartyError, USAGE),
    (graph.UnknownNodeError, NOT_FOUND),
    (graph.GraphError, USAGE),
    (store.IdReusedError, USAGE),
    (store.PayloadError, USAGE),
    (store.SchemaError, USAGE),
    (store.LogMovedError, NOT_FOUND),
    (store.LogError, DAMAGED),
    (store.StoreCorruptError, DAMAGED),
    (store.WrongKeyError, DAMAGED),
    (store.BlobError, DAMAGED),
    (store.EventStoreError, UNAVAILABLE),
)
"""The first class that fits decides."""


class Answer(NamedTuple):
    """``data`` is the line of JSON; ``shown`` is what people see; ``code`` the exit code."""

    data: Any
    shown: "Sequence[RenderableType]" = ()
    code: int = OK


def code_of(error: BaseException) -> int:
    """The exit code for an error."""
    return next((code for cls, code in CODES if isinstance(error, cls)), UNEXPECTED)


def console(file: IO[str] | None = None) -> "Console":
    """A console that takes text as it is: no markup, no emoji codes. Where it is not a terminal, nothing is folded."""
    from rich.console import Console

    file = file or sys.stdout
    return Console(file=file, markup=False, emoji=False, highlight=False, width=None if file.isatty() else _UNBROKEN)


def give(answer: Answer, *, as_json: bool) -> int:
    """Print an answer on standard output; its exit code."""
    if as_json:
        print(line(answer.data))
        return answer.code
    from rich.text import Text

    out = console()
    for part in answer.shown:
        out.print(part, soft_wrap=isinstance(part, str | Text))
    return answer.code


def complain(error: BaseException, *, as_json: bool) -> int:
    """Say what went wrong in one line: JSON on standard output, or text on standard error. The exit code."""
    code, text = code_of(error), str(error) or type(error).__name__
    if as_json:
        more = {"task": error.task} if isinstance(error, actors.TaskError) else {}
        print(line({"error": type(error).__name__, "message": text, **more}))
    else:
        advice = " (unexpected: run it again with --debug and report what it shows)" if code == UNEXPECTED else ""
        kind = f"{type(error).__name__}: " if code == UNEXPECTED else ""
        print(f"party: {kind}{safe(' '.join(text.split()))}{advice}", file=sys.stderr)
    return code


def line(data: Any) -> str:
    """Data as one line of JSON, in ASCII."""
    import json

    from .plain import plain

    return json.dumps(plain(data), allow_nan=False)


def safe(text: str) -> str:
    """Text in which everything that is not printed as itself, but for line ends and tabs, is shown escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode("ascii") for c in text)
