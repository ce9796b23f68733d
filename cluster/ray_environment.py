"""What must stand in the environment before ray is imported: it reads some of it only then."""

import contextlib
import os
import secrets
import sys
from pathlib import Path

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
