"""`party demo`, whole: the figures that it prints are its test."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent_party.cluster.services.cache import cache_folder


@pytest.fixture(scope="module", params=["embedded", "services"])
def facts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One telling, over the running Python's own sources, on a Ray of its own."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "agent-party").mkdir()
    (folder / "agent-party" / "services").symlink_to(cache_folder())  # nothing is fetched anew for this
    profile = ["--profile", "services"] if request.param == "services" else []
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PARTY_", "RAY_"))}
    environment = {**kept, "XDG_CACHE_HOME": str(folder), "RAY_AUTH_TOKEN_PATH": str(folder / "token")}
    command = [str(Path(sys.executable).with_name("party")), "demo", "--yes", "--json", "--seed", "4711", *profile]
    ran = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=1_000, check=False
    )
    log = folder / "agent-party" / "demo" / "ray.log"
    assert ran.returncode == 0, ran.stdout + ran.stderr + (log.read_text()[-2_000:] if log.exists() else "")
    assert ran.stdout.count("\n") == 1, "not one line"
    told: dict[str, Any] = json.loads(ran.stdout)
    return told


def test_it_reads_is_killed_and_resumes(facts: dict[str, Any]) -> None:
    assert facts["seed"] == 4711
    assert facts["files_read"] >= 500
    assert len({facts["driver_pid"], facts["host_pid_before"], facts["host_pid_after"]}) == 3
    assert 0 < facts["steps_before_kill"] < facts["files_read"]
    assert facts["steps_replayed"] >= facts["steps_before_kill"]
    assert facts["resume_seconds"] > 0


def test_each_effect_was_done_once_but_for_the_one_in_flight(facts: dict[str, Any]) -> None:
    assert facts["effects_distinct"] == facts["steps_total"]
    assert facts["effects_executed"] - facts["effects_distinct"] in (0, 1)


def test_its_citations_stand_and_a_false_one_does_not(facts: dict[str, Any]) -> None:
    assert facts["citations"] == facts["citations_verified"] >= 3
    assert facts["false_citation_rejected"]
    assert any(cited.startswith("subprocess.py:") for cited in facts["cited"])
    assert (facts["questions"], facts["questions_right"] >= 16) == (20, True)


def test_the_graph_leads_from_what_was_read_back_to_who_asked(facts: dict[str, Any]) -> None:
    assert facts["why_complete"]
    assert (facts["why"][0], facts["why"][-1]) == ("produced", "asked")
    assert "delegated-to" in facts["why"]


def test_the_log_verifies_and_harm_is_found(facts: dict[str, Any]) -> None:
    assert facts["verify_ok"]
    assert facts["commits"] > facts["files_read"]
    assert facts["tamper_injected_at"] == facts["tamper_detected_at"]
    assert facts["truncation_detected"]
