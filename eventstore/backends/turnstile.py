"""Whose turn it is to append to a file that several processes write: so that a busy one starves no other.

Who appends must have read everything that stands. A process that was refused because another was faster reads on,
builds anew and tries again; against one that appends without a pause it would lose again and again. So it holds the
turnstile meanwhile, and the others pass only when it has had its turn.

It is advice, not a lock that anything relies on: a holder that dies lets go, and one that stands still is passed over,
for twice as long each time it was waited for in vain.
"""

import contextlib
import fcntl
import os
import time
from pathlib import Path

PATIENCE, IGNORED = 0.1, 5.0
"""Seconds that a holder is waited for; seconds for which at most nobody is, after some who did not let go."""
_PAUSE = 0.0005


class Turnstile:
    """The turnstile of one writer, over a file beside the log's."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, -1
        self._ignoring, self._ignored_until = PATIENCE, 0.0
        self._none = False
        self.held = False

    def open(self) -> bool:
        """Whether the way is free now."""
        if self.held or time.monotonic() < self._ignored_until:
            return True
        if not self._lock():
            return self._none
        self._unlock()
        self._ignoring = PATIENCE
        return True

    def take(self) -> None:
        """Block until the way is free, for as long as a holder may take; then have the others wait."""
        until = time.monotonic() + PATIENCE
        while not self.held and not self._held_now():
            if self._none or (now := time.monotonic()) < self._ignored_until:
                return
            if now >= until:
                self._ignoring = min(2 * self._ignoring, IGNORED)
                self._ignored_until = now + self._ignoring
                return
            time.sleep(_PAUSE)

    def hold(self) -> None:
        """Have the others wait, if nobody else does."""
        self.held = self.held or self._lock()

    def _held_now(self) -> bool:
        self.hold()
        if self.held:
            self._ignoring = PATIENCE
        return self.held

    def let_go(self) -> None:
        """Have the others pass."""
        if self.held:
            self.held = False
            self._unlock()

    def close(self) -> None:
        """Let go, and close the file."""
        self.let_go()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _lock(self) -> bool:
        try:
            if self._file < 0:
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a folder that cannot be written, a file system without locks
            self._none = True
            return False
        return True

    def _unlock(self) -> None:
        with contextlib.suppress(OSError):
            fcntl.flock(self._file, fcntl.LOCK_UN)
