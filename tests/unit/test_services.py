"""`party services` without a server: what is pinned, what is remembered, who is signalled, what is refused."""

import secrets
import socket
import ssl
import stat
import sys
import threading
from base64 import urlsafe_b64decode
from pathlib import Path

import pytest
from cryptography import x509

from agent_party.actors.errors import ConfigurationError
from agent_party.cluster import services
from agent_party.cluster.services import artifacts, cache, nodes, ports, state
from agent_party.cluster.services.certificate import make_certificate
from agent_party.cluster.services.kafka import settings as kafka_settings
from agent_party.cluster.services.server import Place, secret, token
from agent_party.cluster.services.state import Node, State
from agent_party.cluster.settings import load, services_folder
from tests.cli_kit import Cli


def silent(line: str) -> None:
    """Progress that nobody watches."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, and nothing on the PATH but what a test puts there."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    return tmp_path


def program(home: Path, name: str, body: str) -> Path:
    """A program on the PATH, in Python."""
    path = home / "bin" / name
    path.write_text(f"#!{sys.executable}\nimport os, sys\n{body}\n")
    path.chmod(0o755)
    return path


# What is fetched


def test_everything_that_is_fetched_is_pinned() -> None:
    for program_ in (artifacts.KAFKA, artifacts.NEO4J):
        lines = [line.split("  ") for line in program_.pins.read_text().splitlines()]
        assert all(len(digest) == 64 and name.endswith(".jar") for digest, name in lines)
        for part in program_.parts:
            _, name, version = part.split(":")
            assert f"{name}-{version}.jar" in {name for _, name in lines}
    assert artifacts.MINIO.sum.startswith("h1:")
    assert artifacts.MINIO.version.endswith("7aac2a2c5b7c")


@pytest.mark.parametrize("harm", ["changed", "missing", "added"])
def test_a_file_that_is_not_what_was_pinned_is_refused(tmp_path: Path, harm: str) -> None:
    folder, pins = tmp_path / "jars", tmp_path / "pins"
    folder.mkdir()
    for name in ("a.jar", "b.jar"):
        (folder / name).write_text(name)
    pins.write_text("".join(f"{digest}  {name}\n" for name, digest in artifacts.hashes(folder).items()))
    artifacts.check(folder, pins)
    match harm:
        case "changed":
            (folder / "b.jar").write_text("c")
        case "missing":
            (folder / "b.jar").unlink()
        case _:
            (folder / "c.jar").write_text("c")
    with pytest.raises(services.ArtifactError, match=r"[bc]\.jar .*nothing of it is run"):
        artifacts.check(folder, pins)


def test_jars_that_maven_brings_are_held_to_their_pins(home: Path) -> None:
    target = "folder = next(word for word in sys.argv if word.startswith('-DoutputDirectory=')).partition('=')[2]"
    program(home, "mvn", f"{target}\nopen(folder + '/kafka_2.13-4.1.2.jar', 'w').write('something else')")
    with pytest.raises(services.ArtifactError, match="nothing of it is run"):
        artifacts.jars(artifacts.KAFKA, silent)
    assert [path.name for path in cache.cache_folder().iterdir() if path.is_dir()] == [], "it is in the cache"


def test_jars_that_were_changed_in_the_cache_are_not_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pins = home / "pins"
    monkeypatch.setattr(artifacts.Jars, "pins", pins)
    target = "folder = next(word for word in sys.argv if word.startswith('-DoutputDirectory=')).partition('=')[2]"
    program(home, "mvn", f"{target}\nopen(folder + '/kafka.jar', 'w').write('kafka')")
    (home / "right").mkdir()
    (home / "right" / "kafka.jar").write_text("kafka")
    pins.write_text(f"{artifacts.hashes(home / 'right')['kafka.jar']}  kafka.jar\n")
    folder = artifacts.jars(artifacts.KAFKA, silent)
    assert artifacts.jars(artifacts.KAFKA, silent) == folder
    (folder / "kafka.jar").write_text("harm")
    with pytest.raises(services.ArtifactError, match="has another SHA-256"):
        artifacts.jars(artifacts.KAFKA, silent)


def test_a_module_with_another_sum_is_not_built(home: Path) -> None:
    program(home, "go", 'assert sys.argv[1] == \'mod\', \'it is built\'; print(\'{"Sum": "h1:other", "Dir": "/"}\')')
    with pytest.raises(services.ArtifactError, match="has the sum h1:other, pinned is h1:/qdo"):
        artifacts.minio(silent)


def test_what_a_client_says_when_it_fails_is_told(home: Path) -> None:
    program(home, "mvn", "sys.exit('no route to host')")
    with pytest.raises(services.FetchError, match="no route to host"):
        artifacts.jars(artifacts.KAFKA, silent)


@pytest.mark.parametrize(
    ("name", "missing", "advice"),
    [
        ("kafka", "java", "openjdk"),
        ("neo4j", "java", "openjdk"),
        ("redis", "redis-server", "apt-get"),
        ("minio", "go", "Go 1"),
    ],
)
def test_a_missing_program_is_named_with_what_to_install(home: Path, name: str, missing: str, advice: str) -> None:
    with pytest.raises(services.MissingProgramError, match=advice) as caught:
        services.fetch([name], silent)
    assert caught.value.program == missing
    assert isinstance(caught.value, ConfigurationError)


def test_an_old_java_is_refused(home: Path) -> None:
    program(home, "java", "print('openjdk version \"11.0.2\" 2019-01-15', file=sys.stderr)")
    with pytest.raises(services.MissingProgramError, match=r"is 11\.0\.2; install a Java runtime, 17"):
        artifacts.java()
    program(home, "java", "print('openjdk version \"21\" 2023-09-19', file=sys.stderr)")
    assert artifacts.java() == str(home / "bin" / "java")


# The cache


def test_what_fails_half_way_leaves_nothing_in_the_cache(home: Path) -> None:
    def half(folder: Path) -> None:
        (folder / "part").write_text("half")
        raise services.FetchError("cut off")

    def whole(folder: Path) -> None:
        (folder / "part").write_text("whole")

    with pytest.raises(services.FetchError, match="cut off"):
        cache.made_once("thing", half, silent)
    assert [path for path in cache.cache_folder().iterdir() if path.is_dir()] == []
    made = cache.made_once("thing", whole, silent)
    assert (made / "part").read_text() == "whole"


def test_two_at_once_make_it_once(home: Path) -> None:
    made, begun, said = [], threading.Event(), threading.Event()

    def make(folder: Path) -> None:
        made.append(folder)
        begun.set()
        assert said.wait(120), "the second did not wait"

    def second() -> None:
        begun.wait(120)
        cache.made_once("thing", make, lambda line: said.set())

    threads = [threading.Thread(target=cache.made_once, args=("thing", make, silent)), threading.Thread(target=second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert len(made) == 1


# Ports


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ports that nobody else on this machine chooses from."""
    monkeypatch.setattr(ports, "RANGE", range(12_000, 13_000))


