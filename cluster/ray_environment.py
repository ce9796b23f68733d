"""What is arranged with Ray where it has no setting for it: what stands in the environment before it is imported, which
it reads only then; and hearing that a worker of its was told to end."""

import contextlib
import importlib
import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .settings import Settings, in_a_job


def prepare(settings: Settings) -> None:
    """Set what the program's user has not. A Ray that we start on this machine lets in only who has its token."""
    if "ray" in sys.modules:
        return
    for name in ("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "RAY_USAGE_STATS_ENABLED", "RAY_enable_metrics_collection"):
        os.environ.setdefault(name, "0")
    ours = not (settings.ray_address or os.environ.get("RAY_ADDRESS") or in_a_job())
    if ours and os.environ.setdefault("RAY_AUTH_MODE", "token") == "token" and "RAY_AUTH_TOKEN" not in os.environ:
        _make_token(Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token"))


def _make_token(path: Path) -> None:
    """Ray would make the file itself, readable to others. One that cannot be made, Ray will complain of."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(file, secrets.token_hex(32).encode())
            os.close(file)
        path.chmod(0o600)


def when_told_to_end(call: Callable[[], None]) -> None:
    """Have something called, on the main thread, as soon as this worker of Ray's is told to end by SIGTERM.

    Code of an async actor runs on another thread, from where no handler of a signal can be set; so the call goes before
    the function with which Ray's own handler leaves the main thread.
    """
    worker: Any = importlib.import_module("ray._private.worker")
    leave = worker.raise_sys_exit_with_custom_error_message

    def told(*given: Any, **more: Any) -> Any:
        call()
        return leave(*given, **more)

    worker.raise_sys_exit_with_custom_error_message = told
