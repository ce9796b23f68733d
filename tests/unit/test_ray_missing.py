"""A Ray that is not installed, and what stands in the environment before it is imported."""

import os
import stat
import sys
from pathlib import Path

import pytest

from agent_party import Party
from agent_party.actors.errors import RuntimeUnavailableError
from agent_party.cluster.ray_environment import prepare
from agent_party.cluster.settings import Settings


async def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARTY_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    for name in [name for name in sys.modules if name.startswith("agent_party.cluster.ray_runtime")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(RuntimeUnavailableError, match=r"agent-party-runtime\[ray\]"):
        async with Party.open(runtime="ray"):
            pass


def test_a_ray_of_ones_own_asks_for_a_token_only_its_user_can_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")  # so that it is put back afterwards
    token = tmp_path / "ray" / "auth_token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    prepare(Settings(journal="sqlite:////x"))
    first = token.read_text()
    assert len(first) == 64
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    prepare(Settings(journal="sqlite:////x"))
    assert token.read_text() == first
    for name in ("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "RAY_USAGE_STATS_ENABLED", "RAY_enable_metrics_collection"):
        monkeypatch.delenv(name)
