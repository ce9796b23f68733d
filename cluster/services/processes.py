"""Processes that outlive who started them: begun in a session of their own, known by pid and moment of birth.

A pid alone is no name: it is given to another process later. So nothing is signalled unless the process of that pid
was born when ours was.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_PROC = Path("/proc")
_LOOK = 0.02
"""Seconds between two looks at a process that ends."""


def spawn(command: Sequence[str], environment: Mapping[str, str], log: Path) -> int:
    """Start a program, detached, with nothing to read and its words appended to the log; its pid.

    Not by `subprocess`: that one complains of a child which its maker does not wait for.
    """
    opened = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return os.posix_spawn(
            command[0],
            list(command),
            dict(environment),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, opened, 1),
                (os.POSIX_SPAWN_DUP2, opened, 2),
            ],
            setsid=True,
            setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
            setsigmask=[],
        )
    finally:
        os.close(opened)


def born(pid: int) -> str:
    """When the process was born, in words that no other process of this pid has had or will have; empty if it is gone.

    One that has ended and was not waited for is gone.
    """
    if pid <= 0:
        return ""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    if not sys.platform.startswith("linux"):
        return _asked("lstart", pid)
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else f"{boot}:{fields[19]}"


def same(pid: int, birth: str) -> bool:
    """Whether the process of this pid is still the one that was born then."""
    return bool(birth) and born(pid) == birth


def memory(pid: int) -> int:
    """Bytes of memory that the process holds, 0 if that cannot be told."""
    if not sys.platform.startswith("linux"):
        return int(_asked("rss", pid) or 0) * 1024
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = (_PROC / str(pid) / "status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmRSS:"))) * 1024
    return 0


def tell(pid: int, birth: str, number: signal.Signals) -> bool:
    """Send a signal to the process, if it is still that one; whether it was."""
    if not same(pid, birth):
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False


def gone(pid: int, birth: str, within: float) -> bool:
    """Wait until the process is gone, at most so many seconds; whether it is."""
    deadline = time.monotonic() + within
    while same(pid, birth):
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK)
    return True


def end(pid: int, birth: str, patience: float, hard: float = 10.0) -> bool:
    """End the process: asked first, then killed after ``patience`` seconds; whether it is gone.

    One that was paused is woken, for it could not hear otherwise.
    """
    if tell(pid, birth, signal.SIGTERM):
        tell(pid, birth, signal.SIGCONT)
        if gone(pid, birth, patience):
            return True
        tell(pid, birth, signal.SIGKILL)
    return gone(pid, birth, hard)


def _asked(column: str, pid: int) -> str:
    """A column of ``ps``, where there is no /proc; empty for a process that is gone."""
    asked = ["ps", "-o", "stat=", "-o", f"{column}=", "-p", str(pid)]
    said = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=False).stdout.split(None, 1)
    return said[1].strip() if len(said) == 2 and not said[0].startswith("Z") else ""
