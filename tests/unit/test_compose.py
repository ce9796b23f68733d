"""`deploy/compose.yaml` does in containers what `party services` does natively: same versions, same settings."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent_party.cluster.services import NAMES, artifacts, kafka, minio, neo4j, redis
from agent_party.cluster.services.server import Place
from agent_party.cluster.services.state import Node, State

COMPOSE = Path(__file__).resolve().parents[2] / "deploy" / "compose.yaml"
PLACES = {"listeners", "log.dirs", "controller.quorum.voters", "advertised.listeners", "listener.security.protocol.map"}
"""Settings of Kafka that say where it lies, which is elsewhere in a container."""


@pytest.fixture(scope="module")
def composed() -> dict[str, Any]:
    """The services of the file."""
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    return found


def kafka_name(setting: str) -> str:
    """A setting as Kafka's image takes it from the environment."""
    return "KAFKA_" + setting.upper().replace(".", "_")


def neo4j_name(setting: str) -> str:
    """A setting as Neo4j's image takes it from the environment."""
    return "NEO4J_" + setting.replace("_", "__").replace(".", "_")


def test_it_has_the_four_each_pinned_healthy_and_on_loopback_only(composed: dict[str, Any]) -> None:
    assert composed.keys() == set(NAMES)
    for name, service in composed.items():
        image, _, tag = service["image"].partition(":")
        assert image
        assert tag not in ("", "latest"), name
        assert service["healthcheck"]["test"], name
        assert [port for port in service["ports"] if not port.startswith("127.0.0.1:")] == [], name
        assert service["volumes"], name
    assert composed["kafka"]["image"].endswith(f":{artifacts.KAFKA.version}")
    assert composed["neo4j"]["image"].endswith(f":{artifacts.NEO4J.version}-community")


def test_what_is_not_pinned_natively_is_of_the_same_kind(composed: dict[str, Any]) -> None:
    """Redis is the machine's own, 7 or newer. MinIO's images end before the source that is built, and are no later."""
    assert int(composed["redis"]["image"].partition(":")[2].partition(".")[0]) >= 7
    day = re.fullmatch(r"minio/minio:RELEASE\.(\d{4}-\d\d-\d\d)T[\d-]+Z", composed["minio"]["image"])
    built = re.search(r"-(\d{4})(\d\d)(\d\d)\d{6}-", artifacts.MINIO.version)
    assert day
    assert built
    assert day[1] <= "-".join(built.groups())


def test_kafka_is_set_alike(composed: dict[str, Any]) -> None:
    node = Node("kafka-1", {"plain": 9092, "controller": 9093})
    ours = kafka.settings(Place(Path(), State(nodes={node.name: node})), node)
    theirs = composed["kafka"]["environment"]
    assert {kafka_name(name) for name in ours} == theirs.keys() - {"CLUSTER_ID"}
    same = {name: str(value) for name, value in ours.items() if name not in PLACES}
    assert {name: theirs[kafka_name(name)] for name in same} == same
    assert theirs["KAFKA_ADVERTISED_LISTENERS"] == ours["advertised.listeners"]
    assert theirs["KAFKA_CONTROLLER_QUORUM_VOTERS"] == ours["controller.quorum.voters"]


def test_neo4j_is_set_alike(composed: dict[str, Any]) -> None:
    ours = {name: value for name, value in neo4j.settings(Node("neo4j", {"bolt": 1})).items() if "address" not in name}
    theirs = composed["neo4j"]["environment"]
    assert {name: theirs.get(neo4j_name(name)) for name in ours} == ours
    assert "PARTY_SERVICES_PASSWORD:?" in theirs["NEO4J_AUTH"]


def test_redis_is_set_alike(composed: dict[str, Any]) -> None:
    ours = redis.settings(Place(Path(), State()), Node("redis", {"redis": 1}))
    command = composed["redis"]["command"][-1]
    for name in ("appendonly", "save", "stop-writes-on-bgsave-error", "maxmemory-policy"):
        value = ours[name]
        assert f"--{name} {value}" in command.replace('"', "")
    assert '--requirepass "$$REDISCLI_AUTH"' in command


def test_minio_is_set_alike(composed: dict[str, Any]) -> None:
    theirs = composed["minio"]["environment"]
    assert {name: theirs[name] for name in minio.settings()} == minio.settings()
    assert "PARTY_SERVICES_PASSWORD:?" in theirs["MINIO_ROOT_PASSWORD"]