@pytest.mark.usefixtures("ours")
def test_ports_are_free_and_not_given_twice() -> None:
    with socket.socket() as held:
        held.bind((ports.LOOPBACK, 0))
        held.listen()
        assert not ports.is_free(held.getsockname()[1])
        assert ports.answers(held.getsockname()[1])
    found = ports.free()
    assert ports.is_free(found)
    assert found in ports.RANGE
    with pytest.raises(services.ServiceError, match="none is free"):
        ports.free(ports.RANGE)


@pytest.mark.usefixtures("ours")
def test_a_server_keeps_its_port_unless_somebody_has_it() -> None:
    known, node = State(), Node("redis")
    known.nodes["redis"] = node
    nodes.give_ports(known, [node])
    first = node.ports["redis"]
    nodes.give_ports(known, [node])
    assert node.ports["redis"] == first
    with socket.socket() as held:
        held.bind((ports.LOOPBACK, first))
        held.listen()
        nodes.give_ports(known, [node])
        assert node.ports["redis"] != first


# What is remembered


def test_the_state_is_kept_for_its_owner_alone(tmp_path: Path) -> None:
    known = State()
    known.nodes["redis"] = Node("redis", {"redis": 4}, 7, "boot:1", "7.0")
    password = secret(known, "redis")
    state.write(tmp_path, known)
    assert stat.S_IMODE((tmp_path / "state.json").stat().st_mode) == 0o600
    assert state.read(tmp_path) == known
    assert secret(state.read(tmp_path), "redis") == password
    assert len(password) >= 32
    assert password.isalnum()
    assert secret(known, "neo4j") != password


@pytest.mark.parametrize("text", ["", "[]", '{"format": 99}', '{"nodes": 3}'])
def test_a_state_that_cannot_be_read_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(services.ServiceError, match=r"state\.json"):
        state.read(tmp_path)


