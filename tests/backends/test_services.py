"""`party services` for real: up, status, down, up again over the same data; a killed server; harmed brokers."""

import asyncio
import json
import os
import signal
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from agent_party.cli.main import app
from agent_party.cluster import services as starting
from agent_party.cluster.services import artifacts, ports, processes
from agent_party.cluster.services.server import driver
from agent_party.cluster.settings import load, services_folder
from tests.services_kit import Services


def party(*words: str, code: int = 0) -> Result:
    """Run the command; its answer."""
    ended = CliRunner().invoke(app, ["services", *words], prog_name="party")
    assert ended.exit_code == code, ended.output
    return ended


def told(*words: str, code: int = 0) -> Any:
    """Its answer as JSON."""
    return json.loads(party(*words, "--json", code=code).stdout)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the command stands; whatever was started there is ended."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    starting.stop(services_folder(tmp_path), delete=True)


def test_each_server_says_what_it_is(services: Services) -> None:
    """The servers of this run, asked as their clients ask."""
    import redis
    from neo4j import GraphDatabase

    assert redis.Redis.from_url(services.redis).ping()
    scheme, _, rest = services.neo4j.partition("://")
    login, _, host = rest.rpartition("@")
    user, _, password = login.partition(":")
    with GraphDatabase.driver(f"{scheme}://{host}", auth=(user, password)) as driver:
        found = driver.execute_query("CALL dbms.components() YIELD name, versions RETURN versions[0] AS version")
        assert found.records[0]["version"].startswith("5.26.")
    for address in (services.kafka, services.s3.rpartition("@")[2]):
        assert ports.answers(int(address.rpartition(":")[2]))


def test_up_status_down_and_up_again_over_the_same_data(folder: Path) -> None:
    import redis

    up = party("up", "--only", "redis,minio")
    assert "redis: up after" in up.stderr
    first = told("status")
    assert [(row["name"], row["running"]) for row in first] == [("redis", True), ("minio", True)]
    assert all(row["memory"] > 1 << 20 and row["version"] for row in first)
    assert first[1]["version"] == "2026-02-12T20:18:48Z"
    assert services_folder(folder).stat().st_mode & 0o077 == 0

    found = told("env")
    assert "\n".join(f"export PARTY_{name.upper()}={url}" for name, url in found.items()) in up.stdout.replace("'", "")
    settings = load({"profile": "services"}, {}, folder)
    assert (settings.views, settings.blobs) == (found["views"], found["blobs"])
    redis.Redis.from_url(settings.views).set("kept", "yes")

    assert "redis: process" not in party("up", "--only", "redis,minio").stderr, "a second up started something"
    again = told("status")
    assert again == [{**row, "memory": now["memory"]} for row, now in zip(first, again, strict=True)]

    assert told("down")["ended"] == ["redis", "minio"]
    assert not any(row["running"] for row in told("status", code=1))
    party("up", "--only", "redis,minio")
    second = told("status")
    assert [row["address"] for row in second] == [row["address"] for row in first]
    assert [row["pid"] for row in second] != [row["pid"] for row in first]
    assert redis.Redis.from_url(load({"profile": "services"}, {}, folder).views).get("kept") == b"yes"

    party("down", "--delete")
    assert told("status", code=3)["error"] == "NotFoundError"
    assert [path.name for path in services_folder(folder).iterdir() if path.is_dir()] == []


def test_a_killed_server_is_told_and_started_again(folder: Path) -> None:
    party("up", "--only", "redis")
    (before,) = told("status")
    os.kill(before["pid"], signal.SIGKILL)
    assert processes.gone(before["pid"], processes.born(before["pid"]), 120)
    assert "`party services up` starts what is down" in party("status", code=1).stdout
    assert told("logs", "redis")
    party("logs", "neo4j", code=3)
    party("up", "--only", "redis")
    (after,) = told("status")
    assert after["running"]
    assert after["address"] == before["address"]
    # A password that was guessed does not open it.
    with socket.create_connection((ports.LOOPBACK, int(after["address"].rpartition(":")[2])), 120) as plain:
        plain.sendall(b"PING\r\n")
        assert plain.recv(64).startswith(b"-NOAUTH")


def test_three_brokers_by_tls_are_killed_paused_and_started_again(tmp_path: Path) -> None:
    with starting.start(tmp_path / "three", ["kafka"], brokers=3, secure=True) as running:
        assert running.versions == {"kafka": artifacts.KAFKA.version}
        assert len(running.addresses["kafka"].split(",")) == 3
        assert asyncio.run(_written(running)) == [b"one", b"two"]

        second = running.broker(2)
        pid = second.pid
        second.pause()
        assert running.status()[1].running
        second.resume()
        second.kill()
        assert not running.status()[1].running
        assert (second.data / "meta.properties").exists()
        with pytest.raises(starting.ServiceError, match="kafka-2 does not run"):
            second.pause()
        second.start()
        assert running.status()[1].running
        assert second.pid != pid
        assert starting.attach(tmp_path / "three").broker(2).pid == second.pid, "the new process is not remembered"
        assert len(running.brokers) == 3
        with pytest.raises(starting.ServiceError, match="there is no broker 4"):
            running.broker(4)
    assert not any(broker.running for broker in running.brokers)


async def _written(running: starting.Running) -> list[bytes]:
    """Two records on a topic of three replicas, written with TLS and a password, read by the plain listener."""
    aiokafka, administration = driver("aiokafka", "kafka"), driver("aiokafka.admin", "kafka")
    secure, plain = running.secure, running.addresses["kafka"]
    options: dict[str, Any] = {
        "bootstrap_servers": secure.address,
        "security_protocol": "SASL_SSL",
        "ssl_context": ssl.create_default_context(cafile=secure.ca),
        "sasl_mechanism": secure.mechanism,
        "sasl_plain_username": secure.user,
        "sasl_plain_password": secure.password,
    }
    admin = administration.AIOKafkaAdminClient(**options)
    await admin.start()
    try:
        await admin.create_topics([administration.NewTopic("tried", 1, 3)])
    finally:
        await admin.close()
    producer = aiokafka.AIOKafkaProducer(acks="all", **options)
    await producer.start()
    try:
        for value in (b"one", b"two"):
            await producer.send_and_wait("tried", value, partition=0)
    finally:
        await producer.stop()
    consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=plain, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([aiokafka.TopicPartition("tried", 0)])
        return [(await asyncio.wait_for(consumer.getone(), 120)).value for _ in range(2)]
    finally:
        await consumer.stop()
