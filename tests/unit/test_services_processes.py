"""The servers' processes: detached, known by pid and birth, never mistaken for another's; and the profile."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_party.cluster import services
from agent_party.cluster.services import nodes, ports, processes, state
from agent_party.cluster.services.server import Command, Place, environment
from agent_party.cluster.services.state import Node, State
from agent_party.cluster.settings import load, services_folder
from tests import services_kit


def silent(line: str) -> None:
    """Progress that nobody watches."""


def until_it_says_here(log: Path) -> None:
    """Wait until a process has begun to run its program."""
    deadline = time.monotonic() + 120
    while log.read_text() != "here\n":
        assert time.monotonic() < deadline, "it says nothing"
        time.sleep(0.01)


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[tuple[int, str]]:
    """A process of ours, detached, with the moment of its birth."""
    words = [sys.executable, "-c", "import sys, time; print('here', flush=True); time.sleep(600)"]
    pid = processes.spawn(words, environment(), tmp_path / "log")
    birth = processes.born(pid)
    until_it_says_here(tmp_path / "log")
    yield pid, birth
    processes.end(pid, birth, 0)


def test_a_process_is_detached_and_its_words_are_kept(sleeper: tuple[int, str], tmp_path: Path) -> None:
    pid, birth = sleeper
    assert os.getsid(pid) == pid != os.getsid(0)
    assert processes.same(pid, birth)
    assert processes.memory(pid) > 1 << 20
    assert processes.end(pid, birth, 120)
    assert not processes.same(pid, birth)
    assert processes.born(pid) == ""


def test_another_process_of_the_same_pid_is_not_signalled(sleeper: tuple[int, str]) -> None:
    pid, birth = sleeper
    other = f"{birth}0"
    assert not processes.same(pid, other)
    assert not processes.tell(pid, other, signal.SIGKILL)
    assert processes.end(pid, other, 0), "one that is not ours counts as gone"
    assert processes.same(pid, birth), "it was killed"


def test_a_paused_process_is_woken_to_hear_that_it_ends(
    sleeper: tuple[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pid, birth = sleeper
    assert processes.tell(pid, birth, signal.SIGSTOP)
    told, tell = list[signal.Signals](), processes.tell

    def noted(pid: int, birth: str, number: signal.Signals) -> bool:
        told.append(number)
        return tell(pid, birth, number)

    monkeypatch.setattr(processes, "tell", noted)
    assert processes.end(pid, birth, 120)
    assert told == [signal.SIGTERM, signal.SIGCONT], "it had to be killed"


def test_one_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    words = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('here', flush=True)"
    pid = processes.spawn([sys.executable, "-c", f"{words}; time.sleep(600)"], environment(), tmp_path / "log")
    birth = processes.born(pid)
    until_it_says_here(tmp_path / "log")
    assert processes.end(pid, birth, 0.1, 120)
    assert not processes.same(pid, birth)


def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    place, node = Place(tmp_path, State()), Node("redis", {"redis": 1})
    place.home(node).mkdir()
    with pytest.raises(services.ServiceError, match="redis cannot be started: /none"):
        nodes.launch(place, node, Command(["/none"], {}))


def test_a_server_that_ends_at_once_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    place, node = Place(tmp_path, State()), Node("redis", {"redis": ports.free()})
    place.home(node).mkdir()
    nodes.launch(place, node, Command([sys.executable, "-c", "raise SystemExit('no memory left')"], environment()))
    with pytest.raises(services.ServiceError, match=r"redis has ended while it started: .*no memory left"):
        nodes.await_answer(place, node, silent)


def test_the_log_of_the_time_before_is_kept(tmp_path: Path) -> None:
    place, node = Place(tmp_path, State()), Node("redis")
    place.home(node).mkdir()
    for said in ("one", "two"):
        nodes.launch(place, node, Command([sys.executable, "-c", f"print('{said}')"], environment()))
        assert processes.gone(node.pid, node.born, 120)
    assert place.log(node).read_text() == "two\n"
    assert place.log(node).with_name("server.log.1").read_text() == "one\n"


def test_servers_get_nothing_of_the_environment_that_sets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MINIO_ROOT_USER", "KAFKA_OPTS", "JAVA_TOOL_OPTIONS", "CLASSPATH", "NEO4J_AUTH", "PARTY_JOURNAL"):
        monkeypatch.setenv(name, "x")
    assert environment(A="b").keys() <= {"PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "A"}


def test_the_profile_stands_between_the_file_and_what_is_given(tmp_path: Path, sleeper: tuple[int, str]) -> None:
    pid, birth = sleeper
    known = State(secrets={"redis": "p", "minio": "q", "neo4j": "n"})
    for name, port in (("kafka-1", "plain"), ("neo4j", "bolt"), ("redis", "redis"), ("minio", "s3")):
        known.nodes[name] = Node(name, {port: 20_001}, pid, birth)
    services_folder(tmp_path).mkdir(parents=True)
    state.write(services_folder(tmp_path), known)
    (tmp_path / "party.toml").write_text('profile = "services"\njournal = "sqlite:///x.db"\nviews = "sqlite:///v.db"\n')
    found = load({}, {"PARTY_VIEWS": "redis://elsewhere"}, tmp_path)
    assert found.journal == "kafka://127.0.0.1:20001/agent.events"
    assert found.graph == "bolt://neo4j:n@127.0.0.1:20001"
    assert found.views == "redis://elsewhere"
    assert found.blobs == "s3://party:q@agent-party?endpoint=http://127.0.0.1:20001"


def test_what_a_killed_run_left_is_ended(tmp_path: Path) -> None:
    """By the pid that is recorded, if its owner is dead: one that lives keeps its servers, and another's pid stays."""
    program = (
        "import sys, pathlib; from tests import services_kit as kit; print(kit.new_folder(pathlib.Path(sys.argv[1])))"
    )
    dead = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], cwd=Path(__file__).parents[2], capture_output=True, text=True,
        check=True,
    ).stdout.strip()  # fmt: skip
    mine = services_kit.new_folder(tmp_path)
    sleepers = [subprocess.Popen(["sleep", "600"], start_new_session=True) for _ in range(3)]
    try:
        for folder, sleeper in ((dead, sleepers[0]), (mine, sleepers[1])):
            node = Node("redis", pid=sleeper.pid, born=processes.born(sleeper.pid))
            other = Node("minio", pid=sleepers[2].pid, born="of another boot")
            state.write(Path(folder), State(nodes={"redis": node, "minio": other}))
        assert services_kit.end_left_behind(tmp_path) == [Path(dead)]
        assert not Path(dead).exists()
        assert [sleeper.poll() is None for sleeper in sleepers] == [False, True, True]
        assert services_kit.end_left_behind(tmp_path) == []
    finally:
        for sleeper in sleepers:
            sleeper.kill()
            sleeper.wait()
    assert Path(mine).exists()
