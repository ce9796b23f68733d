"""Which processes of this node live: each holds a lock on a file of its own for as long as it does.

The kernel lets go of the lock when the process dies, however it dies, so nothing here can be stale.
"""

import fcntl
import os
from pathlib import Path

from ..eventstore.errors import StoreReadOnlyError


class Presence:
    """``holder`` names this process, 16 bytes; it stands in the grants of the streams it owns."""

    def __init__(self, folder: Path, holder: bytes) -> None:
        self.folder, self.holder = folder, holder
        self._closed = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._path(holder), os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX)
        except OSError as error:
            raise StoreReadOnlyError(f"{folder} cannot be used: {error.strerror}") from error

    def alive(self, holder: bytes) -> bool:
        """Whether the process of that name lives on this node."""
        if holder == self.holder:
            return True
        try:
            file = os.open(self._path(holder), os.O_RDWR)
        except FileNotFoundError:
            return False
        except OSError:  # it cannot be told: better to leave its tasks alone than to run them twice
            return True
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two who look do not take each other for it
        except OSError:
            return True
        else:
            self._path(holder).unlink(missing_ok=True)
            return False
        finally:
            os.close(file)

    async def leave(self) -> None:
        """Tell the other nodes, where there are any, that this process ends."""

    def close(self) -> None:
        """This process is gone, as far as the others care."""
        if not self._closed:
            self._closed = True
            self._path(self.holder).unlink(missing_ok=True)
            os.close(self._file)

    def _path(self, holder: bytes) -> Path:
        return self.folder / holder.hex()
