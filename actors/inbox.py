"""Leaving something for a stream's owner: appended to its inbox, with a key of this process's own."""

import contextlib
from typing import Any

from ..eventstore.errors import ControlRefusedError, GrantEndedError
from ..eventstore.log import Log
from .doorman import Doorman
from .errors import DeadlineError
from .racing import let_finish, patiently


async def leave(log: Log, doorman: Doorman, stream: str, event: Any) -> None:
    """Append an event to the inbox of a stream; its owner reads it when it runs. `DeadlineError`: nothing was left."""
    inbox = f"inbox/{stream}"
    for _ in patiently():
        with contextlib.suppress(ControlRefusedError, GrantEndedError):  # as many write to it as may
            async with doorman.shared_writer(inbox) as writer:
                await log.append(writer, [event], expected=None)
                return
        await let_finish(log, inbox)
    raise DeadlineError(f"many others write to {inbox} at once: try again")
