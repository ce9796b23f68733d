"""Leaving something for a stream's owner: appended to its inbox, with a key of this process's own."""

import contextlib
from typing import Any

from ..eventstore.errors import ConflictError
from ..eventstore.log import Log
from .doorman import Doorman
from .errors import DeadlineError

_TRIES = 20


async def leave(log: Log, doorman: Doorman, stream: str, event: Any) -> None:
    """Append an event to the inbox of a stream; its owner reads it when it runs."""
    inbox = f"inbox/{stream}"
    writer = await doorman.writer(inbox)
    try:
        for _ in range(_TRIES):
            revision = (await log.state(inbox)).revision
            with contextlib.suppress(ConflictError):
                await log.append(writer, [event], expected=revision)
                return
        raise DeadlineError(f"many others write to {inbox} at once: try again")
    finally:
        await doorman.release(writer)
