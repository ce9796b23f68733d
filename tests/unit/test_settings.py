"""Where everything lies: arguments before environment before ``party.toml``, and never relative to a moving folder."""

import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent_party.actors.errors import ConfigurationError
from agent_party.cluster.settings import Settings, chosen_runtime, load

JOB = {"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"}


def loaded(folder: Path, environment: Mapping[str, str] | None = None, **given: Any) -> Settings:
    return load(given, environment or {}, folder)


def test_the_defaults_need_nothing(tmp_path: Path) -> None:
    settings = loaded(tmp_path, {"XDG_STATE_HOME": str(tmp_path / "kept")})
    assert settings.log_path == tmp_path / ".party" / "log.db"
    assert settings.views_path == tmp_path / ".party" / "views.db"
    assert settings.blobs_path == tmp_path / ".party" / "blobs"
    assert Path(settings.state) == tmp_path / "kept" / "agent-party"
    assert settings.runtime == "auto"


def test_arguments_before_environment_before_the_file(tmp_path: Path) -> None:
    (tmp_path / "party.toml").write_text('name = "file"\nperson = "ada"\nhosts = 2\njournal = "sqlite:///file.db"\n')
    settings = loaded(tmp_path, {"PARTY_NAME": "environment", "PARTY_HOSTS": "3"}, name="argument")
    assert (settings.name, settings.hosts, settings.person) == ("argument", 3, "ada")
    assert settings.log_path == tmp_path / "file.db"
    assert loaded(tmp_path, {"PARTY_NAME": "environment"}).name == "environment"
    assert loaded(tmp_path).name == "file"


def test_what_is_empty_is_not_set(tmp_path: Path) -> None:
    settings = loaded(tmp_path, {"PARTY_JOURNAL": "", "PARTY_HOSTS": ""}, journal="", hosts=None)
    assert settings.log_path == tmp_path / ".party" / "log.db"


def test_relative_paths_are_relative_to_the_folder_and_absolute_ones_are_kept(tmp_path: Path) -> None:
    settings = loaded(tmp_path, journal="sqlite:///a/log.db", blobs="file:///b", views="sqlite:///v.db", state="s")
    assert settings.log_path == tmp_path / "a" / "log.db"
    assert settings.blobs_path == tmp_path / "b"
    assert settings.views_path == tmp_path / "v.db"
    assert Path(settings.state) == tmp_path / "s"
    elsewhere = tmp_path / "elsewhere"
    again = loaded(
        elsewhere, journal=settings.journal, blobs=settings.blobs, views=settings.views, state=settings.state
    )
    assert again == settings


@pytest.mark.parametrize("name", ["with space", "with#hash", "with?mark", "with%41", "ü"])
def test_any_character_may_stand_in_a_path(tmp_path: Path, name: str) -> None:
    assert loaded(tmp_path, journal=f"sqlite:///{name}/log.db").log_path == tmp_path / name / "log.db"


def test_in_a_ray_job_the_working_directory_is_not_used(tmp_path: Path) -> None:
    environment = {**JOB, "XDG_DATA_HOME": str(tmp_path / "data"), "PARTY_STATE_DIR": str(tmp_path / "state")}
    settings = loaded(tmp_path / "job", environment)
    assert settings.log_path == tmp_path / "data" / "agent-party" / ".party" / "log.db"
    assert Path(settings.state) == tmp_path / "state"


@pytest.mark.parametrize(
    "text", ['nmae = "x"\n', "[party]\nname = 'x'\n", "name = 3\n", "hosts = -1\n", "runtime = 'fast'\n", "name = \n"]
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, text: str) -> None:
    (tmp_path / "party.toml").write_text(text)
    with pytest.raises(ConfigurationError):
        loaded(tmp_path)


def test_a_setting_nobody_knows_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"journel.*known are"):
        loaded(tmp_path, journel="sqlite:///x")


@pytest.mark.parametrize("url", ["postgres://host/x", "sqlite://host/x", "sqlite:///", "x.db", "sqlite:x"])
def test_a_journal_that_cannot_be(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigurationError, match="journal"):
        loaded(tmp_path, journal=url)


def test_which_runtime_auto_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    auto = loaded(tmp_path)
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    assert chosen_runtime(auto, {}) == "local"
    assert chosen_runtime(auto, JOB) == "ray"
    assert chosen_runtime(auto, {"RAY_ADDRESS": "auto"}) == "ray"
    assert chosen_runtime(loaded(tmp_path, runtime="local"), JOB) == "local"
    assert chosen_runtime(loaded(tmp_path, runtime="ray"), {}) == "ray"
    for started in (True, False):
        monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda started=started: started))
        assert chosen_runtime(auto, {}) == ("ray" if started else "local")
