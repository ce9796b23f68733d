"""Settings: arguments before environment before party.toml; what is relative becomes absolute."""

from pathlib import Path

import pytest

from agent_party.actors.errors import ConfigurationError
from agent_party.cluster.settings import chosen_runtime, load

JOB = {"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"}


def test_the_defaults_need_nothing(tmp_path: Path) -> None:
    settings = load({}, {}, tmp_path)
    assert settings.journal == f"sqlite:///{tmp_path}/.party/log.db"
    assert settings.log_path == tmp_path / ".party" / "log.db"
    assert settings.views_path == tmp_path / ".party" / "views.db"
    assert settings.blobs_path == tmp_path / ".party" / "blobs"
    assert (settings.runtime, settings.name) == ("auto", "agent-party")


def test_arguments_come_before_environment_before_the_file(tmp_path: Path) -> None:
    (tmp_path / "party.toml").write_text('name = "file"\nhosts = 3\nperson = "file"\n')
    settings = load({"name": "given", "person": None}, {"PARTY_NAME": "env", "PARTY_HOSTS": "5"}, tmp_path)
    assert (settings.name, settings.hosts, settings.person) == ("given", 5, "file")


def test_loading_what_was_loaded_changes_nothing(tmp_path: Path) -> None:
    first = load({"journal": "sqlite:///deep/down/log.db", "blobs": "file:///b"}, {}, tmp_path)
    assert first.log_path == tmp_path / "deep" / "down" / "log.db"
    elsewhere = load({"journal": first.journal, "blobs": first.blobs}, {}, tmp_path / "elsewhere")
    assert (elsewhere.log_path, elsewhere.blobs_path) == (first.log_path, tmp_path / "b")


def test_in_a_job_the_users_data_folder_is_the_base(tmp_path: Path) -> None:
    settings = load({}, {**JOB, "XDG_DATA_HOME": str(tmp_path / "data")}, tmp_path / "thrown-away")
    assert settings.log_path == tmp_path / "data" / "agent-party" / ".party" / "log.db"


def test_keys_lie_in_the_state_folder(tmp_path: Path) -> None:
    assert load({}, {"PARTY_STATE_DIR": str(tmp_path / "s")}, tmp_path).state == str(tmp_path / "s")
    assert load({}, {"XDG_STATE_HOME": str(tmp_path / "x")}, tmp_path).state == str(tmp_path / "x" / "agent-party")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"journal": "kafka://localhost:9092/agent.events"}, "this version takes sqlite"),
        ({"journal": "sqlite://host/log.db"}, "journal"),
        ({"journal": "log.db"}, "journal"),
        ({"runtime": "kubernetes"}, "runtime"),
        ({"hosts": "many"}, "hosts"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_setting_that_cannot_be_is_named(given: dict[str, str], says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=says):
        load(given, {}, tmp_path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "party.toml").write_text("name = \n")
    with pytest.raises(ConfigurationError, match=r"party\.toml"):
        load({}, {}, tmp_path)


@pytest.mark.parametrize(
    ("given", "environment", "runtime"),
    [
        ({}, {}, "local"),
        ({}, JOB, "ray"),
        ({}, {"RAY_ADDRESS": "127.0.0.1:6379"}, "ray"),
        ({"ray_address": "127.0.0.1:6379"}, {}, "ray"),
        ({"runtime": "local"}, JOB, "local"),
        ({"runtime": "ray"}, {}, "ray"),
    ],
)
def test_the_runtime_is_ray_where_there_is_one(
    given: dict[str, str], environment: dict[str, str], runtime: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(__import__("sys").modules, "ray", raising=False)
    assert chosen_runtime(load(given, environment, tmp_path), environment) == runtime
