"""`ray-cluster.yaml` is what Ray's cluster launcher takes."""

import copy
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

FILE = Path(__file__).resolve().parents[2] / "ray-cluster.yaml"

LAUNCHER = """
import json, sys
from ray.autoscaler._private.util import prepare_config, validate_config
config = prepare_config(json.load(sys.stdin))
validate_config(config)
print(json.dumps(config))
"""


@pytest.fixture
def config() -> dict[str, Any]:
    loaded = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


@pytest.fixture(scope="module")
def schema() -> Any:
    """Ray's own schema, found without importing Ray."""
    spec = importlib.util.find_spec("ray")
    assert spec is not None
    assert spec.origin is not None
    return json.loads((Path(spec.origin).parent / "autoscaler" / "ray-schema.json").read_text(encoding="utf-8"))


def launch(config: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """What `ray up` does with the file before it touches a machine."""
    return subprocess.run(
        [sys.executable, "-c", LAUNCHER],
        input=json.dumps(config),
        env={**os.environ, "RAY_AUTH_MODE": "token"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_it_fits_rays_schema(config: dict[str, Any], schema: Any) -> None:
    # min_workers is the launcher's word for the local provider: it is moved before the schema is asked.
    jsonschema.validate({key: value for key, value in config.items() if key != "min_workers"}, schema)


def test_the_schema_refuses_an_unknown_field(config: dict[str, Any], schema: Any) -> None:
    with pytest.raises(jsonschema.ValidationError, match="head_start_commands"):
        jsonschema.validate({**config, "head_start_commands": []}, schema)


def test_the_launcher_takes_it(config: dict[str, Any]) -> None:
    finished = launch(config)
    assert finished.returncode == 0, finished.stderr
    prepared = json.loads(finished.stdout.splitlines()[-1])
    (node_type,) = prepared["available_node_types"].values()
    workers = len(config["provider"]["worker_ips"])
    assert node_type["min_workers"] == node_type["max_workers"] == prepared["max_workers"] == workers
    assert prepared["head_start_ray_commands"] == config["head_start_ray_commands"]


def test_the_launcher_refuses_a_cluster_without_a_head(config: dict[str, Any]) -> None:
    broken = copy.deepcopy(config)
    del broken["provider"]["head_ip"]
    finished = launch(broken)
    assert finished.returncode != 0
    assert "head_ip" in finished.stdout + finished.stderr


@pytest.mark.parametrize("commands", ["head_start_ray_commands", "worker_start_ray_commands"])
def test_ray_starts_with_the_token_and_the_journal(config: dict[str, Any], commands: str) -> None:
    (start,) = [command for command in config[commands] if "ray start" in command]
    assert "RAY_AUTH_MODE=token" in start
    assert "PARTY_JOURNAL=kafka://" in start
    assert f"/home/{config['auth']['ssh_user']}/.ray/auth_token" in config["file_mounts"]
