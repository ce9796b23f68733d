"""Fixtures of the command line's tests."""

import os
from pathlib import Path

import pytest

from tests.cli_kit import Cli


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command in a new folder, where there is nothing yet."""
    _alone(monkeypatch, tmp_path)
    return Cli(tmp_path)


@pytest.fixture(scope="session")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cli, str]:
    """A folder in which one task was asked for, and its id. For tests that leave it as it is."""
    folder = tmp_path_factory.mktemp("asked")
    with pytest.MonkeyPatch.context() as patch:
        _alone(patch, folder)
        made = Cli(folder)
        task = made.ask()
    return made, task


@pytest.fixture
def seen(asked: tuple[Cli, str], monkeypatch: pytest.MonkeyPatch) -> tuple[Cli, str]:
    """That folder, as the current one."""
    _alone(monkeypatch, asked[0].folder)
    return asked


def _alone(patch: pytest.MonkeyPatch, folder: Path) -> None:
    for name in [name for name in os.environ if name.startswith(("PARTY_", "RAY_"))]:
        patch.delenv(name)
    patch.setenv("PARTY_STATE_DIR", str(folder / "state"))
    patch.chdir(folder)
