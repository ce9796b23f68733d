"""The rules a reader relies on: what imports what, how long things are, what is public; lint and types."""

import importlib
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import agent_party
from tests.unit.structure import (
    FILE_LIMIT,
    FRONT,
    FUNCTION_LIMIT,
    LAYERS,
    not_standalone,
    python_files,
    too_long,
    wrong_direction,
)

ROOT = Path(__file__).resolve().parents[2]
VERIFIER = ROOT / "eventstore" / "verify.py"
VERIFIES_WITH = frozenset({"nacl"})

PUBLIC = {
    "Agent",
    "Approval",
    "Budget",
    "Capabilities",
    "ConflictError",
    "Decider",
    "EventStoreError",
    "Party",
    "PartyError",
    "RejectedError",
    "Reply",
    "StepError",
    "Task",
    "TaskCancelledError",
    "TaskFailedError",
    "TaskHandle",
    "__version__",
    "current_step",
    "event",
    "step",
}
"""The public surface. Changing it is a decision: change this line with it."""

OPTIONAL = {
    "ray",
    "aiokafka",
    "neo4j",
    "redis",
    "minio",
    "ladybug",
    "starlette",
    "uvicorn",
    "openai",
    "genai_prices",
    "httpx2",
    "pydantic",
    "bm25s",
    "numpy",
    "Stemmer",
}
"""What an extra brings, and `import agent_party` must therefore not need."""

IMPORT_SECONDS = 0.2


ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=900, check=False, env=ENVIRONMENT
    )


# Length


def test_files_and_functions_are_short() -> None:
    paths = list(python_files(ROOT, *LAYERS, "tests", "examples", "benchmarks"))
    assert Path(__file__) in paths
    assert [breach for path in paths for breach in too_long(path)] == []


def test_each_file_is_seen_once() -> None:
    paths = list(python_files(ROOT, *LAYERS))
    assert ROOT / "eventstore" / "__init__.py" in paths
    assert len({path.resolve() for path in paths}) == len(paths)


def test_a_long_file_and_a_long_function_are_caught(tmp_path: Path) -> None:
    path = tmp_path / "long.py"
    path.write_text("def f():\n" + "    x = 1\n" * FUNCTION_LIMIT + "y = 2\n" * FILE_LIMIT)
    file, function = too_long(path)
    assert f"{FILE_LIMIT + FUNCTION_LIMIT + 1} lines" in file
    assert f"f has {FUNCTION_LIMIT + 1} lines" in function


def test_the_limits_themselves_are_allowed(tmp_path: Path) -> None:
    path = tmp_path / "full.py"
    path.write_text("def f():\n" + "    x = 1\n" * (FUNCTION_LIMIT - 1) + "y = 2\n" * (FILE_LIMIT - FUNCTION_LIMIT))
    assert too_long(path) == []


# Imports


def test_imports_point_one_way() -> None:
    assert [breach for path in python_files(ROOT, *LAYERS) for breach in wrong_direction(ROOT, path)] == []


@pytest.mark.parametrize(
    ("layer", "line"),
    [
        ("eventstore", "from agent_party.actors import agent"),
        ("eventstore", "from agent_party import actors"),
        ("eventstore", "from agent_party import Party"),
        ("eventstore", "import agent_party"),
        ("eventstore", "from ..projections import views"),
        ("eventstore", "def f():\n    import agent_party.cluster.hosts"),
        ("actors", "from agent_party.projections.views import Views"),
        ("actors", "from .. import cluster"),
        ("projections", "import agent_party.actors.task as t"),
        ("cluster", "from agent_party.cli import main"),
        ("actors", "import eventstore.log"),
        (FRONT, "from eventstore import log"),
        (FRONT, "import ray"),
        ("actors", "from ray.util import state"),
        ("projections", "import importlib\nray = importlib.import_module('ray')"),
    ],
)
def test_a_breach_of_direction_is_caught(tmp_path: Path, layer: str, line: str) -> None:
    path = tmp_path / layer / "planted.py"
    path.parent.mkdir()
    path.write_text(line + "\n")
    assert len(wrong_direction(tmp_path, path)) == 1


@pytest.mark.parametrize(
    ("layer", "line"),
    [
        ("eventstore", "from agent_party.eventstore import log\nfrom . import rule\nfrom .tape import Tape"),
        ("actors", "from agent_party.eventstore.log import Log\nfrom ..eventstore import keys"),
        ("cluster", "import ray\nfrom agent_party.actors import task\nfrom agent_party import projections"),
        (FRONT, "from agent_party import cluster\nfrom agent_party.cli import main\nfrom . import web"),
    ],
)
def test_a_permitted_import_passes(tmp_path: Path, layer: str, line: str) -> None:
    path = tmp_path / layer / "fine.py"
    path.parent.mkdir()
    path.write_text(line + "\n")
    assert wrong_direction(tmp_path, path) == []


def test_the_verifier_stands_alone() -> None:
    assert [
        breach for path in VERIFIER.parent.glob(VERIFIER.name) for breach in not_standalone(path, allowed=VERIFIES_WITH)
    ] == []


def test_a_verifier_that_leans_on_us_is_caught(tmp_path: Path) -> None:
    path = tmp_path / "verify.py"
    path.write_text(
        "import hashlib, msgspec\nfrom nacl import bindings\nfrom agent_party import x\nfrom . import rule\n"
    )
    assert [breach.split(": ")[1] for breach in not_standalone(path, allowed=VERIFIES_WITH)] == [
        "imports msgspec",
        "imports agent_party.x",
        "imports .rule",
    ]


def test_nothing_beside_the_verifier_shadows_the_standard_library() -> None:
    """`python verify.py` puts its own folder first on the path."""
    names = {path.stem for path in VERIFIER.parent.iterdir()}
    assert names & sys.stdlib_module_names == set()


@pytest.mark.parametrize("name", sorted(LAYERS.keys() - {FRONT}))
def test_a_bare_import_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    with pytest.raises(ImportError, match=rf"import agent_party\.{name} instead of {name}"):
        importlib.import_module(name)
    importlib.import_module(f"agent_party.{name}")


# The front door


def test_the_public_surface_is_pinned() -> None:
    assert set(agent_party.__all__) == PUBLIC
    assert len(agent_party.__all__) == len(PUBLIC) <= 20
    assert all(hasattr(agent_party, name) for name in PUBLIC)


def test_the_package_imports_fast_and_alone() -> None:
    """Processor time, so that a busy machine fails nothing; the median, because the first run compiles."""
    script = (
        "import json, sys, time; began = time.process_time(); import agent_party; "
        "print(json.dumps([time.process_time() - began, sorted(sys.modules)]))"
    )
    runs = [json.loads(run("-c", script).stdout) for _ in range(5)]
    modules = {name.split(".")[0] for name in runs[0][1]}
    assert "agent_party" in modules
    assert modules & OPTIONAL == set()
    assert statistics.median(seconds for seconds, _ in runs) < IMPORT_SECONDS


# Lint and types


@pytest.mark.parametrize(
    "command",
    [("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",)],
    ids=["ruff-check", "ruff-format", "mypy-strict"],
)
def test_the_tools_find_nothing(command: tuple[str, ...]) -> None:
    finished = run("-m", *command)
    assert finished.returncode == 0, finished.stdout + finished.stderr