def kafka_of(folder: Path, brokers: int) -> None:
    """The state of a Kafka that was made once and does not run."""
    known = State()
    known.nodes = {f"kafka-{number}": Node(f"kafka-{number}") for number in range(1, brokers + 1)}
    folder.mkdir()
    state.write(folder, known)


def test_another_kafka_than_the_data_is_of_is_refused(tmp_path: Path) -> None:
    kafka_of(tmp_path / "one", 1)
    with pytest.raises(services.DifferentServicesError, match=r"has 1 brokers, not 3: .*--delete"):
        services.start(tmp_path / "one", ["kafka"], brokers=3)
    with pytest.raises(services.DifferentServicesError, match="made without a secure listener"):
        services.start(tmp_path / "one", ["kafka"], secure=True)
    with pytest.raises(services.DifferentServicesError, match="2 brokers: there may be 1 or 3"):
        services.start(tmp_path / "two", ["kafka"], brokers=2)
    with pytest.raises(services.ServiceError, match="no service cassandra"):
        services.start(tmp_path / "three", ["cassandra"])


def test_three_brokers_need_two_for_a_write(tmp_path: Path) -> None:
    known = State()
    for number in (1, 2, 3):
        name = f"kafka-{number}"
        known.nodes[name] = Node(name, {"plain": 20_000 + number, "controller": 21_000 + number})
    told = kafka_settings(Place(tmp_path, known), known.nodes["kafka-2"])
    assert told["node.id"] == 2
    assert (told["default.replication.factor"], told["min.insync.replicas"]) == (3, 2)
    assert told["unclean.leader.election.enable"] == told["auto.create.topics.enable"] == "false"
    assert told["listeners"] == "PLAIN://127.0.0.1:20002,CONTROLLER://127.0.0.1:21002"
    assert str(told["controller.quorum.voters"]).count("@127.0.0.1:") == 3


def test_the_certificate_is_trusted_by_who_trusts_its_authority(tmp_path: Path) -> None:
    make_certificate(tmp_path / "tls")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "tls" / "server.pem")
    client = ssl.create_default_context(cafile=tmp_path / "tls" / "ca.pem")
    with socket.create_server((ports.LOOPBACK, 0)) as listening:
        listening.settimeout(120)

        def serve() -> None:
            with server.wrap_socket(listening.accept()[0], server_side=True) as served:
                served.sendall(b"in")

        thread = threading.Thread(target=serve)
        thread.start()
        plain = socket.create_connection(listening.getsockname(), 120)
        with client.wrap_socket(plain, server_hostname=ports.LOOPBACK) as safe:
            assert safe.recv(2) == b"in"
        thread.join(120)
    assert stat.S_IMODE((tmp_path / "tls" / "server.pem").stat().st_mode) == 0o600
    before = (tmp_path / "tls" / "ca.pem").read_bytes()
    make_certificate(tmp_path / "tls")
    assert (tmp_path / "tls" / "ca.pem").read_bytes() == before, "it was made anew"
    assert x509.load_pem_x509_certificate(before).subject == x509.load_pem_x509_certificate(before).issuer


# The profile


def test_the_profile_needs_services_that_run(tmp_path: Path) -> None:
    with pytest.raises(services.ServiceError, match=r"there are no services in .*party services up"):
        load({"profile": "services"}, {}, tmp_path)
    with pytest.raises(ConfigurationError, match="no profile 'cloud'"):
        load({}, {"PARTY_PROFILE": "cloud"}, tmp_path)
    (tmp_path / ".party").mkdir()
    kafka_of(services_folder(tmp_path), 1)
    with pytest.raises(services.ServiceError, match=r"kafka-1 of .* does not run"):
        load({"profile": "services"}, {}, tmp_path)


# The command


@pytest.mark.parametrize("words", [["--only", "redis,minio"], ["--only", "redis", "--only", "minio,redis"]])
def test_some_are_named_with_commas_or_again_and_again(
    cli: Cli, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def fetch(names: list[str], say: object) -> dict[str, Path]:
        asked.append(names)
        return {}

    monkeypatch.setattr(services, "fetch", fetch)
    assert cli.json("services", "fetch", *words) == {}
    assert asked == [["redis", "minio"]]
    assert "there is no service mongo" in cli.json("services", "fetch", *words, "--only", "mongo", code=2)["message"]


def test_no_cluster_id_is_taken_for_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "token_bytes", lambda size: b"\xfb\xff" + bytes(size - 2))
    made = token(16)
    assert not set("-_") & set(made)
    assert len(urlsafe_b64decode(made + "==")) == 16
