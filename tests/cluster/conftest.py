"""One Ray head for all cluster tests, started by us, on loopback, with a dashboard for jobs; ended by its own pid.

A test that loses a head starts one of its own.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from agent_party.cluster import ray_calls
from agent_party.cluster.services import ports

PATIENCE = 300
PATIENT = ("RAY_DASHBOARD_STARTUP_TIMEOUT_S", "RAY_gcs_server_port_wait_time_s", "RAY_worker_register_timeout_seconds")
"""How long Ray waits for its own processes, in seconds: a machine that has much else to do takes more than a minute."""


class Head(NamedTuple):
    """Where it listens, and the environment of a program that uses it."""

    address: str
    jobs: str
    environment: dict[str, str]
    pid: int


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now, and that no outgoing connection takes meanwhile."""
    found: list[int] = []
    for _ in range(count):
        found.append(ports.free(found))
    return found


def answers(url: str) -> bool:
    """Whether something answers there."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


@pytest.fixture(autouse=True)
def never_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether an earlier test has left Ray is no affair of the next one."""
    monkeypatch.setattr(ray_calls, "STATE", ray_calls._State())


@pytest.fixture(scope="session")
def head() -> Iterator[Head]:
    """The head that the tests share."""
    with running_head() as shared:
        yield shared


@contextlib.contextmanager
def running_head() -> Iterator[Head]:
    """A head node of 2 CPUs. What it started ends with it, however it ends."""
    folder = Path(tempfile.mkdtemp(prefix="rt-"))  # Ray's sockets need a short path
    port, dashboard, *others = free_ports(7)
    names = (
        "dashboard-agent-grpc-port",
        "dashboard-agent-listen-port",
        "metrics-export-port",
        "ray-client-server-port",
    )
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PARTY_", "RAY_"))},
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_enable_metrics_collection": "0",
        **dict.fromkeys(PATIENT, str(PATIENCE)),
    }
    ray = Path(sys.executable).with_name("ray")
    options = {"port": port, "node-ip-address": "127.0.0.1", "num-cpus": 2, "include-dashboard": "true",
               "dashboard-host": "127.0.0.1", "dashboard-port": dashboard, "temp-dir": folder,
               **dict(zip(names, others, strict=False))}  # fmt: skip
    command = [str(ray), "start", "--head", "--block", *(f"--{name}={value}" for name, value in options.items())]
    with (folder / "head.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
        try:
            url, deadline = f"http://127.0.0.1:{dashboard}", time.monotonic() + 2 * PATIENCE
            while not answers(f"{url}/api/version"):
                assert process.poll() is None, (folder / "head.log").read_text()
                assert time.monotonic() < deadline, (folder / "head.log").read_text()
                time.sleep(0.2)  # the port is not a file to wait on
            address = f"127.0.0.1:{port}"
            yield Head(address, url, {**environment, "RAY_ADDRESS": address}, process.pid)
        finally:
            process.terminate()
            process.wait(180)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: Head) -> Path:
    """A folder to work in, with a keyring of its own, for a party on the head."""
    move_to(tmp_path, monkeypatch)
    turn_to(head, monkeypatch)
    return tmp_path


def move_to(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder, with a keyring of its own and no settings."""
    monkeypatch.chdir(folder)
    for name in [name for name in os.environ if name.startswith(("PARTY_", "RAY_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PARTY_STATE_DIR", str(folder / "state"))


def turn_to(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what connects to Ray from now on find this head."""
    for name in ("RAY_AUTH_MODE", "RAY_ADDRESS", "RAY_enable_metrics_collection"):
        monkeypatch.setenv(name, head.environment[name])
